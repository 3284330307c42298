"""Check that a checkpoint can be read, before any process relies on it."""

import asyncio
from collections.abc import Iterator
import contextlib
import math
import os

import jax
from jax.experimental import multihost_utils
import numpy as np
import orbax.checkpoint as ocp

# Total size of the arrays that one read fetches. Each read parses the metadata
# of all arrays, which takes as long as reading some megabytes.
_BATCH_BYTES = 2**27


def problem(path: str) -> str | None:
  """Describes the fault of the checkpoint directory `path`; None if it is good.

  Every array and every file beside them is read once, by one of the processes;
  all processes agree on whether there is a fault.
  """
  try:
    message = None
    with _patient_loops():
      ocp.metadata.get_step_metadata(path)
      _read_position(os.path.join(path, "data"))
      _read_arrays(os.path.join(path, "state"))
  except (OSError, ValueError, KeyError) as error:
    message = " ".join(str(error).split())
  if jax.process_count() > 1:
    bad = multihost_utils.process_allgather(message is not None)
    if bad.any() and message is None:
      message = f"process {int(bad.argmax())} cannot read it"
  return message


def _checkpointer(handler: type) -> ocp.Checkpointer:
  """Makes a checkpointer that does not wait for the other processes.

  They read other arrays.
  """
  process = jax.process_index()
  alone = ocp.options.MultiprocessingOptions(
    primary_host=process, active_processes={process}
  )
  return ocp.Checkpointer(
    handler(multiprocessing_options=alone), multiprocessing_options=alone
  )


def _read_position(path: str) -> None:
  with _checkpointer(ocp.JsonCheckpointHandler) as checkpointer:
    try:
      checkpointer.restore(path, args=ocp.args.JsonRestore())
    except ValueError as error:
      raise ValueError(f"{path} is damaged ({error})") from error


def _read_arrays(path: str) -> None:
  """Reads this process's share of the arrays, _BATCH_BYTES at a time.

  Raises:
    OSError, ValueError, KeyError: one of them cannot be read.
  """
  with _checkpointer(ocp.PyTreeCheckpointHandler) as checkpointer:
    stored = checkpointer.metadata(path).item_metadata
    if stored is None:
      raise ValueError(f"{path}: the list of arrays is missing or damaged")
    leaves, structure = jax.tree.flatten(stored.tree)
    if not leaves:
      raise ValueError(f"{path} holds no arrays")
    as_numpy = [ocp.RestoreArgs(restore_type=np.ndarray)] * len(leaves)
    for batch in _batches(leaves):
      wanted = [ocp.PLACEHOLDER] * len(leaves)
      for i in batch:
        wanted[i] = leaves[i]
      arguments = ocp.args.PyTreeRestore(
        item=structure.unflatten(wanted),
        restore_args=structure.unflatten(as_numpy),
      )
      try:
        checkpointer.restore(path, args=arguments)
      except ValueError as error:  # the text names the array
        raise ValueError(f"arrays: {error}") from error


def _batches(arrays: list[ocp.metadata.ArrayMetadata]) -> Iterator[list[int]]:
  """Yields the places of this process's arrays, in groups of _BATCH_BYTES.

  A group is larger only if it is a single array.
  """
  batch, size = [], 0
  for i in range(jax.process_index(), len(arrays), jax.process_count()):
    num_bytes = math.prod(arrays[i].shape) * np.dtype(arrays[i].dtype).itemsize
    if batch and size + num_bytes > _BATCH_BYTES:
      yield batch
      batch, size = [], 0
    batch.append(i)
    size += num_bytes
  if batch:
    yield batch


class _PatientLoop(asyncio.SelectorEventLoop):
  """Event loop on which a read may end after the loop was closed."""

  def call_soon_threadsafe(self, *args, **kwargs):
    with contextlib.suppress(RuntimeError):  # the loop is closed
      return super().call_soon_threadsafe(*args, **kwargs)


class _PatientLoops(asyncio.DefaultEventLoopPolicy):
  def new_event_loop(self) -> asyncio.AbstractEventLoop:
    return _PatientLoop()


@contextlib.contextmanager
def _patient_loops() -> Iterator[None]:
  """Suppresses the tracebacks of arrays that are read beside a damaged one.

  orbax closes its event loop at the first error. The other arrays of the batch
  are still being read then, and each would print that the loop is closed.
  """
  before = asyncio.get_event_loop_policy()
  asyncio.set_event_loop_policy(_PatientLoops())
  try:
    yield
  finally:
    asyncio.set_event_loop_policy(before)
