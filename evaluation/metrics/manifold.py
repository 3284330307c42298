"""Precision, recall, density and coverage by nearest neighbours of features.

Each example of a set has a ball that reaches to its k-th nearest neighbour.
Kynkäänniemi et al. 2019: precision is the share of fakes in any real ball,
recall that of reals in any fake ball, both by <=. Naeem et al. 2020: density is
the mean number of real balls that a fake is in, over k; coverage the share of
real balls that hold a fake, both by <.

Distances are squared, in float64 from centred features, a block at a time on
all local devices: memory holds the features and _BLOCK^2 distances. A distance
is a difference of large products where features form tight clusters that are
far apart, as those of one class are: float32 then leaves it no digits.
guided-diffusion's evaluator computes in float16 where that stays finite, which
moves precision and recall by up to 0.0025.
"""

from collections.abc import Callable
import functools

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec
import numpy as np

from evaluation import values

ADM_NEIGHBOURS = 3
PRDC_NEIGHBOURS = 5
_BLOCK = 4096  # examples: rows, and columns, of a block of distances


def precision_recall(
  real_ND: np.ndarray, fake_MD: np.ndarray, neighbours: int = ADM_NEIGHBOURS
) -> dict[str, float]:
  """{"precision", "recall"}, both in [0, 1].

  Raises:
    ValueError: features that are not finite, sets of different widths, or no
      more examples than neighbours.
  """
  real, fake = _centred(real_ND, fake_MD, neighbours)
  with jax.enable_x64(True):
    precise = _balls_around(fake, real, neighbours) > 0
    recalled = _balls_around(real, fake, neighbours) > 0
  return {
    "precision": float(precise.mean()),
    "recall": float(recalled.mean()),
  }


def density_coverage(
  real_ND: np.ndarray, fake_MD: np.ndarray, neighbours: int = PRDC_NEIGHBOURS
) -> dict[str, float]:
  """{"density" >= 0, "coverage" in [0, 1]}.

  Raises:
    ValueError: as `precision_recall`.
  """
  real, fake = _centred(real_ND, fake_MD, neighbours)
  with jax.enable_x64(True):
    inside = _balls_around(fake, real, neighbours, strict=True)
    covered = _nearest(real, fake, 1)[:, 0] < _radii(real, neighbours)
  return {
    "density": float(inside.mean() / neighbours),
    "coverage": float(covered.mean()),
  }


def _centred(real_ND, fake_MD, neighbours) -> tuple[np.ndarray, np.ndarray]:
  """Checks both sets, and takes the mean of the reals off them; float64."""
  values.check_count("neighbours", neighbours, 1)
  for name, features in (("real", real_ND), ("fake", fake_MD)):
    if features.ndim != 2 or len(features) <= neighbours:
      raise ValueError(
        f"{neighbours} nearest neighbours need more than {neighbours} examples"
        f" (examples, width), and the {name} features are {features.shape}"
      )
    values.check_features(f"{name} features", features)
  if real_ND.shape[1] != fake_MD.shape[1]:
    raise ValueError(
      f"real and fake features differ in width: {real_ND.shape[1]} and"
      f" {fake_MD.shape[1]}"
    )
  mean_D = np.asarray(real_ND, np.float64).mean(0)
  return tuple(np.asarray(x, np.float64) - mean_D for x in (real_ND, fake_MD))


def _radii(x_ND: np.ndarray, neighbours: int) -> np.ndarray:
  """Squared distance of each example to its k-th nearest neighbour, (N,)."""
  # One more, for the nearest of all is the example itself.
  return _nearest(x_ND, x_ND, neighbours + 1)[:, -1]


def _nearest(x_ND: np.ndarray, y_MD: np.ndarray, count: int) -> np.ndarray:
  """Squared distances from each x to its nearest ys, rising, (N, count)."""
  rows = []
  for x, real in _blocks(x_ND):
    best = np.full((len(x), count), np.inf)
    for y, kept in _blocks(y_MD):
      best = _smallest(x, y, kept, best, count)
    rows.append(np.asarray(best)[:real])
  return np.concatenate(rows)


def _balls_around(
  x_ND: np.ndarray, y_MD: np.ndarray, neighbours: int, strict: bool = False
) -> np.ndarray:
  """Number of balls around the ys that each x is in, (N,)."""
  radii_M = _radii(y_MD, neighbours)
  counts = []
  for x, real in _blocks(x_ND):
    inside = 0
    for place, (y, kept) in enumerate(_blocks(y_MD)):
      radii = np.full(len(y), -1.0)  # padding's balls hold nothing
      radii[:kept] = radii_M[place * _BLOCK :][:kept]
      inside = inside + _count_inside(x, y, radii, strict)
    counts.append(np.asarray(inside)[:real])
  return np.concatenate(counts)


def _blocks(x_ND: np.ndarray):
  """Yields (block, rows that count); the devices divide the rows of a block."""
  devices = jax.local_device_count()
  size = min(_BLOCK, len(x_ND))
  for start in range(0, len(x_ND), _BLOCK):
    block = x_ND[start : start + _BLOCK]
    padding = (size + -size % devices) - len(block)
    yield np.pad(block, ((0, padding), (0, 0))), len(block)


def _sharded(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
  """Divides the rows of the first argument among the local devices."""

  @functools.wraps(function)
  def run(x, *args):
    mesh = Mesh(np.asarray(jax.local_devices()), ("rows",))
    rows = NamedSharding(mesh, PartitionSpec("rows"))
    return function(jax.device_put(x, rows), *args)

  return run


def _squared_distances(x_ND, y_MD):
  # By default a TPU would multiply in bfloat16.
  product = jnp.matmul(x_ND, y_MD.T, precision="highest")
  squares = jnp.square(x_ND).sum(1)[:, None] + jnp.square(y_MD).sum(1)[None]
  return jnp.maximum(squares - 2 * product, 0.0)


@_sharded
@functools.partial(jax.jit, static_argnames="count")
def _smallest(x_ND, y_MD, kept, best_NK, count):
  distances = _squared_distances(x_ND, y_MD)
  hidden = jnp.arange(len(y_MD))[None] >= kept
  distances = jnp.where(hidden, jnp.inf, distances)
  both = jnp.concatenate([best_NK, distances], axis=1)
  return -jax.lax.top_k(-both, count)[0]


@_sharded
@functools.partial(jax.jit, static_argnames="strict")
def _count_inside(x_ND, y_MD, radii_M, strict):
  distances = _squared_distances(x_ND, y_MD)
  radii_1M = radii_M[None]
  inside = distances < radii_1M if strict else distances <= radii_1M
  return inside.sum(1)
