"""Folders of parts: work that resumes after a kill and is shared by processes.

Who makes one claims it (`Folder.claim`), makes what is missing of a process's
share (`Folder.mine`), itself or `in_workers`, publishes each part whole
(`files.published`), and joins them at the end (`Folder.finish`).
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from concurrent import futures
import dataclasses
import json
import multiprocessing
import os
from typing import Any

from storage import files
from storage import processes
from storage import progress as progress_lib

_PARTS = "parts"  # folder of parts that are joined at the end, and then removed
_POLL_SECONDS = 10.0
_REMEDY = "name another folder with --output, or remove this one"


@dataclasses.dataclass(frozen=True)
class Layout:
  """Examples in a row, cut into parts of one size; the last may be smaller."""

  examples: int
  per_part: int
  pattern: str = _PARTS + "/{number:06}.npz"  # of names; {count} is of parts

  @property
  def names(self) -> list[str]:
    count = -(-self.examples // self.per_part)
    return [self.pattern.format(number=i, count=count) for i in range(count)]

  def places(self, number: int) -> range:
    """Which examples a part is of."""
    start = number * self.per_part
    return range(start, min(start + self.per_part, self.examples))


@dataclasses.dataclass(frozen=True)
class Folder:
  """A folder, the names of its parts in their order, and who makes them."""

  path: str
  names: Sequence[str]
  index: int = 0  # of this process among those that share the parts
  count: int = 1  # of the processes

  def _wait(self, name: str) -> None:
    if self.count > 1:  # a lone process starts no JAX backend for this
      processes.wait_for_all(name)

  def part(self, number: int) -> str:
    return os.path.join(self.path, self.names[number])

  def claim(
    self,
    record: str,  # name of the file in it that says what its parts are of
    text: str,  # what they are of, as a JSON object
    kind: str,  # plural of the parts, for errors
    finished: str | None = None,  # what replaced the record in the end
    free: Sequence[str] = (),  # fields that may change, and are written anew
  ) -> None:
    """Makes the folder that of these parts, or refuses it.

    Raises:
      ValueError: the folder cannot be written, or holds other files or parts.
    """
    try:
      os.makedirs(self.path, exist_ok=True)
      held = [n for n in os.listdir(self.path) if not n.startswith(".")]
    except OSError as error:
      raise ValueError(
        f"cannot write to {self.path} ({error.strerror}): {_REMEDY}"
      ) from error
    fields, stored = json.loads(text), None
    names = [name for name in (finished, record) if name in held]
    if names:
      stored = files.read_json(os.path.join(self.path, names[0]))
      fixed = {k: value for k, value in fields.items() if k not in free}
      check_same(self.path, stored, fixed, kind)
    elif set(held) - {_PARTS}:
      raise ValueError(
        f"{self.path} is not empty and holds no {kind} (no"
        f" {finished or record}): {_REMEDY}"
      )
    changed = stored is None or any(stored.get(k) != fields[k] for k in free)
    if changed and self.index == 0:
      files.write_atomically(os.path.join(self.path, record), text)
    self._wait("folder is claimed")

  def mine(self, collective: bool = False) -> list[int]:
    """Numbers of the missing parts that this process makes.

    With `collective` a part takes all processes at once: all get all of them.
    """
    start, step = (0, 1) if collective else (self.index, self.count)
    share = range(start, len(self.names), step)
    missing = [i for i in share if not os.path.exists(self.part(i))]
    # Before the first part is written: every process leaves out the same ones.
    self._wait("missing parts are listed")
    return missing

  def finish(self, join: Callable[[list[str]], None]) -> None:
    """Waits for all parts; process 0 calls `join` with their paths in order.

    Raises ValueError there if parts of other processes are missing.
    """
    self._wait("parts are made")
    if self.index != 0:
      return
    paths = [self.part(i) for i in range(len(self.names))]
    lacks = [i for i, path in enumerate(paths) if not os.path.exists(path)]
    if lacks:
      raise ValueError(
        f"{self.path} still lacks {len(lacks)} of {len(paths)} parts, first"
        f" {self.names[lacks[0]]}: they are of others of the {self.count}"
        " processes, which have to write into one shared folder; run the same"
        " command again"
      )
    join(paths)


def check_same(
  folder: str, stored: Mapping[str, Any], fields: Mapping[str, Any], kind: str
) -> None:
  """Raises ValueError naming the first field of a record that differs."""
  for field, value in fields.items():
    if stored.get(field) != value:
      raise ValueError(
        f"{folder} holds other {kind}: {field} is {stored.get(field)!r} there"
        f" and {value!r} here; {_REMEDY}"
      )


def check_failures(
  failures: Sequence[tuple[str, str]],
  total: int,
  share: float,
  problem: str,
  shown: int = 3,
  start: str = " ",
) -> None:
  """Raises ValueError if more than a share of all failed: (name, reason).

  It says the `problem`, then the first ones, with `start` before each.
  """
  if len(failures) > share * total:
    lines = [f"{start}{name}: {why}" for name, why in failures[:shown]]
    if failures[shown:]:
      lines.append(f"{start}and {len(failures) - shown} more, in the log above")
    few = ";".join(lines)
    raise ValueError(f"{len(failures)} of {total} {problem}:{few}")


def in_workers(
  make: Callable[[str], Any],
  names: Sequence[str],
  workers: int,
  start: Callable[..., None],
  job: tuple,
  progress: progress_lib.Progress,
) -> Iterator[Any]:
  """Yields `make(name)` of parts, made in spawned processes, as they are done.

  Each process first calls `start(*job, done)`. `done` is a counter that they
  share, for `make` to count up and `progress` to follow.
  """
  if not names:
    return
  context = multiprocessing.get_context("spawn")
  done = context.Value("q", 0)
  pool = futures.ProcessPoolExecutor(
    min(workers, len(names)), context, start, (*job, done)
  )
  try:
    left = {pool.submit(make, name) for name in names}
    while left:
      ready, left = futures.wait(left, _POLL_SECONDS, futures.FIRST_COMPLETED)
      progress.update(done.value)
      for future in ready:
        yield future.result()
  finally:
    pool.shutdown(cancel_futures=True)
