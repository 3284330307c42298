"""The metrics of a run as its signs are read: curves, and a late window.

A sign is read late in the run so far, not at one row, and as a median, so that
a batch or a spike is no sign.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import Any

import numpy as np

# Steps after the warm-up from which signs are read. Healthy runs of the digits
# have two of ten bits asleep, and a reconstruction that jumps by a factor of
# three, for up to 100 steps after a warm-up of 20.
_UNSETTLED = 100
# A late window is the last fifth of the rows: long enough to outlast a spike,
# short enough that a fault of the last hours of a long run shows.
_LATE = 5
# A median of fewer rows is one row's accident.
LEAST_ROWS = 3


@dataclasses.dataclass(frozen=True)
class Finding:
  """What is wrong with a run."""

  part: str  # where, as "codebook"
  problem: str  # what is wrong, with the numbers that show it
  remedy: str  # what to change, by fields of the config

  def __str__(self) -> str:
    return f"{self.part}: {self.problem}: {self.remedy}"


@dataclasses.dataclass(frozen=True)
class Curve:
  """Finite values of a metric by step."""

  steps: np.ndarray  # (N,), rising
  values: np.ndarray  # (N,), or (N, K) with one for each of K channels

  def __len__(self) -> int:
    return len(self.steps)

  def since(self, holds_N: np.ndarray) -> int:
    """First step from which on a condition holds to the end."""
    fails = np.flatnonzero(~holds_N)
    first = fails[-1] + 1 if len(fails) else 0
    return int(self.steps[min(first, len(self) - 1)])


@dataclasses.dataclass(frozen=True)
class History:
  """Metrics of a run by name and step, and the config that it has."""

  metrics: Mapping[str, Mapping[int, float | Sequence[float]]]
  config: Mapping[str, Any]

  def field(self, name: str, default: Any = None) -> Any:
    """The value of a field such as "loss.entropy"; `default` without it."""
    value = self.config
    for part in name.split("."):
      if not isinstance(value, Mapping) or part not in value:
        return default
      value = value[part]
    return value

  @property
  def last_step(self) -> int:
    """Step of the newest row of training; 0 without any."""
    steps = [max(c) for name, c in self.training().items() if c]
    return max(steps, default=0)

  @property
  def judged_from(self) -> int:
    """Step from which signs are read that the start of any run shows."""
    return int(self.field("optimizer.warmup_steps", 0)) + _UNSETTLED

  def training(self) -> dict[str, Mapping[int, float | Sequence[float]]]:
    """The metrics that are not those of evaluations."""
    return {
      name: curve
      for name, curve in self.metrics.items()
      if not name.startswith("eval/")
    }

  def curve(self, name: str) -> Curve:
    """All finite values of a metric; empty without any."""
    curve = sorted(self.metrics.get(name, {}).items())
    kept = [(s, v) for s, v in curve if np.isfinite(v).all()]
    return Curve(
      np.array([s for s, _ in kept], int), np.array([v for _, v in kept], float)
    )

  def settled(self, name: str) -> Curve:
    """The values after the start of the run."""
    return _cut(self.curve(name), self.judged_from)

  def late(self, name: str) -> Curve:
    """The last values, as far as they are after the start; empty if few."""
    curve = self.curve(name)
    if not len(curve):
      return curve
    rows = max(_LATE, len(curve) // _LATE)
    late = _cut(curve, max(self.judged_from, curve.steps[-rows:][0]))
    return late if len(late) >= LEAST_ROWS else _cut(late, np.inf)

  def level(self, name: str) -> float | None:
    """The median of the late values; None where there are too few."""
    values = self.late(name).values
    return float(np.median(values)) if len(values) else None

  def best(self, name: str) -> tuple[int, float] | None:
    """(step, median) of the lowest level that the metric had, as late ones are.

    Windows are as long as the late one: the least of many short ones would be
    the luckiest batches. None where there are too few values.
    """
    curve, width = self.settled(name), len(self.late(name))
    if not width:
      return None
    windows = np.lib.stride_tricks.sliding_window_view(curve.values, width)
    medians = np.median(windows, -1)
    lowest = int(medians.argmin())
    return int(curve.steps[lowest + width // 2]), float(medians[lowest])


def _cut(curve: Curve, step: float) -> Curve:
  kept = curve.steps >= step
  return Curve(curve.steps[kept], curve.values[kept])


def number(value: float) -> str:
  """A number as lines show it, with three digits."""
  if float(value).is_integer() and abs(value) < 1e6:
    return f"{int(value):,}"
  return f"{value:.3g}"
