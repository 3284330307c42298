"""Work on many clips that ends in rows of numbers: resumable, shared, kept.

A part is some clips in a row. Processes share the parts, whatever their number,
and each part is a file, so that an interrupted run goes on where it stopped.
At the end process 0 joins them in the order of the clips; who asks for the same
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
import time
from typing import Any

import jax
from jax.experimental import multihost_utils
import numpy as np

from storage import files
from storage import progress as progress_lib

log = logging.getLogger(__name__)

MAX_FAILED = 0.01  # share of the clips; more is an error


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
  stored = _read_json(path)
  if stored is not None and stored["of"] != of:
    raise ValueError(f"{folder} holds something else: remove it ({path} says)")
  if stored is None:
    _make_parts(folder, of, num, part_size, make, collective)
  failures = _read_json(path)["failures"]
  _check_failures(failures, num)
  names = [n[:-4] for n in os.listdir(folder) if n.endswith(".npy")]
  arrays = {
    n: np.load(os.path.join(folder, f"{n}.npy"), mmap_mode="r") for n in names
  }
  index = arrays.pop("index")
  return Rows(folder, index, arrays, failures)


def discard(rows: Rows) -> None:
  """Removes the files of rows that all processes have read."""
  _wait_for_all(f"{rows.folder} read")
  if jax.process_index() == 0:
    shutil.rmtree(rows.folder)


def _make_parts(folder, of, num, part_size, make, collective) -> None:
  process, processes = jax.process_index(), jax.process_count()
  path_of = lambda part: os.path.join(folder, "parts", f"{part:06d}.npz")
  parts = range(-(-num // part_size))
  own = parts if collective else parts[process::processes]
  # Before the first part is written: every process leaves out the same ones.
  missing = [part for part in own if not os.path.exists(path_of(part))]
  _wait_for_all(f"{folder} begins")
  failures, start, last = {}, time.monotonic(), 0.0
  for done, part in enumerate(missing, 1):
    place = np.arange(part * part_size, min((part + 1) * part_size, num))
    made = make(place)
    for name, why in made.failures.items():
      log.info("left out %s: %s", name, why)
    failures |= made.failures
    _check_failures(failures, num)
    if not collective or process == 0:
      why = np.frombuffer(json.dumps(made.failures).encode(), np.uint8)
      files.write_npz(
        path_of(part), {"index": made.index, "failures": why, **made.rows}
      )
    now = time.monotonic()
    if now - last > 5 or done == len(missing):
      rate = done * part_size / max(now - start, 1e-9)
      last, total = now, len(missing) * part_size
      log.info(
        "%s",
        progress_lib.progress(
          of["name"], done * part_size, total, rate, "clips"
        ),
      )
  _wait_for_all(f"{folder} parts")
  if process == 0:
    _join(folder, of, [path_of(part) for part in parts])
  _wait_for_all(f"{folder} joined")


def _join(folder: str, of: dict[str, Any], paths: list[str]) -> None:
  failures, counts = {}, []
  first = None
  for path in paths:
    with np.load(path) as part:
      failures |= json.loads(part["failures"].tobytes())
      counts.append(len(part["index"]))
      if counts[-1] and first is None:
        first = {n: part[n][:0] for n in part.files if n != "failures"}
  for name, empty in (first or {"index": np.zeros(0, int)}).items():
    joined = np.lib.format.open_memmap(
      os.path.join(folder, f"{name}.npy"),
      "w+",
      empty.dtype,
      (sum(counts), *empty.shape[1:]),
    )
    row = 0
    for path, count in zip(paths, counts, strict=True):
      if count:
        with np.load(path) as part:
          joined[row : row + count] = part[name]
        row += count
    joined.flush()
  # Last: a folder with it is complete.
  text = json.dumps({"of": of, "failures": failures}, indent=2) + "\n"
  files.write_atomically(os.path.join(folder, "of.json"), text)
  shutil.rmtree(os.path.join(folder, "parts"))


def _check_failures(failures: dict[str, str], num: int) -> None:
  if len(failures) > MAX_FAILED * num:
    few = "; ".join(f"{n}: {why}" for n, why in list(failures.items())[:3])
    raise ValueError(
      f"{len(failures)} of {num} clips cannot be used, more than"
      f" {MAX_FAILED:.0%}: {few}"
    )


def _read_json(path: str) -> Any:
  if not os.path.exists(path):
    return None
  with open(path) as f:
    return json.load(f)


def _wait_for_all(name: str) -> None:
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(name)
