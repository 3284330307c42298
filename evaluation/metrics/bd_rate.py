"""Rate-distortion curves as numbers: BD-rate, and the quality at a rate.

Bjøntegaard, VCEG-M33, with the piecewise cubic (pchip) of JCTVC-L1100 in the
logarithm of the rate. A curve is given by its rates, positive, in any unit that
both curves share, and by its qualities.
"""

from collections.abc import Sequence
import dataclasses

import numpy as np
from scipy import interpolate

from evaluation import values

MIN_POINTS = 4
MIN_OVERLAP = 0.75


@dataclasses.dataclass(frozen=True)
class BdRate:
  """Comparison of a curve with an anchor."""

  percent: float  # more rate than the anchor's at equal quality; < 0 is better
  overlap: float  # share of the union of both quality ranges that both cover


def bd_rate(
  anchor: tuple[Sequence[float], Sequence[float]],
  curve: tuple[Sequence[float], Sequence[float]],
  lower_is_better: bool = False,
) -> BdRate:
  """Mean difference in rate over the qualities that both curves reach.

  Args:
    anchor: (rates, qualities) of the curve that is compared with.
    curve: (rates, qualities) of the curve that is judged.
    lower_is_better: whether qualities are distances, like LPIPS; their sign is
      turned.

  Raises:
    ValueError: a curve of fewer than 4 points, of numbers that are not finite
      or rates that are not positive, or that does not rise; curves that overlap
      in less than 75 % of the qualities they span.
  """
  logs, qualities = zip(
    _checked("the anchor", *anchor, lower_is_better),
    _checked("the curve", *curve, lower_is_better),
    strict=True,
  )
  low, high = max(q[0] for q in qualities), min(q[-1] for q in qualities)
  span = max(q[-1] for q in qualities) - min(q[0] for q in qualities)
  overlap = max(0.0, high - low) / span
  if overlap < MIN_OVERLAP:
    shown = [sorted(abs(q[[0, -1]])) for q in qualities]
    raise ValueError(
      f"the anchor's qualities {shown[0][0]:.4g}..{shown[0][1]:.4g} and the"
      f" curve's {shown[1][0]:.4g}..{shown[1][1]:.4g} overlap by {overlap:.0%},"
      f" and a BD-rate needs {MIN_OVERLAP:.0%}: choose rates that lead to"
      " closer qualities"
    )
  anchor_mean, mean = (
    interpolate.PchipInterpolator(q, log).integrate(low, high) / (high - low)
    for q, log in zip(qualities, logs, strict=True)
  )
  with np.errstate(over="ignore"):
    percent = 100.0 * (np.exp(mean - anchor_mean) - 1.0).item()
  values.check_number("the BD-rate", percent)
  return BdRate(percent, float(overlap))


def quality_at(
  rates: Sequence[float], qualities: Sequence[float], rate: float
) -> float:
  """Quality of a curve at a rate, by pchip in the logarithm of the rate.

  Raises:
    ValueError: fewer than 2 points, equal or non-positive rates, numbers that
      are not finite, or a rate outside those of the curve.
  """
  values.check_number("rate", rate, 0.0, without_low=True)
  if len(rates) < 2:
    raise ValueError(
      f"a curve of {len(rates)} points has no qualities between them: give at"
      " least 2 points"
    )
  logs, ordered = _by_rate("the curve", rates, qualities)
  if not min(rates) <= rate <= max(rates):
    raise ValueError(
      f"rate={rate:.4g} is outside the curve's {min(rates):.4g}.."
      f"{max(rates):.4g}: measure points on both sides of it"
    )
  place = np.clip(np.log(rate), logs[0], logs[-1])  # log may round at the ends
  return interpolate.PchipInterpolator(logs, ordered)(place).item()


def _checked(name, rates, qualities, lower_is_better):
  """(log rates, qualities that rise), by rate."""
  if len(rates) < MIN_POINTS:
    raise ValueError(
      f"{name} has {len(rates)} points, and a BD-rate needs at least"
      f" {MIN_POINTS}: measure more rates"
    )
  logs, rising = _by_rate(name, rates, qualities)
  rising = -rising if lower_is_better else rising
  if (np.diff(rising) <= 0).any():
    at = int(np.argmax(np.diff(rising) <= 0))
    pair = [
      f"{abs(rising[i]):.6g} at {np.exp(logs[i]):.4g}" for i in (at, at + 1)
    ]
    raise ValueError(
      f"{name}'s quality does not improve with the rate, from {pair[0]} to"
      f" {pair[1]}: a BD-rate needs curves that do; leave a point out"
    )
  return logs, rising


def _by_rate(name, rates, qualities):
  """(log rates, qualities) in the order of the rates."""
  rates, qualities = np.asarray(rates, float), np.asarray(qualities, float)
  if rates.shape != qualities.shape or rates.ndim != 1:
    raise ValueError(
      f"{name} has rates of shape {rates.shape} and qualities of shape"
      f" {qualities.shape}: one quality for each rate is needed"
    )
  finite = np.isfinite(rates).all() and np.isfinite(qualities).all()
  if not finite or (rates <= 0).any() or len(np.unique(rates)) < len(rates):
    raise ValueError(
      f"{name} has rates {rates.tolist()} and qualities {qualities.tolist()}:"
      " rates must be positive and all different, and all numbers finite"
    )
  order = np.argsort(rates)
  return np.log(rates[order]), qualities[order]
