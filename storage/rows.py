"""Rows of numbers for many clips, computed in a folder of parts and kept there.

A part has some consecutive clips (`storage/parts.py` resumes and shares parts).
At the end process 0 joins the parts in the order of the clips; the next request
for the same rows maps the joined files without loading them (numpy memmaps).

  FOLDER/of.json          description of the rows, and the clips that failed
  FOLDER/NAME.npy         rows by name, joined
  FOLDER/parts/*.npz      parts, until they are joined
"""

from collections.abc import Callable
import dataclasses
import json
import logging
import os
from typing import Any

import numpy as np

from storage import files
from storage import npz
from storage import parts
from storage import processes
from storage import progress as progress_lib
from storage import schema
from storage import stores

log = logging.getLogger(__name__)

# Largest share of the clips that may fail; of few clips one may, so that no
# single file ends the work on all others.
MAX_FAILED = 0.01
_REMEDY = "remove that folder, and they are made again"
_PROBLEM = f"clips cannot be used, more than one and more than {MAX_FAILED:.0%}"


@dataclasses.dataclass(frozen=True)
class Part:
  """Rows of the clips of a part that could be read.

  index: number of the clip of each row, int.
  rows: rows by name.
  failures: reasons why other clips could not be read, by name.
  """

  index: np.ndarray
  rows: dict[str, np.ndarray]
  failures: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class _Record:
  """What of.json says about the rows beside it."""

  of: dict[str, Any]
  failures: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Rows:
  """Rows of all clips: `rows["x"][i]` belongs to clip `index[i]`, rising."""

  folder: str
  index: np.ndarray
  rows: dict[str, np.ndarray]
  failures: dict[str, str]


def compute(
  folder: str,
  subject: dict[str, Any],
  num: int,
  part_size: int,
  make: Callable[[np.ndarray], Part],
  collective: bool = False,
) -> Rows:
  """The rows of `num` clips, from the folder or made now.

  Args:
    folder: folder for these rows alone.
    subject: description of the rows as JSON; equal for equal rows.
    num: number of clips.
    part_size: number of clips in each part.
    make: function from the numbers of some clips to their part.
    collective: whether `make` needs all processes at once; then each makes
      every part, and process 0 writes them.

  Raises:
    ValueError: the folder holds rows of something else, or more than one and
      more than MAX_FAILED of the clips failed, or all.
  """
  fields = {**subject, "num": num, "part_size": part_size}
  subject = json.loads(json.dumps(fields))
  path = os.path.join(folder, "of.json")
  if not stores.exists(path):
    layout = parts.Layout(num, part_size)
    _make_parts(folder, subject, layout, make, collective)
  stored = schema.load(path, _Record, _REMEDY)
  parts.check_same(folder, stored.of, subject, "rows")
  _check_failures(list(stored.failures.items()), num)
  names = [n[:-4] for n in stores.names(folder) if n.endswith(".npy")]
  try:
    arrays = {
      n: np.load(
        stores.fetched(os.path.join(folder, f"{n}.npy")), mmap_mode="r"
      )
      for n in names
    }
    index = arrays.pop("index", np.zeros(0))
    _check_index(index, arrays, num - len(stored.failures))
  except (ValueError, EOFError) as error:
    raise ValueError(
      f"{folder} holds damaged rows ({error}): {_REMEDY}"
    ) from error
  return Rows(folder, index, arrays, stored.failures)


def _check_index(
  index: np.ndarray, arrays: dict[str, np.ndarray], num: int
) -> None:
  """Raises ValueError unless there is a row for each of `num` clips."""
  if index.shape != (num,) or index.dtype.kind != "i":
    raise ValueError(
      f"index is {index.dtype} of shape {index.shape}, for {num} clips"
    )
  for name, array in arrays.items():
    if array.shape[:1] != (num,):
      raise ValueError(f"{name} is of shape {array.shape}, for {num} clips")


def discard(rows: Rows) -> None:
  """Removes the files of rows that all processes have read."""
  processes.wait_for_all("rows are read")
  if processes.is_first():
    stores.remove_folder(rows.folder)


def _make_parts(folder, subject, layout, make, collective) -> None:
  whole = parts.Folder(folder, layout.names, *processes.place())
  missing = whole.mine(collective, lambda number, path: npz.is_whole(path))
  failures, total = [], sum(len(layout.places(number)) for number in missing)
  progress = progress_lib.Progress(subject["name"], total, "clips", seconds=5)
  for number in missing:
    made = make(np.array(layout.places(number)))
    for name, reason in made.failures.items():
      log.info("left out %s: %s", name, reason)
    failures += made.failures.items()
    _check_failures(failures, layout.examples)
    if not collective or whole.index == 0:
      reasons = np.frombuffer(json.dumps(made.failures).encode(), np.uint8)
      arrays = {"index": made.index, "failures": reasons, **made.rows}
      files.write_npz(whole.part(number), arrays)
    progress.add(len(layout.places(number)))
  whole.finish(lambda paths: _join(folder, subject, paths))
  processes.wait_for_all("parts are joined")


def _check_failures(failures: list[tuple[str, str]], num: int) -> None:
  share = max(MAX_FAILED, 1 / num) if num > 1 else 0
  parts.check_failures(failures, num, share, _PROBLEM)


def _join(folder: str, subject: dict[str, Any], paths: list[str]) -> None:
  """Writes the joined rows and of.json, and removes the parts."""
  failures = {}
  for path in paths:
    failures |= json.loads(npz.load(path, "failures").tobytes())
  counts = {path: len(npz.load(path, "index")) for path in paths}
  held = [path for path, count in counts.items() if count] or paths[:1]
  for name in npz.names(held[0]):
    if name != "failures":
      rows = (npz.load(path, name) for path in held)
      with (
        files.published(files.inside(folder, f"{name}.npy")) as temporary,
        open(temporary, "wb") as f,
      ):
        npz.write_rows(f, sum(counts.values()), rows)
  # This file comes last: a folder that has it is complete.
  record = {"of": subject, "failures": failures}
  files.write_json(os.path.join(folder, "of.json"), record)
  stores.remove_folder(os.path.join(folder, "parts"))
