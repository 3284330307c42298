"""Fréchet distance between two sets of features, exactly, in float64.

Heusel et al. 2017: the 2-Wasserstein distance, squared, of two Gaussians,
|m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2). With S = L L', the last trace
is the nuclear norm of L1' L2, which is exact for singular covariances too,
where the usual matrix square root is not and can come out negative.
"""

from collections.abc import Iterable
import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Statistics:
  """Count, mean (d,), and sum of squared deviations (d, d), all float64."""

  count: int
  mean: np.ndarray
  scatter: np.ndarray

  @property
  def covariance(self) -> np.ndarray:
    """Unbiased (ddof 1)."""
    return self.scatter / (self.count - 1)


def statistics(features: np.ndarray) -> Statistics:
  """Of features (n, d), n >= 1."""
  features = np.asarray(features, np.float64)
  if features.ndim != 2 or not len(features):
    raise ValueError(
      f"features of shape {features.shape} must be (examples, dimensions)"
      " with at least one example"
    )
  mean = features.mean(0)
  centred = features - mean
  return Statistics(len(features), mean, centred.T @ centred)


def merge(parts: Iterable[Statistics]) -> Statistics:
  """Statistics of the union (Chan et al. 1979): stable, unlike raw moments."""
  parts = iter(parts)
  total = next(parts)
  for part in parts:
    count = total.count + part.count
    delta = part.mean - total.mean
    total = Statistics(
      count,
      total.mean + delta * (part.count / count),
      total.scatter
      + part.scatter
      + np.outer(delta, delta) * (total.count * part.count / count),
    )
  return total


def distance(a: Statistics, b: Statistics) -> float:
  """The Fréchet distance, at least 0 up to rounding.

  Raises:
    ValueError: different dimensions, or fewer than two examples on a side.
  """
  if a.mean.shape != b.mean.shape:
    raise ValueError(
      f"features must have the same dimension, got {a.mean.shape[0]} and"
      f" {b.mean.shape[0]}"
    )
  if min(a.count, b.count) < 2:
    raise ValueError(
      "a covariance needs at least 2 examples on each side, got"
      f" {a.count} and {b.count}"
    )
  s1, s2 = a.covariance, b.covariance
  cross = _factor(s1).T @ _factor(s2)
  nuclear = np.linalg.svd(cross, compute_uv=False).sum()
  return float(
    np.square(a.mean - b.mean).sum() + s1.trace() + s2.trace() - 2 * nuclear
  )


def _factor(covariance: np.ndarray) -> np.ndarray:
  """L with L L' = covariance, without its numerically empty directions."""
  values, vectors = np.linalg.eigh(covariance)
  floor = len(values) * np.finfo(np.float64).eps * max(values[-1], 0.0)
  kept = values > floor
  return vectors[:, kept] * np.sqrt(values[kept])
