"""A trace of some steps by JAX's profiler, for TensorBoard or Perfetto."""

from collections.abc import Sequence
from typing import Any

import jax

from storage import files
from storage import stores


def check_steps(steps: Sequence[int], num_steps: int) -> None:
  """Raises ValueError unless `steps` is a first and a last step, or (0, 0).

  The steps of a run are 1 to `num_steps`.
  """
  if len(steps) != 2 or not (0 < steps[0] <= steps[1] or not any(steps)):
    raise ValueError(
      f"profile_steps={tuple(steps)} must be the first and the last step to"
      " trace, or (0, 0)"
    )
  if steps[1] > num_steps:
    raise ValueError(
      f"profile_steps={tuple(steps)} must be among the steps 1 to"
      f" num_steps={num_steps}"
    )


class Trace:
  """Traces the steps from steps[0] to steps[1] into WORKDIR/profile."""

  def __init__(self, workdir: str, steps: Sequence[int]):
    self._first, self._last = steps
    self._workdir = workdir
    self._running = False
    self._box: stores.Outbox | None = None

  def __enter__(self) -> "Trace":
    return self

  def __exit__(self, *unused) -> None:
    if self._running:
      self._end()

  def before(self, step: int, state: Any) -> None:
    """Starts or ends the trace; `state` is what the step before returns."""
    if self._running and step > self._last:
      jax.block_until_ready(state)
      self._end()
    elif not self._running and self._first <= step <= self._last:
      jax.block_until_ready(state)
      self._box = stores.Outbox(files.own_folder(self._workdir, "profile"))
      jax.profiler.start_trace(self._box.folder)
      self._running = True

  def _end(self) -> None:
    jax.profiler.stop_trace()
    self._running = False
    if self._box is not None:
      self._box.push()
