"""The whole life of two runs in a store of gs://: that on a disk, bit by bit.

Programs are killed at random and in the middle of a save, and go on; another
store fails, stalls and refuses.
"""

import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.parse
import urllib.request

import numpy as np
import pytest
import safetensors.numpy

from magvit.workdir import commits
from magvit.workdir import standing
from storage import stores
from tests import emulator
from tests import faulty_proxy

_ROOT = pathlib.Path(__file__).parents[2]
_STEPS = 12
_TRAINING = (f"--config.num_steps={_STEPS}", "--config.checkpoint_every=2")
_TOKENIZER = ("--config=tests/tiny.py:tokenizer", *_TRAINING)
_GENERATOR = ("--config=tests/tiny.py:masked", *_TRAINING)
_SECONDS = 900.0  # in which a program has to end
# In a fresh process, loads an export and prints what it makes.
_LOAD = """
import hashlib, sys
import magvit
import numpy as np
model = magvit.load_generator(sys.argv[1])
clips = np.asarray(model.sample(0, 2, label=1))
print("made", clips.shape, hashlib.sha256(clips.tobytes()).hexdigest())
"""


def _started(*arguments: str, log: pathlib.Path) -> subprocess.Popen:
  with log.open("a") as f:
    return subprocess.Popen(
      [sys.executable, *arguments],
      cwd=_ROOT,
      env={**os.environ, "PYTHONWARNINGS": "default"},
      stdout=f,
      stderr=subprocess.STDOUT,
    )


def _run(*arguments: str, log: pathlib.Path, code: int = 0) -> str:
  """Runs a program to its end; returns what it said."""
  begun = log.stat().st_size if log.exists() else 0
  process = _started(*arguments, log=log)
  process.wait(_SECONDS)
  text = log.read_bytes()[begun:].decode()
  assert process.returncode == code, text[-5000:]
  return text


def _saves(workdir: str) -> tuple[set[int], set[int]]:
  """(steps of which objects lie in the store, those that are committed)."""
  folder = workdir.removeprefix(f"gs://{emulator.BUCKET}/") + "/checkpoints/"
  url = (
    f"{os.environ['STORAGE_EMULATOR_HOST']}/storage/v1/b/{emulator.BUCKET}/o"
    f"?prefix={folder}&fields=items(name)"
  )
  with urllib.request.urlopen(url, timeout=30) as answer:
    items = json.load(answer).get("items", [])
  names = [x["name"].removeprefix(folder).partition("/") for x in items]
  begun = {int(step) for step, _, _ in names if step.isdecimal()}
  whole = {int(step) for step, _, name in names if name == commits.COMMITTED}
  return begun, whole


def _killed(
  process: subprocess.Popen, workdir: str, seconds: float | None
) -> str | None:
  """Kills a run after some seconds, or in its next save if None.

  It is killed in the save of the last step at the latest. Returns words on what
  it was doing; None if it had ended before.
  """
  begun, whole = _saves(workdir)
  before, start = begun - whole, time.monotonic()
  while process.poll() is None:
    passed = time.monotonic() - start
    assert passed < _SECONDS
    begun, whole = _saves(workdir)
    new = begun - whole - before
    is_time = seconds is not None and passed > seconds
    if is_time or _STEPS in begun or (seconds is None and new):
      break
    time.sleep(0.02)
  process.send_signal(signal.SIGKILL)
  process.wait()
  if process.returncode != -signal.SIGKILL:
    return None
  begun, whole = _saves(workdir)
  left = begun - whole - before
  return f"in the save of step {min(left)}" if left else "between two saves"


def _train_with_kills(
  *arguments: str,
  workdir: str,
  moments: list[float | None],
  log: pathlib.Path,
) -> list[str]:
  """Trains to the end through kills; returns words on each."""
  said = []
  arguments = ("main.py", *arguments, f"--workdir={workdir}")
  while len(said) < len(moments):
    seconds = moments[len(said)]
    kept = standing.saved_step(workdir)
    doing = _killed(_started(*arguments, log=log), workdir, seconds)
    assert doing is not None, "the run ended before it was killed"
    if seconds is None and not doing.startswith("in the save"):
      continue  # the commit was faster than the kill
    said.append(doing)
    assert standing.saved_step(workdir) >= kept
    if stores.exists(f"{workdir}/heartbeat.json"):
      assert standing.lines(workdir)[0].startswith(f"{workdir}: dead")
  _run(*arguments, log=log)
  return said


def _life(root: str, train, log: pathlib.Path) -> None:
  """Trains both, and uses the generator in all ways that write something."""
  tokenizer, generator = f"{root}/tokenizer", f"{root}/generator"
  train(*_TOKENIZER, workdir=tokenizer)
  train(
    *_GENERATOR, f"--config.tokenizer_workdir={tokenizer}", workdir=generator
  )
  for mode, *others in (
    ("evaluate",),
    ("sample", "--task=class_conditional", "--num=200"),
    ("tokenize", f"--output={root}/tokens", "--num=8"),
    ("export", f"--output={root}/export"),
  ):
    arguments = (f"--mode={mode}", f"--workdir={generator}", *others)
    _run("main.py", *arguments, log=log)


def _metrics(workdir: str) -> list[dict]:
  """Lines of metrics.jsonl, without what is measured by a clock."""
  text = stores.read(f"{workdir}/metrics.jsonl").decode()
  lines = [json.loads(line) for line in text.splitlines()]
  for line in lines:
    for name in ("steps_per_second", "data_wait"):
      line.pop(name, None)
  return lines


def _assert_same_arrays(one: pathlib.Path, two: pathlib.Path) -> None:
  """Compares two exports bit by bit; their files have arrays in any order."""
  ours, others = (
    safetensors.numpy.load_file(folder / "model.safetensors")
    for folder in (one, two)
  )
  assert ours.keys() == others.keys()
  for key, array in ours.items():
    np.testing.assert_array_equal(array, others[key])


def _assert_same_life(disk: pathlib.Path, store: pathlib.Path) -> None:
  for run in ("tokenizer", "generator"):
    assert _metrics(str(store / run)) == _metrics(str(disk / run))
  for name in ("export", "export/tokenizer"):
    _assert_same_arrays(disk / name, store / name)
  compared = [
    path.relative_to(disk)
    for path in sorted(disk.rglob("*"))
    if path.suffix in (".npz", ".png", ".gif", ".mp4")
    or path.name.startswith("tokens-")
  ]
  assert len(compared) > 6
  for name in compared:
    assert (store / name).read_bytes() == (disk / name).read_bytes(), name
  results = sorted(disk.glob("*/results/*.json"))
  assert len(results) > 1
  for path in results:
    there = json.loads((store / path.relative_to(disk)).read_text())["metrics"]
    here = json.loads(path.read_text())["metrics"]
    for metrics in (there, here):
      metrics.pop("seconds", None)
    assert there == here, path


@pytest.mark.long
def test_a_whole_life_on_gs_is_that_on_a_disk(tmp_path, monkeypatch):
  """Ten kills, three of them in a save; the export is loaded from its URL."""
  log, disk = tmp_path / "log", tmp_path / "disk"
  begun = time.monotonic()
  _life(
    str(disk),
    lambda *given, workdir: _run(
      "main.py", *given, f"--workdir={workdir}", log=log
    ),
    log,
  )
  seconds = time.monotonic() - begun
  rng = random.Random(int(os.environ.get("KILLS_SEED", "0")))
  said: list[str] = []

  def train(*given: str, workdir: str) -> None:
    in_saves = 1 if workdir.endswith("tokenizer") else 2
    moments: list[float | None] = [None] * in_saves
    moments += [rng.uniform(1.0, seconds / 8) for _ in range(5 - in_saves)]
    said.extend(
      _train_with_kills(*given, workdir=workdir, moments=moments, log=log)
    )

  with emulator.running() as env:
    for name, value in env.items():
      monkeypatch.setenv(name, value)
    root = f"gs://{emulator.BUCKET}/life"
    _life(root, train, log)
    loaded = [
      _run("-c", _LOAD, f"{place}/export", log=log) for place in (root, disk)
    ]
    shutil.move(stores.fetched_folder(root), tmp_path / "store")
  assert len(said) == 10
  assert sum(words.startswith("in the save") for words in said) >= 3
  _assert_same_life(disk, tmp_path / "store")
  made = [re.findall("^made .*$", text, re.MULTILINE) for text in loaded]
  assert made[0] == made[1] and len(made[0]) == 1
  print("killed:", "; ".join(said))


class _Faults:
  """One request in 100 fails, one stalls, and a save may be refused midway."""

  def __init__(self):
    self.refuses, self.failed, self.stalled, self.refused = True, 0, 0, 0
    self.requests = 0

  def __call__(self, number: int, method: str, path: str) -> int | float | None:
    self.requests = number
    is_write = method in ("POST", "PUT")
    part = f"{urllib.parse.unquote(path)} "
    if self.refuses and is_write and "/checkpoints/4/state/d/" in part:
      self.refused += 1
      return 403
    if number >= 150 and not self.stalled:
      self.stalled += 1
      return 35.0
    if number % 100 == 37:
      self.failed += 1
      return 503
    return None


@pytest.mark.long
def test_a_store_that_fails_loses_no_whole_checkpoint(tmp_path, monkeypatch):
  log, disk = tmp_path / "log", tmp_path / "disk"
  root, faults = f"gs://{emulator.BUCKET}/faulty", _Faults()
  train = ("main.py", "--config=tests/tiny.py:tokenizer")
  export = ("main.py", "--mode=export")
  places = lambda folder: (
    f"--workdir={folder}/run",
    f"--output={folder}/export",
  )
  with (
    emulator.running() as env,
    faulty_proxy.running(env["STORAGE_EMULATOR_HOST"], faults) as address,
  ):
    for name, value in env.items():
      is_url = value.startswith("http")
      monkeypatch.setenv(name, address if is_url else value)
    begun = time.monotonic()
    said = _run(*train, f"--workdir={root}/run", log=log, code=1)
    seconds = [time.monotonic() - begun]
    assert "The newest complete one: step 2." in said
    assert faults.refused and standing.saved_step(f"{root}/run") == 2
    for words in ("Traceback", "Event loop is closed", "never retrieved"):
      assert words not in said, said[-5000:]
    faults.refuses = False
    said = _run(*train, f"--workdir={root}/run", log=log)
    assert "resuming from step 2" in said and "damaged" not in said
    _run(*export, *places(root), log=log)
    seconds.append(time.monotonic() - begun - seconds[0])
    store = pathlib.Path(stores.fetched_folder(root))
  assert faults.stalled == 1 and faults.failed >= 3
  _run(*train, f"--workdir={disk}/run", log=log)
  _run(*export, *places(disk), log=log)
  assert _metrics(str(store / "run")) == _metrics(str(disk / "run"))
  _assert_same_arrays(disk / "export", store / "export")
  print(f"{vars(faults)}, seconds: {seconds}")
