"""Folders of parts: work that resumes after a kill and is shared by processes.

A part is a file. Who makes a folder of them

  claims it: a record in it says what its parts are of, and a folder of other
    parts, or of other files, is refused (`claim`);
  lists what is missing of a process's share (`Folder.mine`), makes each part
    and publishes it whole (`files.published`), itself or in worker processes
    (`in_workers`), and says how far it is (`progress.Progress`);
  joins them at the end, in process 0 (`Folder.finish`).

Which parts there are depends neither on the number of processes nor on what an
earlier run has left, so any run may go on with any other's.
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


@dataclasses.dataclass(frozen=True)
class Layout:
  """Examples in a row, cut into parts of one size; the last may be smaller."""

  examples: int
  per_part: int
  # Name of a part by its {number} and their {count}.
  pattern: str = _PARTS + "/{number:06}.npz"

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
  group: processes.Group = processes.ALONE

  def part(self, number: int) -> str:
    return os.path.join(self.path, self.names[number])

  def mine(self, collective: bool = False) -> list[int]:
    """Numbers of the missing parts that this process makes.

    With `collective` a part takes all processes at once: all get all of them.
    """
    numbers = range(len(self.names))
    share = numbers if collective else self.group.share(numbers)
    missing = [i for i in share if not os.path.exists(self.part(i))]
    # Before the first part is written: every process leaves out the same ones.
    self.group.wait("missing parts are listed")
    return missing

  def finish(self, join: Callable[[list[str]], None]) -> None:
    """Waits for all parts; process 0 calls `join` with their paths in order.

    Raises:
      ValueError: in process 0, parts that others should have made.
    """
    self.group.wait("parts are made")
    if self.group.index != 0:
      return
    paths = [self.part(i) for i in range(len(self.names))]
    missing = [path for path in paths if not os.path.exists(path)]
    if missing:
      raise ValueError(
        f"{self.path} still lacks {len(missing)} of {len(paths)} parts,"
        f" {missing[0]} first: they are of others of the {self.group.count}"
        " processes, which have to write into one shared folder; run the same"
        " command again"
      )
    join(paths)


def claim(
  folder: str,
  record: str,
  text: str,
  kind: str,
  remedy: str,
  *,
  group: processes.Group = processes.ALONE,
  finished: str | None = None,
  free: Sequence[str] = (),
) -> None:
  """Makes a folder that of these parts, or refuses it.

  Args:
    folder: new, empty, or claimed before with equal fields.
    record: name of the file in it that says what its parts are of.
    text: what they are of, as a JSON object.
    kind: plural of the parts, for errors.
    remedy: what to do about a folder of something else, for errors.
    group: the processes that write into it; all of them call this.
    finished: name of the file that replaced the record when all was done.
    free: fields that may change; the record gets them anew.

  Raises:
    ValueError: the folder cannot be written, or holds other files or parts;
      nothing in it was changed.
  """
  try:
    os.makedirs(folder, exist_ok=True)
    held = [n for n in os.listdir(folder) if not n.startswith(".")]
  except OSError as error:
    raise ValueError(
      f"cannot write to {folder} ({error.strerror}): {remedy}"
    ) from error
  fields, stored = json.loads(text), None
  names = [name for name in (finished, record) if name in held]
  if names:
    stored = files.read_json(os.path.join(folder, names[0]))
    fixed = {k: value for k, value in fields.items() if k not in free}
    check_same(folder, stored, fixed, kind, remedy)
  elif set(held) - {_PARTS}:
    raise ValueError(
      f"{folder} is not empty and holds no {kind} (no {finished or record}):"
      f" {remedy}"
    )
  changed = stored is None or any(stored.get(k) != fields[k] for k in free)
  if changed and group.index == 0:
    files.write_atomically(os.path.join(folder, record), text)
  group.wait("folder is claimed")


def check_same(
  folder: str,
  stored: Mapping[str, Any],
  fields: Mapping[str, Any],
  kind: str,
  remedy: str,
) -> None:
  """Raises ValueError naming the first field of a record that differs."""
  for field, value in fields.items():
    if stored.get(field) != value:
      raise ValueError(
        f"{folder} holds other {kind}: {field} is {stored.get(field)!r} there"
        f" and {value!r} here; {remedy}"
      )


def check_failures(
  failures: Sequence[tuple[str, str]], total: int, share: float, problem: str
) -> None:
  """Raises ValueError if more than a share of the examples failed.

  Args:
    failures: (name, reason) of each.
    total: number of all examples.
    share: of them that may fail, in [0, 1].
    problem: what the error says between the numbers and the list.
  """
  if len(failures) > share * total:
    lines = "".join(f"\n  {name}: {why}" for name, why in failures[:50])
    if failures[50:]:
      lines += f"\n  and {len(failures) - 50} more, in the log above"
    raise ValueError(f"{len(failures)} of {total} {problem}:{lines}")


def in_workers(
  make: Callable[[str], Any],
  names: Sequence[str],
  workers: int,
  start: Callable[..., None],
  job: tuple,
  progress: progress_lib.Progress,
) -> Iterator[Any]:
  """Makes parts in spawned processes.

  Args:
    make: a function of a module, from a part's name to what is yielded.
    names: of the parts.
    workers: processes at most.
    start: is called in each process first, with `job` and a shared counter,
      which `make` has to count up: `with done.get_lock(): done.value += 1`.
    job: what `make` needs to know.
    progress: follows the counter.

  Yields:
    Results in the order in which they are done.
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
