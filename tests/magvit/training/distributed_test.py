"""Tests of magvit/training/distributed.py: processes compute as one."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from magvit.training import distributed
from magvit.training import endings
from magvit.training import loop
from tests import tiny

_ROOT = pathlib.Path(__file__).parents[3]

# main.py, in which a process that is silent for 5 seconds counts as dead.
_MAIN = """
from magvit.training import distributed
distributed.HEARTBEAT_SECONDS = 5
import main
main.app.run(main.main, flags_parser=main.command_line.parse_flags)
"""


def _start(devices, workdir, *flags):
  """Starts the program, on this number of devices."""
  xla = os.environ["XLA_FLAGS"] + (
    f" --xla_force_host_platform_device_count={devices}"
  )
  command = [sys.executable, "-c", _MAIN, f"--workdir={workdir}", *flags]
  command += ["--config.optimizer.peak_learning_rate=1e-4"]
  return subprocess.Popen(
    command,
    cwd=_ROOT,
    env={**os.environ, "XLA_FLAGS": xla, "PYTHONWARNINGS": "default"},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def _start_two(workdir, *flags):
  with socket.socket() as s:
    s.bind(("localhost", 0))
    port = s.getsockname()[1]
  job = ["--distributed", f"--coordinator=localhost:{port}", "--processes=2"]
  return [_start(4, workdir, *flags, *job, f"--process={i}") for i in range(2)]


def _end(process, code=0):
  output = process.communicate(timeout=600)[0]
  assert process.returncode == code, output
  return output


def _losses(workdir):
  """Losses of each step in order, by name."""
  path = workdir / "metrics.jsonl"
  lines = path.read_text().splitlines() if path.exists() else []
  rows = [json.loads(line) for line in lines]
  return [
    {k: v for k, v in row.items() if k.endswith("loss")}
    for row in rows
    if "eval" not in str(row)
  ]


def _params(workdir, step):
  """Stored parameters as arrays of this process, whichever wrote them."""
  with ocp.PyTreeCheckpointer() as checkpointer:
    path = workdir / "checkpoints" / str(step) / "state"
    tree = checkpointer.metadata(path).item_metadata.tree
    numpy = jax.tree.map(lambda _: ocp.RestoreArgs(np.ndarray), tree)
    return checkpointer.restore(path, restore_args=numpy)["params"]


def _assert_same(one, two, step):
  # Sums of float32 in another order change a loss by 1e-4 of it. Where a
  # gradient is nearly 0, rounding decides the sign of Adam's step: the five
  # learning rates add up to 2.9e-4, so parameters of two runs may end twice as
  # far apart.
  losses = _losses(one)[:step], _losses(two)[:step]
  assert len(losses[0]) == len(losses[1]) == step
  for a, b in zip(*losses, strict=True):
    assert a and a.keys() == b.keys()
    for name in a:
      np.testing.assert_allclose(a[name], b[name], rtol=1e-4, err_msg=name)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=6e-4),
    *(_params(workdir, step) for workdir in (one, two)),
  )


@pytest.mark.slow
@pytest.mark.parametrize(
  "name, changes",
  [
    ("recognition", {"recognizer.input": "pixels", "tokenizer_workdir": ""}),
    pytest.param("tokenizer", {}, marks=pytest.mark.rows),
  ],
)
def test_two_processes_train_and_score_as_one(name, changes, tmp_path):
  """This process is the one, on its eight devices."""
  one, two = tmp_path / "one", tmp_path / "two"
  changes = {"num_steps": 5, **changes}
  flags = [f"--config.{field}={value}" for field, value in changes.items()]
  # Each process has the devices of one slice.
  slices = ["--config.mesh.slices=2", "--config.mesh.fsdp=2"]
  pair = _start_two(two, f"--config=tests/tiny.py:{name}", *flags, *slices)
  config = tiny.get_config(name)
  config.update_from_flattened_dict(changes)
  config.optimizer.peak_learning_rate = 1e-4
  loop.train(config, str(one))
  for process in pair:
    _end(process)
  _assert_same(one, two, 5)
  names = {path.name for path in (one / "results").glob("*.json")}
  assert names and names == {p.name for p in (two / "results").glob("*.json")}
  for file in names:
    scores = [
      json.loads((workdir / "results" / file).read_text())["metrics"]
      for workdir in (one, two)
    ]
    for metric, value in scores[0].items():
      if metric != "seconds":
        np.testing.assert_allclose(
          scores[1][metric], value, rtol=1e-2, err_msg=metric
        )
  assert (two / "report.html").exists()


@pytest.mark.slow
def test_two_processes_train_a_generator_as_one_and_leave_together(
  tiny_tokenizer_workdir, tmp_path
):
  """SIGTERM to one stops both after the same step; kill -9 of one ends both."""
  one, two = tmp_path / "one", tmp_path / "two"
  flags = ["--config=tests/tiny.py:masked", "--config.num_steps=1000"]
  flags += [f"--config.tokenizer_workdir={tiny_tokenizer_workdir}"]
  flags += ["--config.checkpoint_every=5", "--config.checkpoints_to_keep=99"]
  pair = _start_two(two, *flags)
  alone = _start(1, one, *flags)
  for process, workdir in ((pair[1], two), (alone, one)):
    while len(_losses(workdir)) < 5:
      assert process.poll() is None, process.communicate()[0]
      time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
  output = _end(pair[0], endings.EXIT_CODE)
  _end(pair[1], endings.EXIT_CODE)
  _end(alone, endings.EXIT_CODE)
  _assert_same(one, two, 5)
  last = max(int(p.name) for p in (two / "checkpoints").iterdir())
  assert f"stopped on request after step {last}, which is saved" in output

  pair = _start_two(two, *flags)
  while len(_losses(two)) < last + 3:
    assert pair[0].poll() is None, pair[0].communicate()[0]
    time.sleep(0.005)
  pair[1].kill()
  output = pair[0].communicate(timeout=60)[0]
  pair[1].communicate()
  assert f"resuming from step {last}" in output
  assert pair[0].returncode not in (0, endings.EXIT_CODE)
  # The message is Gloo's, or that of a process that missed the heartbeats.
  assert "Gloo" in output or "another task died" in output

  # One process continues from the checkpoint of two.
  done = len(_losses(two))
  alone = _start(2, two, *flags)
  while len(_losses(two)) < done + 1:
    assert alone.poll() is None, alone.communicate()[0]
    time.sleep(0.005)
  alone.send_signal(signal.SIGTERM)
  output = _end(alone, endings.EXIT_CODE)
  assert "resuming from step" in output and "cannot be read" not in output


@pytest.mark.parametrize(
  "given, message",
  [
    (("node1", 2, 0), "--coordinator=node1 .*HOST:PORT"),
    (("node1:1234", 0, 0), "--processes=0 .*at least 1"),
    (("node1:1234", 2, 2), "--process=2 .*0 to 1, .*--processes=2"),
    ((None, 2, 0), "--distributed: .*--coordinator=HOST:PORT"),
  ],
)
def test_a_job_that_cannot_be_is_refused(given, message, monkeypatch):
  for name in ("SLURM_JOB_ID", "KUBERNETES_SERVICE_HOST"):
    monkeypatch.delenv(name, raising=False)
  # JAX asks this before anything else, and in tests it has begun to compute.
  monkeypatch.setattr(
    jax._src.xla_bridge, "backends_are_initialized", lambda: False
  )
  monkeypatch.setattr(jax.config, "update", lambda *unused: None)
  with pytest.raises(ValueError, match=message):
    distributed.join(*given)


def test_numbers_come_from_the_environment(monkeypatch):
  monkeypatch.setenv("JAX_PROCESS_ID", "one")
  with pytest.raises(ValueError, match="JAX_PROCESS_ID='one'"):
    distributed.join("node1:1234", 2, None)
  joined = {}
  monkeypatch.setattr(
    jax.distributed, "initialize", lambda *args, **kw: joined.update(args=args)
  )
  monkeypatch.setattr(jax.config, "update", lambda *unused: None)
  monkeypatch.setenv("JAX_PROCESS_ID", "1")
  monkeypatch.setenv("JAX_NUM_PROCESSES", "2")
  monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "node1:1234")
  distributed.join(None, None, None)
  assert joined["args"] == ("node1:1234", 2, 1)
