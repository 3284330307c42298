"""Processes of one job: which of them this is, and waiting for the others."""

import jax
from jax.experimental import multihost_utils


def is_first() -> bool:
  """Whether this is process 0, the one that writes what all have made."""
  return jax.process_index() == 0


def wait_for_all(name: str) -> None:
  """Returns when every process of the job has called this with `name`."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(name)


def place(
  index: int | None = None, count: int | None = None
) -> tuple[int, int]:
  """(index of this process, their count); None for what JAX says."""
  index = jax.process_index() if index is None else index
  return index, jax.process_count() if count is None else count
