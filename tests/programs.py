"""Programs of this repository as processes of their own, and their files."""

import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import numpy as np
import safetensors.numpy

from storage import stores

ROOT = pathlib.Path(__file__).parents[1]
SECONDS = 900.0  # in which a program has to end


def started(*arguments: str, log: pathlib.Path) -> subprocess.Popen:
  """Starts Python with arguments in the repository; what it says is logged."""
  with log.open("a") as f:
    return subprocess.Popen(
      [sys.executable, *arguments],
      cwd=ROOT,
      env={**os.environ, "PYTHONWARNINGS": "default"},
      stdout=f,
      stderr=subprocess.STDOUT,
    )


def run(*arguments: str, log: pathlib.Path, code: int = 0) -> str:
  """Runs a program to its end; returns what it said."""
  begun = size(log)
  process = started(*arguments, log=log)
  process.wait(SECONDS)
  text = said(log, begun)
  assert process.returncode == code, text[-5000:]
  return text


def size(log: pathlib.Path) -> int:
  """Bytes of a log by now."""
  return log.stat().st_size if log.exists() else 0


def said(log: pathlib.Path, begun: int) -> str:
  """What a log says after its first bytes."""
  return log.read_bytes()[begun:].decode()


def metrics(workdir: str) -> list[dict[str, Any]]:
  """Lines of metrics.jsonl, without what is measured by a clock."""
  text = stores.read(f"{workdir}/metrics.jsonl").decode()
  lines = [json.loads(line) for line in text.splitlines()]
  for line in lines:
    for name in ("steps_per_second", "data_wait"):
      line.pop(name, None)
  return lines


def assert_same_arrays(one: pathlib.Path, two: pathlib.Path) -> None:
  """Compares two exports bit by bit; their files have arrays in any order."""
  ours, others = (
    safetensors.numpy.load_file(folder / "model.safetensors")
    for folder in (one, two)
  )
  assert ours.keys() == others.keys()
  for key, array in ours.items():
    np.testing.assert_array_equal(array, others[key])
