"""Tests of magvit/distributed.py: several processes compute what one does."""

import os
import pathlib
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from magvit import distributed
from magvit import masked
from magvit import mesh as mesh_lib
from magvit import tokenizer
from tests import tiny
from tests.magvit import five_steps


@pytest.mark.slow
def test_two_processes_train_as_one_and_leave_together(
  tiny_tokenizer_workdir, tmp_path
):
  """Two of four devices each against one device; then SIGTERM to one."""
  with socket.socket() as s:
    s.bind(("localhost", 0))
    address = f"localhost:{s.getsockname()[1]}"
  script = pathlib.Path(__file__).with_name("train_process.py")
  workers = [
    subprocess.Popen(
      [sys.executable, script, address, str(i), tmp_path]
      + [tiny_tokenizer_workdir],
      cwd=script.parents[2],
      env={**os.environ, "PYTHONWARNINGS": "default"},
    )
    for i in range(2)
  ]
  mesh = mesh_lib.data_mesh(jax.devices()[:1])
  one = {
    "tokenizer": five_steps.run(tokenizer.build, tiny.tokenizer(), mesh),
    "masked": five_steps.run(
      masked.build, tiny.masked(tiny_tokenizer_workdir), mesh
    ),
  }
  assert [w.wait(timeout=900) for w in workers] == [0, 0]
  # float32 sums in another order: 1e-4 of a loss. Where a gradient is nearly 0,
  # rounding decides the sign of Adam's step: the five learning rates add up to
  # 2.9e-4, so parameters of two runs may end twice as far apart.
  for name, expected in one.items():
    with np.load(tmp_path / f"{name}.npz") as shared:
      assert len(shared) == len(expected)
      for a, b in zip(shared.values(), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=6e-4)
  for i in range(2):
    asked = np.load(tmp_path / f"asked{i}.npy").tolist()
    assert asked == [False, False, True, True]


@pytest.mark.parametrize(
  "given, message",
  [
    (("node1", 2, 0), "--coordinator=node1 must be HOST:PORT"),
    (("node1:1234", 0, 0), "--processes=0 must be at least 1"),
    (("node1:1234", 2, 2), "--process=2 must be from 0 to 1"),
    ((None, 2, 0), "give --coordinator=HOST:PORT"),
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
  with pytest.raises(ValueError, match="JAX_PROCESS_ID='one' must be a number"):
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
