"""Processes of one job: which of them this is, and waiting for the others."""

from collections.abc import Sequence
import dataclasses

import jax
from jax.experimental import multihost_utils


def is_first() -> bool:
  """Whether this is process 0, the one that writes what all have made."""
  return jax.process_index() == 0


def wait_for_all(name: str) -> None:
  """Returns when every process of the job has called this with `name`."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(name)


@dataclasses.dataclass(frozen=True)
class Group:
  """The processes that share some work, as one of them sees them."""

  index: int = 0
  count: int = 1

  def share(self, items: Sequence) -> Sequence:
    """This process's items; every item is one process's."""
    return items[self.index :: self.count]

  def wait(self, name: str) -> None:
    if self.count > 1:  # a lone process starts no JAX backend for this
      wait_for_all(name)


ALONE = Group()


def group(index: int | None = None, count: int | None = None) -> Group:
  """The processes of the job; None for the number that JAX says."""
  return Group(
    jax.process_index() if index is None else index,
    jax.process_count() if count is None else count,
  )
