"""Hostile files: each reader takes many, and each is one line or the truth.

Files are damaged and forged by `mutate.py`, seed by seed the same in every run,
and read in a process of its own per reader (`child.py`), which notes errors of
any other class than ValueError, lines without the file's name, memory, hangs,
deaths, and writes outside of its folder. To see a fault alone:

  python -m tests.fuzz.child READER SEED 1 NEW_FOLDER
"""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from tests.fuzz import readers

_ROOT = pathlib.Path(__file__).parents[2]
_READERS = [name for name in readers.READERS if not name.startswith("planted")]
_FILES = 100
_MANY_FILES = 5000
_SECONDS = 60  # most that one file may take, on a busy machine


def _faults(
  reader: str, count: int, folder: pathlib.Path, seconds: float = _SECONDS
) -> list[str]:
  """Faults of a reader, each with its seed; ends at the first death or hang."""
  arguments = [reader, "0", str(count), str(folder), str(seconds)]
  environment = {
    **os.environ,
    "HOME": str(folder / "inside"),
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONPATH": str(_ROOT),
  }
  result = subprocess.run(
    [sys.executable, "-m", "tests.fuzz.child", *arguments],
    cwd=_ROOT,
    env=environment,
    capture_output=True,
    text=True,
    check=False,
  )
  notes = [json.loads(x) for x in result.stdout.splitlines() if x[:1] == "{"]
  faults = [f"{n['seed']}: {n['fault']}" for n in notes if "fault" in n]
  begun = [note["begin"] for note in notes if "begin" in note]
  if not notes or "refused" not in notes[-1]:
    ending = " ".join(result.stderr.split())[-1500:]
    kind = "hangs" if "Timeout (" in result.stderr else "dies"
    faults.append(f"{begun[-1:]}: {kind}: {ending}")
  else:
    assert len(begun) == count
    # Else the changes would not reach what the reader looks at.
    assert faults or notes[-1]["refused"] > count // 5, notes[-1]
  return faults


@pytest.mark.slow
@pytest.mark.parametrize("reader", _READERS)
def test_hostile_files_are_one_line_or_the_right_result(reader, tmp_path):
  assert _faults(reader, _FILES, tmp_path / "fuzz") == []


@pytest.mark.long
@pytest.mark.parametrize("reader", _READERS)
def test_many_hostile_files_are_one_line_or_the_right_result(reader, tmp_path):
  assert _faults(reader, _MANY_FILES, tmp_path / "fuzz") == []


@pytest.mark.parametrize(
  "reader, fault",
  [
    ("raises", "KeyError: 'shape'"),
    ("allocates", "1.2 GiB of memory"),
    ("asks for much", "too much memory"),
    ("hangs", "hangs: Timeout"),
    ("writes", "writes outside ['open "),
    ("creates", "writes outside ['os.mkdir "),
    ("dies", "dies: "),
    ("keeps the name", "no name of the file: 'it is damaged'"),
    ("speaks long", "more than a line"),
  ],
)
def test_planted_faults_are_noticed(reader, fault, tmp_path):
  seconds = 2 if reader == "hangs" else _SECONDS
  faults = _faults(f"planted {reader}", 2, tmp_path / "fuzz", seconds)
  assert faults and fault in faults[0], faults
