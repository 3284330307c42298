"""Work on many clips that ends in rows of numbers, kept in a folder of parts.

A part is some clips in a row (`storage/parts.py` resumes and shares them). At
the end process 0 joins them in the order of the clips; who asks for the same
again reads the joined files, without loading them (numpy memmaps).

  FOLDER/of.json          what the rows are of, and which clips failed
  FOLDER/NAME.npy         rows by name, joined
  FOLDER/parts/*.npz      while it is under way
"""

from collections.abc import Callable
import dataclasses
import json
import logging
import os
import shutil
from typing import Any

import numpy as np

from storage import files
from storage import npz
from storage import parts
from storage import processes
from storage import progress as progress_lib

log = logging.getLogger(__name__)

MAX_FAILED = 0.01  # share of the clips; more is an error
_PROBLEM = f"clips cannot be used, more than {MAX_FAILED:.0%}"


@dataclasses.dataclass(frozen=True)
class Part:
  """Rows of those clips of a part that could be read, and why others not."""

  index: np.ndarray  # int, of the clips that the rows are of
  rows: dict[str, np.ndarray]
  failures: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Rows:
  """All of them: `rows["x"][i]` is of clip `index[i]`, rising."""

  folder: str
  index: np.ndarray
  rows: dict[str, np.ndarray]
  failures: dict[str, str]


def compute(
  folder: str,
  of: dict[str, Any],
  num: int,
  part_size: int,
  make: Callable[[np.ndarray], Part],
  collective: bool = False,
) -> Rows:
  """The rows of clips 0 to num, from the folder or made now.

  Args:
    folder: for these rows alone.
    of: what they are of; must be JSON, and equal for equal rows.
    num: how many clips.
    part_size: clips of a part.
    make: from the numbers of some clips to their part.
    collective: `make` needs all processes at once, so each makes every part,
      and process 0 writes them.

  Raises:
    ValueError: the folder holds rows of something else, or more than
      MAX_FAILED of the clips failed.
  """
  of = json.loads(json.dumps({**of, "num": num, "part_size": part_size}))
  path = os.path.join(folder, "of.json")
  if not os.path.exists(path):
    layout = parts.Layout(num, part_size)
    _make_parts(folder, of, layout, make, collective)
  stored = files.read_json(path)
  parts.check_same(folder, stored["of"], of, "rows")
  failures = stored["failures"]
  parts.check_failures(list(failures.items()), num, MAX_FAILED, _PROBLEM)
  names = [n[:-4] for n in os.listdir(folder) if n.endswith(".npy")]
  arrays = {
    n: np.load(os.path.join(folder, f"{n}.npy"), mmap_mode="r") for n in names
  }
  index = arrays.pop("index")
  return Rows(folder, index, arrays, failures)


def discard(rows: Rows) -> None:
  """Removes the files of rows that all processes have read."""
  processes.wait_for_all("rows are read")
  if processes.is_first():
    shutil.rmtree(rows.folder)


def _make_parts(folder, of, layout, make, collective) -> None:
  whole = parts.Folder(folder, layout.names, *processes.place())
  missing = whole.mine(collective)
  failures, total = [], len(missing) * layout.per_part
  progress = progress_lib.Progress(of["name"], total, "clips", seconds=5)
  for number in missing:
    made = make(np.array(layout.places(number)))
    for name, why in made.failures.items():
      log.info("left out %s: %s", name, why)
    failures += made.failures.items()
    parts.check_failures(failures, layout.examples, MAX_FAILED, _PROBLEM)
    if not collective or whole.index == 0:
      why = np.frombuffer(json.dumps(made.failures).encode(), np.uint8)
      files.write_npz(
        whole.part(number), {"index": made.index, "failures": why, **made.rows}
      )
    progress.add(layout.per_part)
  whole.finish(lambda paths: _join(folder, of, paths))
  processes.wait_for_all("parts are joined")


def _join(folder: str, of: dict[str, Any], paths: list[str]) -> None:
  failures = {}
  for path in paths:
    failures |= json.loads(npz.load(path, "failures").tobytes())
  counts = {path: len(npz.load(path, "index")) for path in paths}
  held = [path for path, count in counts.items() if count] or paths[:1]
  for name in npz.names(held[0]):
    if name != "failures":
      with open(os.path.join(folder, f"{name}.npy"), "wb") as f:
        rows = (npz.load(path, name) for path in held)
        npz.write_rows(f, sum(counts.values()), rows)
  # Last: a folder with it is complete.
  record = {"of": of, "failures": failures}
  files.write_json(os.path.join(folder, "of.json"), record)
  shutil.rmtree(os.path.join(folder, "parts"))
