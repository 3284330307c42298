"""Checkpoints of object stores: when they are whole, and who writes them.

A store cannot rename. There a checkpoint is whole once it has the file
COMMITTED, which is written last. On gs:// orbax reads and writes the objects
itself, from all processes of a job, and the store compares checksums. orbax
knows no other store: for those a checkpoint is written to a disk, and then sent
(`written`); and it is read from a copy on a disk.

JAX is imported only where it is used: `--mode=status` starts without it.
"""

from collections.abc import Iterator
import contextlib
import errno
import os
import tempfile

from storage import files
from storage import store_calls
from storage import stores

COMMITTED = "commit_success.txt"  # the name that orbax gives it, too

# How tensorstore's errors begin where a store does not answer, or refuses.
_REFUSALS = (
  *("ABORTED", "CANCELLED", "DEADLINE_EXCEEDED", "INTERNAL", "UNKNOWN"),
  *("PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "UNAUTHENTICATED"),
  "UNAVAILABLE",
)
# Packages whose errors, if they are none of Python's, are those of requests.
_CLIENTS = ("aiohttp", "gcsfs", "google", "requests", "urllib3")


def is_staged(path: str) -> bool:
  """Whether checkpoints are written to a disk first, and read from a copy."""
  return stores.is_url(path) and store_calls.protocol(path) != "gs"


def is_committed(path: str) -> bool:
  """Whether a checkpoint is whole, by its name on a disk, by its files else."""
  return not stores.is_url(path) or stores.exists(f"{path}/{COMMITTED}")


def is_refusal(error: BaseException | None) -> bool:
  """Whether an error at a read is the store's, and says nothing of the files.

  An error may stem from another one, which then counts, too.
  """
  while error is not None:
    if str(error).startswith(_REFUSALS):
      return True
    of_client = type(error).__module__.partition(".")[0] in _CLIENTS
    if of_client and str(getattr(error, "code", "")) != "404":
      return True
    absent = (FileNotFoundError, IsADirectoryError, NotADirectoryError)
    if isinstance(error, OSError) and not isinstance(error, absent):
      return True
    error = error.__cause__ or error.__context__
  return False


def check_answered(path: str, error: BaseException, words: str) -> None:
  """Raises OSError if a read of a checkpoint failed by the store's fault.

  Args:
    path: the checkpoint, or a part of it; on a disk nothing is raised.
    error: what the read raised.
    words: the same in one line.
  """
  if stores.is_url(path) and is_refusal(error):
    reason = f"it cannot be read now: {words}"
    raise OSError(errno.EIO, reason, path) from error


def steps(folder: str) -> list[int]:
  """Steps that have a committed checkpoint, damaged or not, newest first.

  Args:
    folder: the folder checkpoints/ of a workdir.

  Raises:
    FileNotFoundError: there is no such folder of a disk.
  """
  names = [n for n in stores.names(folder) if n.isdecimal()]
  ordered = sorted((int(n) for n in names if str(int(n)) == n), reverse=True)
  return [n for n in ordered if is_committed(f"{folder}/{n}")]


@contextlib.contextmanager
def written(path: str) -> Iterator[str]:
  """Yields the folder to write a checkpoint's parts to; commits it at the end.

  Raises:
    ValueError: a job of several processes that share no store orbax knows.
  """
  import jax

  if not is_staged(path):
    yield path
    if stores.is_url(path) and jax.process_index() == 0:
      stores.write(os.path.join(path, COMMITTED), b"")
    return
  check_alone(path)
  with tempfile.TemporaryDirectory(prefix="magvit-") as folder:
    yield folder
    commit(folder, path)


def check_alone(path: str) -> None:
  """Raises ValueError for several processes on a store that is staged."""
  import jax

  if jax.process_count() > 1 and is_staged(path):
    raise ValueError(
      f"{path} is written by one process, and {jax.process_count()} were"
      " started: name a folder of gs://, or of a disk that all of them share"
    )


def commit(folder: str, url: str) -> None:
  """Sends a checkpoint from a disk to a store, and says there that it is whole.

  Args:
    folder: the folder of the checkpoint on the disk.
    url: its folder in the store.
  """
  stores.remove_folder(url, COMMITTED)  # what a killed run has left
  # orbax makes this file on a disk, too, where it says nothing.
  files.write_atomically(os.path.join(folder, COMMITTED), "")
  stores.send_folder(folder, url, COMMITTED)
