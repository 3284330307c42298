"""Fréchet distance between two sets of features, exactly, in float64.

Heusel et al. 2017: the 2-Wasserstein distance, squared, of two Gaussians,
|m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2). With S = L L', the last trace
is the nuclear norm of L1' L2, which is exact for singular covariances too,
where the usual matrix square root is not and can come out negative.
"""

from collections.abc import Iterable
import dataclasses

import numpy as np

from storage import files
from storage import npz


@dataclasses.dataclass(frozen=True)
class Gaussian:
  """Mean (d,) and covariance (d, d), float64: what published files hold."""

  mean: np.ndarray
  covariance: np.ndarray


@dataclasses.dataclass(frozen=True)
class Statistics:
  """Count, mean (d,), and sum of squared deviations (d, d), all float64."""

  count: int
  mean: np.ndarray
  scatter: np.ndarray

  @property
  def covariance(self) -> np.ndarray:
    """Unbiased covariance (ddof 1)."""
    return self.gaussian(1).covariance

  def gaussian(self, ddof: int) -> Gaussian:
    """Gaussian whose covariance is the scatter over count - ddof.

    Raises:
      ValueError: fewer than 2 examples.
    """
    if self.count < 2:
      raise ValueError(
        f"a covariance needs at least 2 examples, got {self.count}"
      )
    return Gaussian(self.mean, self.scatter / (self.count - ddof))


def statistics(features: np.ndarray) -> Statistics:
  """Statistics of features (n, d), n >= 1."""
  features = np.asarray(features, np.float64)
  if features.ndim != 2 or not len(features):
    raise ValueError(
      f"features of shape {features.shape} must be (examples, dimensions)"
      " with at least one example"
    )
  mean = features.mean(0)
  centred = features - mean
  return Statistics(len(features), mean, centred.T @ centred)


def streamed(features: np.ndarray, rows: int = 4096) -> Statistics:
  """Statistics of features that may be a memmap: `rows` are read at a time."""
  starts = range(0, max(len(features), 1), rows)
  return merge(statistics(features[i : i + rows]) for i in starts)


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


def distance(a: Statistics | Gaussian, b: Statistics | Gaussian) -> float:
  """The Fréchet distance, at least 0 up to rounding; covariances by ddof 1.

  Raises:
    ValueError: different dimensions, or fewer than two examples on a side.
  """
  if a.mean.shape != b.mean.shape:
    raise ValueError(
      f"features must have the same dimension, got {a.mean.shape[0]} and"
      f" {b.mean.shape[0]}"
    )
  s1, s2 = a.covariance, b.covariance
  cross = _factor(s1).T @ _factor(s2)
  nuclear = np.linalg.svd(cross, compute_uv=False).sum()
  return float(
    np.square(a.mean - b.mean).sum() + s1.trace() + s2.trace() - 2 * nuclear
  )


def save(path: str, gaussians: dict[str, Statistics | Gaussian]) -> None:
  """Writes an .npz as others publish them, of arrays muSUFFIX and sigmaSUFFIX.

  Args:
    path: the .npz file.
    gaussians: by suffix: "" for the features of FID, "_s" for those of sFID.
  """
  arrays = {}
  for suffix, gaussian in gaussians.items():
    arrays[f"mu{suffix}"] = gaussian.mean
    arrays[f"sigma{suffix}"] = gaussian.covariance
  files.write_npz(path, arrays)


def load(path: str, suffix: str, width: int) -> Gaussian:
  """Reads statistics that `save`, guided-diffusion or pytorch-fid wrote.

  Raises:
    ValueError: arrays that are missing or of another shape; names the file.
  """
  names = (f"mu{suffix}", f"sigma{suffix}")
  shapes = ((width,), (width, width))
  held = sorted(npz.names(path))
  loaded = [npz.load(path, n) if n in held else None for n in names]
  for name, array, shape in zip(names, loaded, shapes, strict=True):
    if array is None or array.shape != shape or array.dtype.kind not in "fiu":
      got = "is missing"
      if array is not None:
        got = f"is {array.dtype} of shape {array.shape}"
      raise ValueError(
        f"{path} must hold {name} of shape {shape}, which {got} (it holds"
        f" {', '.join(held)}): are these statistics of another network?"
      )
  mean, covariance = (np.asarray(x, np.float64) for x in loaded)
  return Gaussian(mean, (covariance + covariance.T) / 2)


def _factor(covariance: np.ndarray) -> np.ndarray:
  """L with L L' = covariance, without its numerically empty directions."""
  values, vectors = np.linalg.eigh(covariance)
  floor = len(values) * np.finfo(np.float64).eps * max(values[-1], 0.0)
  kept = values > floor
  return vectors[:, kept] * np.sqrt(values[kept])
