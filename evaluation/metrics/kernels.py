"""Distances of two sets of features by kernels: KID, and two MMDs.

The maximum mean discrepancy (Gretton et al. 2012), squared, is mean k(x, x') +
mean k(y, y') - 2 mean k(x, y). All in float64; one block of the kernel matrix
exists at a time.
"""

from collections.abc import Callable
import functools

import numpy as np

from evaluation import values

KID_PROTOCOL = (
  "polynomial kernel of degree 3, gamma 1 / width, coefficient 1; unbiased;"
  " mean and population std of 100 subsets of 1000, RandomState(2020)"
)
_ROWS = 1000  # rows, and columns, of a block of the kernel matrix

Kernel = Callable[[np.ndarray, np.ndarray], np.ndarray]


def kid(
  x_ND: np.ndarray,
  y_MD: np.ndarray,
  subsets: int = 100,
  subset_size: int = 1000,
  seed: int = 2020,
) -> dict[str, float]:
  """Kernel Inception distance (Binkowski et al. 2018), as in torch-fidelity.

  Args:
    x_ND: features of one set. The subsets are drawn from it first: exchanging
      the two sets changes the value within its std.
    y_MD: features of the other set.
    subsets: number of pairs of subsets that are averaged.
    subset_size: examples of each subset, drawn without replacement.
    seed: seed of the draw.

  Returns:
    {"kid": mean over the subsets, "kid_std": their population std}. It is
    unbiased, so it may be below 0.

  Raises:
    ValueError: features that are not finite, sets of different widths, fewer
      examples than a subset has, or numbers of subsets or of their examples
      that give no mean.
  """
  values.check_count("subsets", subsets, 1)
  values.check_count("subset_size", subset_size, 2)
  values.check_count("seed", seed, 0)
  _check_sets(x_ND, y_MD)
  if min(len(x_ND), len(y_MD)) < subset_size:
    raise ValueError(
      f"KID draws subsets of {subset_size} examples, and the two sets have"
      f" {len(x_ND)} and {len(y_MD)}: give more, or leave KID out"
    )
  rng = np.random.RandomState(seed)
  kernel = polynomial(3, 1.0 / x_ND.shape[1], 1.0)
  distances = []
  for _ in range(subsets):
    x = x_ND[rng.choice(len(x_ND), subset_size, replace=False)]
    y = y_MD[rng.choice(len(y_MD), subset_size, replace=False)]
    distances.append(_unbiased_mmd(np.float64(x), np.float64(y), kernel))
  values.check_range("KID of subsets", distances)
  return {"kid": float(np.mean(distances)), "kid_std": float(np.std(distances))}


def mmd(x_ND: np.ndarray, y_MD: np.ndarray, kernel: Kernel) -> float:
  """Squared MMD, biased: the diagonals count. At least 0 up to rounding.

  Raises:
    ValueError: features that are not finite, sets of different widths, or an
      MMD that is not finite.
  """
  _check_sets(x_ND, y_MD)
  squared = (
    _mean(x_ND, x_ND, kernel)
    + _mean(y_MD, y_MD, kernel)
    - 2 * _mean(x_ND, y_MD, kernel)
  )
  values.check_number("the squared MMD", squared)
  return squared


def cmmd(x_ND: np.ndarray, y_MD: np.ndarray) -> float:
  """1000 x MMD by a Gaussian of sigma 10, on features of length 1.

  This is CMMD (Jayasumana et al. 2024) where the features are CLIP's.

  Raises:
    ValueError: as `mmd`, or features of another length.
  """
  _check_sets(x_ND, y_MD)
  for name, features in (("first", x_ND), ("second", y_MD)):
    length = np.linalg.norm(features, axis=1)
    if np.abs(length - 1).max() > 1e-3:
      raise ValueError(
        f"CMMD needs features of length 1, and those of the {name} set have"
        f" lengths in [{length.min():.4g}, {length.max():.4g}]: divide each by"
        " its length"
      )
  return 1000 * mmd(x_ND, y_MD, gaussian(10.0))


def polynomial_mmd(x_ND: np.ndarray, y_MD: np.ndarray) -> float:
  """MMD by the kernel (x.y / width)^2; on V-JEPA's features, JEDi / 100.

  Raises:
    ValueError: as `mmd`.
  """
  _check_sets(x_ND, y_MD)
  return mmd(x_ND, y_MD, polynomial(2, 1.0 / x_ND.shape[1], 0.0))


def polynomial(degree: int, gamma: float, coefficient: float) -> Kernel:
  """k(x, y) = (gamma x.y + coefficient)^degree.

  Raises:
    ValueError: a degree below 1, or numbers that give no kernel: gamma must be
      above 0, and the coefficient at least 0.
  """
  values.check_count("degree", degree, 1)
  values.check_number("gamma", gamma, 0.0, without_low=True)
  values.check_number("coefficient", coefficient, 0.0)

  def kernel(x, y):
    base = gamma * (x @ y.T) + coefficient
    # Numpy's power is many times slower.
    return functools.reduce(np.multiply, [base] * degree)

  return kernel


def gaussian(sigma: float) -> Kernel:
  """k(x, y) = exp(-|x - y|^2 / (2 sigma^2)); ValueError unless sigma > 0."""
  values.check_number("sigma", sigma, 0.0, without_low=True)

  def kernel(x, y):
    squared = np.square(x).sum(1)[:, None] + np.square(y).sum(1) - 2 * x @ y.T
    return np.exp(-np.maximum(squared, 0.0) / (2 * sigma**2))

  return kernel


def _mean(x_ND, y_MD, kernel: Kernel) -> float:
  total = 0.0
  for i in range(0, len(x_ND), _ROWS):
    x = np.asarray(x_ND[i : i + _ROWS], np.float64)
    for j in range(0, len(y_MD), _ROWS):
      y = np.asarray(y_MD[j : j + _ROWS], np.float64)
      total += kernel(x, y).sum()
  return float(total / (len(x_ND) * len(y_MD)))


def _unbiased_mmd(x, y, kernel: Kernel) -> float:
  m = len(x)
  xx, yy, xy = kernel(x, x), kernel(y, y), kernel(x, y)
  within = xx.sum() - xx.trace() + yy.sum() - yy.trace()
  return within / (m * (m - 1)) - 2 * xy.mean()


def _check_sets(x_ND, y_MD) -> None:
  for name, features in (("first", x_ND), ("second", y_MD)):
    values.check_features(f"features of the {name} set", features)
  if x_ND.shape[1] != y_MD.shape[1]:
    raise ValueError(
      "two sets of features must be (examples, width), of one width, got"
      f" {x_ND.shape} and {y_MD.shape}"
    )
