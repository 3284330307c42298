"""Fréchet distance between two sets of features, exactly, in float64.

Heusel et al. 2017: the 2-Wasserstein distance, squared, of two Gaussians,
|m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2). With S = L L', the last trace
is the nuclear norm of L1' L2, which is exact for singular covariances too,
where the usual matrix square root is not and can come out negative.
"""

from collections.abc import Iterable
import dataclasses

import numpy as np

from evaluation import values
from storage import files
from storage import npz

# A covariance that was stored as float32 is asymmetric, and has eigenvalues
# below 0, by up to 6e-8 of its norm.
_ROUNDING = 1e-6


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
      ValueError: fewer than 2 examples, another ddof than 0 and 1, or numbers
        that are no statistics.
    """
    _check_statistics("statistics", self)
    if ddof not in (0, 1):
      raise ValueError(f"ddof={ddof!r} must be 0 or 1")
    if self.count < 2:
      raise ValueError(
        f"a covariance needs at least 2 examples, got {self.count}"
      )
    return Gaussian(self.mean, self.scatter / (self.count - ddof))


def statistics(features: np.ndarray) -> Statistics:
  """Statistics of features (n, d), n >= 1.

  Raises:
    ValueError: features that are not finite rows of one width, or none.
  """
  values.check_features("features", features)
  features = np.asarray(features, np.float64)
  # What overflows here is not finite, and no distance takes it.
  with np.errstate(over="ignore", invalid="ignore"):
    mean = features.mean(0)
    centred = features - mean
    return Statistics(len(features), mean, centred.T @ centred)


def streamed(features: np.ndarray, rows: int = 4096) -> Statistics:
  """Statistics of features that may be a memmap: `rows` are read at a time.

  Raises:
    ValueError: as `statistics`, with the number of the row; rows below 1.
  """
  values.check_count("rows", rows, 1)
  values.check_features("features", features)
  starts = range(0, max(len(features), 1), rows)
  return merge(statistics(features[i : i + rows]) for i in starts)


def merge(parts: Iterable[Statistics]) -> Statistics:
  """Statistics of the union (Chan et al. 1979): stable, unlike raw moments.

  Raises:
    ValueError: no parts, parts of different dimensions, or numbers that are no
      statistics.
  """
  total = None
  for number, part in enumerate(parts):
    _check_statistics(f"part {number}", part)
    if total is None:
      total = part
      continue
    _check_same_dimension(total, part)
    count = total.count + part.count
    delta = part.mean - total.mean
    total = Statistics(
      count,
      total.mean + delta * (part.count / count),
      total.scatter
      + part.scatter
      + np.outer(delta, delta) * (total.count * part.count / count),
    )
  if total is None:
    raise ValueError("parts must hold the statistics of at least one part")
  return total


def distance(a: Statistics | Gaussian, b: Statistics | Gaussian) -> float:
  """The Fréchet distance, at least 0 up to rounding; covariances by ddof 1.

  Raises:
    ValueError: different dimensions, fewer than two examples on a side, numbers
      that are not finite, or a covariance that is not symmetric or has a
      negative eigenvalue, beyond rounding.
  """
  _check_same_dimension(a, b)
  s1, s2 = (
    _checked_covariance(f"the {name} side", side)
    for name, side in (("first", a), ("second", b))
  )
  cross = _factor(s1).T @ _factor(s2)
  nuclear = np.linalg.svd(cross, compute_uv=False).sum()
  with np.errstate(over="ignore"):
    means = np.square(np.subtract(a.mean, b.mean, dtype=np.float64)).sum()
  total = float(means + s1.trace() + s2.trace() - 2 * nuclear)
  values.check_number("the Fréchet distance", total)
  return total


def save(path: str, gaussians: dict[str, Statistics | Gaussian]) -> None:
  """Writes an .npz as others publish them, of arrays muSUFFIX and sigmaSUFFIX.

  Args:
    path: the .npz file.
    gaussians: by suffix: "" for the features of FID, "_s" for those of sFID.

  Raises:
    ValueError: none, or one that `distance` would refuse.
  """
  if not gaussians:
    raise ValueError(f"{path}: gaussians={{}} must hold at least one")
  arrays = {}
  for suffix, gaussian in gaussians.items():
    covariance = _checked_covariance(f"{path}, mu{suffix}", gaussian)
    arrays |= {f"mu{suffix}": gaussian.mean, f"sigma{suffix}": covariance}
  files.write_npz(path, arrays)


def load(path: str, suffix: str, width: int) -> Gaussian:
  """Reads statistics that `save`, guided-diffusion or pytorch-fid wrote.

  Raises:
    ValueError: arrays that are missing, of another shape, or no mean and
      covariance of anything; names the file.
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
  mean, covariance = (
    values.as_numbers(f"{path}, {name}", array).astype(np.float64)
    for name, array in zip(names, loaded, strict=True)
  )
  gaussian = Gaussian(mean, covariance)
  covariance = _checked_covariance(f"{path}, {' and '.join(names)}", gaussian)
  return Gaussian(mean, (covariance + covariance.T) / 2)


def _checked_covariance(name: str, side: Statistics | Gaussian) -> np.ndarray:
  """The covariance (d, d), float64; ValueError unless it can be one."""
  covariance = np.asarray(side.covariance, np.float64)
  _check_moments(name, side.mean, "covariance", covariance)
  largest = np.abs(covariance).max()
  if not largest:
    return covariance  # all examples are equal
  scaled = covariance / largest
  shift = _ROUNDING * np.linalg.norm(scaled)
  try:  # a fraction of the time that eigenvalues take
    np.linalg.cholesky(scaled + shift * np.eye(len(scaled)))
  except np.linalg.LinAlgError:
    least = np.linalg.eigvalsh(scaled)[0] * largest
    raise ValueError(
      f"{name}: a covariance of shape {scaled.shape} has the eigenvalue"
      f" {least:.6g}, and none may be below 0: it is damaged, or no covariance"
    ) from None
  return covariance


def _check_statistics(name: str, part: Statistics) -> None:
  values.check_count(f"{name}: count", part.count, 1)
  _check_moments(name, part.mean, "scatter", part.scatter)


def _check_moments(name: str, mean, kind: str, matrix) -> None:
  """Raises ValueError unless mean (d,) and matrix (d, d) can be moments."""
  width = np.size(mean)
  shapes = np.shape(mean), np.shape(matrix)
  if not width or shapes != ((width,), (width, width)):
    raise ValueError(
      f"{name}: mean and {kind} must have shapes (d,) and (d, d), got"
      f" {shapes[0]} and {shapes[1]}"
    )
  values.check_range(f"{name}: mean", mean)
  values.check_range(f"{name}: {kind}", matrix)
  difference = np.abs(matrix - np.transpose(matrix))
  if difference.max() > _ROUNDING * np.abs(matrix).max():
    row, column = np.unravel_index(difference.argmax(), difference.shape)
    raise ValueError(
      f"{name}: {kind}[{row}, {column}] is {matrix[row, column]:.6g} and"
      f" {kind}[{column}, {row}] is {matrix[column, row]:.6g}, and a {kind} is"
      " symmetric: it is damaged, or of something else"
    )


def _check_same_dimension(a, b) -> None:
  if a.mean.shape != b.mean.shape:
    raise ValueError(
      f"features must have the same dimension, got {a.mean.shape[0]} and"
      f" {b.mean.shape[0]}"
    )


def _factor(covariance: np.ndarray) -> np.ndarray:
  """L with L L' = covariance, without its numerically empty directions."""
  values, vectors = np.linalg.eigh(covariance)
  floor = len(values) * np.finfo(np.float64).eps * max(values[-1], 0.0)
  kept = values > floor
  return vectors[:, kept] * np.sqrt(values[kept])
