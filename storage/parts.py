"""Folders of parts: work that resumes after a kill and is shared by processes.

A job claims its folder (`Folder.claim`), makes the missing parts of a process's
share (`Folder.mine`), in this process or `in_workers`, publishes each part
whole (`files.published`), and joins them at the end (`Folder.finish`).
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from concurrent import futures
from concurrent.futures import process as process_pool
import contextlib
import dataclasses
import json
import logging
import multiprocessing
import multiprocessing.connection
import os
import threading
from typing import Any

from storage import files
from storage import processes
from storage import progress as progress_lib
from storage import schema
from storage import stores

log = logging.getLogger(__name__)

_PARTS = "parts"  # folder of parts that are joined at the end, and then removed
_POLL_SECONDS = 10.0
_REMEDY = "name another folder with --output, or remove this one"


@dataclasses.dataclass(frozen=True)
class Layout:
  """Consecutive examples in parts of one size; the last part may be smaller."""

  examples: int
  per_part: int
  pattern: str = (
    _PARTS + "/{number:06}.npz"
  )  # names of the parts; may use {count}

  @property
  def names(self) -> list[str]:
    count = -(-self.examples // self.per_part)
    return [self.pattern.format(number=i, count=count) for i in range(count)]

  def places(self, number: int) -> range:
    """The examples of a part."""
    start = number * self.per_part
    return range(start, min(start + self.per_part, self.examples))


@dataclasses.dataclass(frozen=True)
class Folder:
  """A folder, the names of its parts in order, and the share of a process."""

  path: str
  names: Sequence[str]
  index: int = 0  # index of this process among those that share the parts
  count: int = 1  # number of these processes

  def _wait(self, name: str) -> None:
    if self.count > 1:  # one process alone need not start a JAX backend
      processes.wait_for_all(name)

  def part(self, number: int) -> str:
    """Path of a part; ValueError if a link stands there or on the way."""
    return files.inside(self.path, self.names[number])

  def claim(
    self,
    record: str,
    text: str,
    kind: str,
    finished: str | None = None,
    free: Sequence[str] = (),
  ) -> None:
    """Makes the folder, for these parts alone; refuses one with other contents.

    Args:
      record: name of the file in the folder that describes its parts.
      text: that description, a JSON object.
      kind: name of the parts, in the plural, for errors.
      finished: name of the file that replaces the record at the end.
      free: fields of the description that may change, and are then rewritten.

    Raises:
      ValueError: the folder cannot be written, or holds other files or parts.
    """
    try:
      files.check_writable(self.path)
      held = [n for n in stores.names(self.path) if not n.startswith(".")]
    except OSError as error:
      raise ValueError(
        f"cannot write to {self.path} ({error.strerror}): {_REMEDY}"
      ) from error
    fields, stored = json.loads(text), None
    names = [name for name in (finished, record) if name in held]
    if names:
      path = os.path.join(self.path, names[0])
      stored = schema.load(path, dict[str, Any], _REMEDY)
      fixed = {k: value for k, value in fields.items() if k not in free}
      check_same(self.path, stored, fixed, kind)
    elif set(held) - {_PARTS}:
      raise ValueError(
        f"{self.path} is not empty and holds no {kind} (no"
        f" {finished or record}): {_REMEDY}"
      )
    if self.index == 0:
      self._remove_old_leftovers(record)
    changed = stored is None or any(stored.get(k) != fields[k] for k in free)
    if changed and self.index == 0:
      files.write_atomically(os.path.join(self.path, record), text)
    files.inside(self.path, _PARTS)  # before hours of work, not after
    self._wait("folder is claimed")

  def _remove_old_leftovers(self, record: str) -> None:
    """Removes what killed processes of earlier versions left, by its names."""
    if stores.is_url(self.path):
      return
    for path in (*self.names, record):
      below, name = os.path.split(path)
      folder = files.inside(self.path, below)  # nothing goes behind a link
      with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        os.remove(os.path.join(folder, f".{name}.tmp"))

  def mine(
    self,
    collective: bool = False,
    is_whole: Callable[[int, str], bool] = lambda number, path: True,
  ) -> list[int]:
    """Numbers of the missing parts that this process makes.

    A power loss can leave a file of the right name that is cut or empty. It is
    removed, and counts as missing. Objects of a store are whole.

    Args:
      collective: whether all processes make each part together; then all get
        all parts.
      is_whole: whether a part, by its number and its path, can be read.
    """
    start, step = (0, 1) if collective else (self.index, self.count)
    share = range(start, len(self.names), step)
    missing = []
    for number in share:
      path = self.part(number)
      there = stores.exists(path)
      if there and not stores.is_url(path) and not is_whole(number, path):
        log.warning("%s is damaged: it is made again", path)
        stores.remove(path, missing_ok=True)
        there = False
      if not there:
        missing.append(number)
    # No process writes its first part before all have listed the missing ones;
    # so all list the same.
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
    lacks = [i for i, path in enumerate(paths) if not stores.exists(path)]
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
  """Raises ValueError that names the first field of a record that differs."""
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
  """Raises ValueError if more than a share of all examples failed.

  Args:
    failures: (name, reason) of each failed example.
    total: number of all examples.
    share: largest share that may fail.
    problem: text of the error after "3 of 200 ".
    shown: number of failures that the error lists.
    start: text before each of them.
  """
  if len(failures) > share * total:
    lines = [f"{start}{name}: {reason}" for name, reason in failures[:shown]]
    if failures[shown:]:
      lines.append(f"{start}and {len(failures) - shown} more, in the log above")
    listed = ";".join(lines)
    raise ValueError(f"{len(failures)} of {total} {problem}:{listed}")


def in_workers(
  make: Callable[[str], Any],
  names: Sequence[str],
  workers: int,
  start: Callable[..., None],
  job: tuple,
  progress: progress_lib.Progress,
) -> Iterator[Any]:
  """Yields `make(name)` of parts as spawned processes finish them.

  Each process first calls `start(*job, done)`. All share the counter `done`,
  which `make` raises and `progress` follows. The processes end when this one
  does, even if it is killed.

  Raises:
    ValueError: a process was killed.
  """
  if not names:
    return
  context = multiprocessing.get_context("spawn")
  done = context.Value("q", 0)
  pool = futures.ProcessPoolExecutor(
    min(workers, len(names)), context, _begin, (start, *job, done)
  )
  try:
    left = {pool.submit(make, name) for name in names}
    while left:
      ready, left = futures.wait(left, _POLL_SECONDS, futures.FIRST_COMPLETED)
      progress.update(done.value)
      for future in ready:
        yield future.result()
  except process_pool.BrokenProcessPool as error:
    raise ValueError(
      "a worker process was killed, perhaps for lack of memory: run the same"
      " command again, which goes on, with fewer workers"
    ) from error
  finally:
    pool.shutdown(cancel_futures=True)


def _begin(start: Callable[..., None], *arguments: Any) -> None:
  """Starts a worker process that ends with its parent."""
  threading.Thread(target=_end_with_parent, daemon=True).start()
  start(*arguments)


def _end_with_parent() -> None:
  parent = multiprocessing.parent_process()
  if parent is not None:
    # The parent holds the other end of a pipe, which closes however it ends.
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)
