"""Processes of one job: the index of this one, and waiting for the others."""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib

import jax
from jax.experimental import multihost_utils
import numpy as np

from storage import lock

_LONGEST_MEETING = 4 * 3600  # seconds
_LONGEST = 2048  # bytes of a refusal that process 0 tells the others


def is_first() -> bool:
  """Whether this is process 0, which writes what all have made."""
  return jax.process_index() == 0


def wait_for_all(name: str) -> None:
  """Returns when every process of the job has called this with `name`."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(name)


def meet(name: str) -> None:
  """Returns when every process of the job has called this, hours later or not.

  `wait_for_all` computes a sum over all devices, which on CPUs gives up where a
  process is half a minute late; this computes nothing.
  """
  if jax.process_count() > 1:
    from orbax.checkpoint import multihost  # It takes a second.

    barrier = multihost.get_barrier_sync_fn()
    barrier(key=name, timeout_ms=1000 * _LONGEST_MEETING)


def place(
  index: int | None = None, count: int | None = None
) -> tuple[int, int]:
  """(index of this process, number of processes); None: as JAX knows them."""
  index = jax.process_index() if index is None else index
  return index, jax.process_count() if count is None else count


@contextlib.contextmanager
def one_writer(
  folder: str,
  mode: str,
  *,
  beside: bool = False,
  label: str = "",
  index: int | None = None,
) -> Iterator[Callable[[], None]]:
  """Lets no other job write in a folder meanwhile; process 0 holds the lock.

  Yields a function that raises OSError if another job has taken over.

  Args:
    folder: the folder, which is made.
    mode: what the job does, for the error that others get.
    beside: whether the lock is put beside the folder, which stays as it is.
    label: the folder as errors name it, like "workdir=DIR"; its path if empty.
    index: number of this process; None for JAX's.

  Raises:
    ValueError: in all processes, if another job writes there.
  """
  index, _ = place(index)
  if jax.process_count() == 1 and index != 0:  # others of the job are apart
    yield lambda: None
    return
  with contextlib.ExitStack() as stack:
    refusal, check = "", lambda: None
    if index == 0:
      try:
        held = stack.enter_context(
          lock.held(folder, mode, beside=beside, label=label)
        )
        check = held.check
      except ValueError as error:
        refusal = str(error)
    refusal = _told_by_first(refusal)
    if refusal:
      raise ValueError(refusal)
    yield check


def _told_by_first(text: str) -> str:
  """The text of process 0, in all processes."""
  if jax.process_count() == 1:
    return text
  letters = np.zeros(_LONGEST, np.uint8)
  encoded = text.encode()[:_LONGEST]
  letters[: len(encoded)] = np.frombuffer(encoded, np.uint8)
  shared = np.asarray(multihost_utils.broadcast_one_to_all(letters))
  return shared.astype(np.uint8).tobytes().rstrip(b"\0").decode()
