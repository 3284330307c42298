"""Whether steps wait for their data, or the data for the steps."""

from collections.abc import Iterator
import contextlib
import math
import os
import threading
import time
from typing import Any

import jax

from storage import progress as progress_lib

# Shares of the time: from the first on steps count as waiting, and below the
# second no longer, so that a share between does not say both in turn.
_WAITING, _NOT_WAITING = 0.05, 0.02
_THREADS = 2  # what reads batches with dataset.workers=0


class DataWait:
  """Seconds in which no step was under way, as its batch was not there yet."""

  def __init__(self, workers: int):
    """Takes dataset.workers, the number of processes that read batches."""
    self._workers = workers
    self._waited = 0.0
    self._step: _Step | None = None
    self._waiting: bool | None = None  # None: nothing was said yet

  @contextlib.contextmanager
  def reading(self) -> Iterator[None]:
    """Counts the part of a block that reads a batch and no step runs beside."""
    begun = time.monotonic()
    yield
    ended = None if self._step is None else self._step.ended
    if ended is not None:
      self._waited += time.monotonic() - max(begun, ended)

  def stepping(self, metrics: Any) -> None:
    """Tells of a step under way, by what it computes."""
    self._step = _Step(metrics)

  def share(self, seconds: float) -> float:
    """Share of the last seconds, since `say`, that steps waited for data."""
    return min(1.0, self._waited / max(seconds, 1e-9))

  def say(self, share: float) -> None:
    """Logs who waits for whom, once and when it changes; counts anew."""
    self._waited = 0.0
    before = self._waiting
    limit = _NOT_WAITING if before else _WAITING
    self._waiting = share >= limit
    if self._waiting != before:
      progress_lib.say(line(share, self._workers) if self._waiting else _AHEAD)


_AHEAD = "data are ahead of the steps"


def line(share: float, workers: int, cores: int | None = None) -> str:
  """What to do where steps wait for data for a share of the time.

  Args:
    share: share of the time, below 1 for there to be an estimate.
    workers: dataset.workers.
    cores: cores of this machine; None to ask it.
  """
  cores = cores or os.cpu_count() or 1
  text = f"steps wait for data {share:.0%} of the time"
  busy = max(1.0 - share, 0.01)  # the part in which steps run
  # Rounded first: 4 / 0.1 is a little more than 40.
  needed = math.ceil(round((workers or _THREADS) / busy, 6))
  needed = max(needed, workers + 1)
  if needed <= cores:
    return f"{text}: --config.dataset.workers={needed} would keep up"
  return (
    f"{text}: about {needed} workers would keep up (dataset.workers), and this"
    f" machine has {cores} cores: make data cheaper to read (stored tokens,"
    " smaller videos, keyframes), or take more machines"
  )


class _Step:
  """A step under way, and the moment at which it has ended.

  JAX does not tell, so that a thread waits for what it computes.
  """

  def __init__(self, metrics: Any):
    self.ended: float | None = None  # by time.monotonic; None: not yet
    threading.Thread(
      target=self._wait, args=(metrics,), name="step", daemon=True
    ).start()

  def _wait(self, metrics: Any) -> None:
    with contextlib.suppress(Exception):  # the loop meets the error as well
      jax.block_until_ready(metrics)
    self.ended = time.monotonic()
