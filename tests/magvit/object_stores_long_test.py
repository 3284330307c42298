"""Lives of runs in stores of gs:// and s3://: those on a disk, bit by bit.

Programs are killed at random and in the middle of a save, and go on; another
store fails, stalls and refuses.
"""

from collections.abc import Iterator
import contextlib
import json
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.parse
import urllib.request

import fsspec
import pytest

from magvit.workdir import commits
from magvit.workdir import standing
from storage import stores
from tests import emulator
from tests import faulty_proxy
from tests import programs

_STEPS = 32
_TRAINING = (f"--config.num_steps={_STEPS}", "--config.checkpoint_every=2")
_TOKENIZER = ("--config=tests/tiny.py:tokenizer", *_TRAINING)
_GENERATOR = ("--config=tests/tiny.py:masked", *_TRAINING)
# In a fresh process, loads an export and prints a checksum of what it makes.
_LOAD = """
import hashlib, sys
import magvit
import numpy as np
kind, place = sys.argv[1:]
if kind == "generator":
  made = magvit.load_generator(place).sample(0, 2, label=1)
else:
  video = np.random.default_rng(0).random((2, 5, 16, 16, 3), np.float32)
  made = magvit.load_tokenizer(place).encode(video)
made = np.asarray(made)
print("made", made.shape, hashlib.sha256(made.tobytes()).hexdigest())
"""


@contextlib.contextmanager
def _bucket(kind: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
  """Runs an emulator, which programs use; yields the URL of its bucket."""
  servers = {"gs": emulator.running, "s3": emulator.running_s3}
  with servers[kind]() as env:
    for name, value in env.items():
      monkeypatch.setenv(name, value)
    # File systems of a test before have the address of another server.
    fsspec.filesystem(kind).clear_instance_cache()
    yield f"{kind}://{emulator.BUCKET}"


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
  process: subprocess.Popen,
  workdir: str,
  steps: int | None,
  log: pathlib.Path,
) -> str | None:
  """Kills a run some steps after its first save, or in its first one if None.

  It is killed in the save of the last step at the latest. Returns words on what
  it was doing; None if it had ended before.
  """
  before, whole_before = _saves(workdir)
  before -= whole_before
  end = time.monotonic() + programs.SECONDS
  start, at_save = programs.size(log), None
  while process.poll() is None:
    assert time.monotonic() < end
    begun, whole = _saves(workdir)
    done = programs.said(log, start).count(" steps/s, ")
    if at_save is None and whole - whole_before:
      at_save = done
    if steps is None:
      is_time = bool(begun - whole - before)
    else:
      is_time = at_save is not None and done >= at_save + steps
    if is_time or _STEPS in begun:
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
  moments: list[int | None],
  log: pathlib.Path,
) -> list[str]:
  """Trains to the end through kills; returns words on each."""
  said = []
  arguments = ("main.py", *arguments, f"--workdir={workdir}")
  while len(said) < len(moments):
    steps = moments[len(said)]
    kept = standing.saved_step(workdir)
    process = programs.started(*arguments, log=log)
    doing = _killed(process, workdir, steps, log)
    assert doing is not None, "the run ended before it was killed"
    if steps is None and not doing.startswith("in the save"):
      continue  # the commit was faster than the kill
    saved = standing.saved_step(workdir)
    assert saved >= kept
    said.append(f"{doing}, step {saved} saved")
    if stores.exists(f"{workdir}/heartbeat.json"):
      assert standing.lines(workdir)[0].startswith(f"{workdir}: dead")
  begun = programs.size(log)
  programs.run(*arguments, log=log)
  assert "resuming from step" in programs.said(log, begun)
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
    programs.run("main.py", *arguments, log=log)


def _assert_same_life(disk: pathlib.Path, store: pathlib.Path) -> int:
  """Compares all that two lives left; returns how many files are the same."""
  equal = 0
  for path in sorted(disk.rglob("*")):
    name = path.relative_to(disk)
    other = store / name
    if path.name == "metrics.jsonl":
      here, there = (programs.metrics(str(x.parent)) for x in (path, other))
      assert there == here, name
    elif path.name == "model.safetensors":
      programs.assert_same_arrays(path.parent, other.parent)
    elif path.parent.name == "results" and path.suffix == ".json":
      here, there = (
        json.loads(x.read_text())["metrics"] for x in (path, other)
      )
      for metrics in (here, there):
        metrics.pop("seconds", None)
      assert there == here, name
    elif path.suffix in (
      *(".npz", ".png", ".gif", ".mp4"),
    ) or path.name.startswith("tokens-"):
      assert other.read_bytes() == path.read_bytes(), name
    else:
      continue
    equal += 1
  return equal


def _made(kind: str, place: str, log: pathlib.Path) -> str:
  """What a fresh process makes with an export, as a line."""
  said = programs.run("-c", _LOAD, kind, place, log=log)
  (line,) = re.findall("^made .*$", said, re.MULTILINE)
  return line


@pytest.mark.long
def test_a_whole_life_on_gs_is_that_on_a_disk(tmp_path, monkeypatch):
  """Ten kills, three of them in a save; the export is loaded from its URL."""
  log, disk = tmp_path / "log", tmp_path / "disk"
  _life(
    str(disk),
    lambda *given, workdir: programs.run(
      "main.py", *given, f"--workdir={workdir}", log=log
    ),
    log,
  )
  rng = random.Random(int(os.environ.get("KILLS_SEED", "0")))
  said: list[str] = []

  def train(*given: str, workdir: str) -> None:
    in_saves = 1 if workdir.endswith("tokenizer") else 2
    moments: list[int | None] = [None] * in_saves
    moments += [rng.randint(0, 3) for _ in range(5 - in_saves)]
    rng.shuffle(moments)
    said.extend(
      _train_with_kills(*given, workdir=workdir, moments=moments, log=log)
    )

  with _bucket("gs", monkeypatch) as bucket:
    root = f"{bucket}/life"
    _life(root, train, log)
    made = [_made("generator", f"{x}/export", log) for x in (root, disk)]
    shutil.move(stores.fetched_folder(root), tmp_path / "store")
  print("killed:", "; ".join(said))
  assert len(said) == 10
  assert sum(words.startswith("in the save") for words in said) >= 3
  assert sum(not words.endswith(" 0 saved") for words in said) >= 6
  # Those of two trainings, two exports, two results, samples and tokens.
  assert _assert_same_life(disk, tmp_path / "store") > 12
  assert made[0] == made[1]


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
    said = programs.run(*train, f"--workdir={root}/run", log=log, code=1)
    seconds = [time.monotonic() - begun]
    assert "The newest complete one: step 2." in said
    assert faults.refused and standing.saved_step(f"{root}/run") == 2
    for words in ("Traceback", "Event loop is closed", "never retrieved"):
      assert words not in said, said[-5000:]
    faults.refuses = False
    said = programs.run(*train, f"--workdir={root}/run", log=log)
    assert "resuming from step 2" in said and "damaged" not in said
    programs.run(*export, *places(root), log=log)
    seconds.append(time.monotonic() - begun - seconds[0])
    store = pathlib.Path(stores.fetched_folder(root))
  assert faults.stalled == 1 and faults.failed >= 3
  programs.run(*train, f"--workdir={disk}/run", log=log)
  programs.run(*export, *places(disk), log=log)
  assert programs.metrics(str(store / "run")) == programs.metrics(
    str(disk / "run")
  )
  programs.assert_same_arrays(disk / "export", store / "export")
  print(f"{vars(faults)}, seconds: {seconds}")


def _pair(*arguments: str, log: pathlib.Path) -> list[subprocess.Popen]:
  """Starts two processes of one job."""
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
  job = ("--distributed", f"--coordinator=localhost:{port}", "--processes=2")
  return [
    programs.started(*("main.py", *arguments, *job, f"--process={i}"), log=log)
    for i in range(2)
  ]


def _end_together(pair: list[subprocess.Popen], log: pathlib.Path) -> None:
  for process in pair:
    process.wait(programs.SECONDS)
    assert process.returncode == 0, log.read_text()[-5000:]


def _kill_once_saved(
  processes: list[subprocess.Popen], workdir: str, log: pathlib.Path
) -> None:
  """Kills all processes of a run after its first save."""
  end = time.monotonic() + programs.SECONDS
  while not standing.saved_step(workdir):
    assert processes[0].poll() is None, log.read_text()[-5000:]
    assert time.monotonic() < end
    time.sleep(0.02)
  for process in processes:
    process.kill()
  for process in processes:
    assert process.wait() == -signal.SIGKILL, "it ended before it was killed"


@pytest.mark.long
def test_two_processes_save_to_gs_and_go_on_from_it(tmp_path, monkeypatch):
  log, disk = tmp_path / "log", str(tmp_path / "disk")
  flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=4"
  monkeypatch.setenv("XLA_FLAGS", flags)
  _end_together(_pair(*_TOKENIZER, f"--workdir={disk}", log=log), log)
  with _bucket("gs", monkeypatch) as bucket:
    workdir = f"--workdir={bucket}/pair"
    status = ("main.py", "--mode=status", workdir)
    pair = _pair(*_TOKENIZER, workdir, log=log)
    _kill_once_saved(pair, f"{bucket}/pair", log)
    said = programs.run(*status, log=log)
    assert f"{bucket}/pair: dead" in said and "2 in the job" in said
    assert "it goes on from step" in said
    _end_together(_pair(*_TOKENIZER, workdir, log=log), log)
    assert "resuming from step" in log.read_text()
    assert f"{bucket}/pair: finished" in programs.run(*status, log=log)
    assert programs.metrics(f"{bucket}/pair") == programs.metrics(disk)


@pytest.mark.long
def test_a_life_on_s3_is_that_on_a_disk(tmp_path, monkeypatch):
  """Trains through a kill, evaluates, exports, and loads from the URL."""
  log, disk = tmp_path / "log", tmp_path / "disk"

  def life(root: str) -> str:
    workdir = f"--workdir={root}/run"
    programs.run("main.py", *_TOKENIZER, workdir, log=log)
    programs.run("main.py", "--mode=evaluate", workdir, log=log)
    export = ("--mode=export", workdir, f"--output={root}/export")
    programs.run("main.py", *export, log=log)
    return _made("tokenizer", f"{root}/export", log)

  with _bucket("s3", monkeypatch) as bucket:
    url = f"{bucket}/run"
    killed = programs.started(
      *("main.py", *_TOKENIZER, f"--workdir={url}"), log=log
    )
    _kill_once_saved([killed], url, log)
    status = ("main.py", "--mode=status", f"--workdir={url}")
    assert f"{url}: dead" in programs.run(*status, log=log)
    there = life(bucket)
    assert "resuming from step" in log.read_text()
    assert f"{url}: finished" in programs.run(*status, log=log)
    shutil.move(stores.fetched_folder(bucket), tmp_path / "store")
  assert there == life(str(disk))
  # Losses, results, pictures and arrays.
  assert _assert_same_life(disk, tmp_path / "store") > 3
