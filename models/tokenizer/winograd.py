"""Convolutions in fewer multiplications, for CPUs (Winograd).

Lavin and Gray, arXiv 1509.09308: F(m, 3) computes m neighbouring outputs of a
kernel of three taps from m + 2 inputs with m + 2 multiplications instead of
3 m. Nested over time, height and width, F(2, 3) x F(2, 3) x F(4, 3) needs 6
multiplications per output of a 3 x 3 x 3 kernel instead of 27; they are matrix
products over channels. The transforms around them cost memory traffic, which
wide layers repay. Rounding errors are about four times those of the direct
form; F(4, 3) in height, too, would double them and was no faster
(`benchmarks/README.md`).
"""

from collections.abc import Sequence
import functools
import math
import operator

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

# Below these, transforming inputs or kernels costs more than it saves.
_MIN_CHANNELS = 64  # both input and output
_MIN_PIXELS = 1024  # height times width of an output frame
_SPACE = (2, 4)  # outputs of a tile in height and width; 2 in time
_CHUNK_TILES = 256  # rows of each matrix product, which fits in the cache


def _transforms(m: int, points: Sequence[float]) -> tuple[np.ndarray, ...]:
  """(output m x n, kernel n x 3, input n x n) of F(m, 3), n = m + 2.

  Toom-Cook computes a product of polynomials from its values at n - 1 `points`
  and at infinity. The convolution is that algorithm, transposed.
  """
  n = m + 2
  output, kernel, inputs = np.zeros((m, n)), np.zeros((n, 3)), np.zeros((n, n))
  for j, point in enumerate(points):
    others = [p for k, p in enumerate(points) if k != j]
    output[:, j] = point ** np.arange(m)
    kernel[j] = point ** np.arange(3) / np.prod([point - p for p in others])
    inputs[j, :-1] = np.poly(others)[::-1]
  output[-1, -1] = kernel[-1, -1] = 1.0
  inputs[-1] = np.poly(points)[::-1]
  return output, kernel, inputs


# The points of F(4, 3) are exact in binary; with the usual 1 and 2 the error
# is twice as large.
_TRANSFORMS = {
  2: _transforms(2, (0.0, 1.0, -1.0)),
  4: _transforms(4, (0.0, 0.75, -0.75, 1.5, -1.5)),
}


def is_faster(
  x_BTHWI: jax.Array | jax.ShapeDtypeStruct,
  kernel: jax.Array | jax.ShapeDtypeStruct,
  strides: Sequence[int],
) -> bool:
  """Whether `valid_conv` takes these (padded) arguments, and is faster."""
  _, _, height, width, _ = x_BTHWI.shape
  return (
    tuple(strides) == (1, 1, 1)
    and kernel.shape[:3] in ((1, 3, 3), (3, 3, 3))
    and min(kernel.shape[3:]) >= _MIN_CHANNELS
    and x_BTHWI.dtype == jnp.float32
    and height % _SPACE[0] == (width - 2) % _SPACE[1] == 0
    and (height - 2) * (width - 2) >= _MIN_PIXELS
  )


def valid_conv(x_BTHWI: jax.Array, kernel: jax.Array) -> jax.Array:
  """Unpadded convolution, stride 1; `kernel` is (3 or 1, 3, 3, I, O).

  Height and width of the output must be multiples of `_SPACE`.
  """
  batch, frames, height, width, _ = x_BTHWI.shape
  kt = kernel.shape[0]
  frames, height, width = frames - kt + 1, height - 2, width - 2
  # Chunks are groups of frames, or bands of rows, small enough for the cache.
  # An exported program does not know its batch: it has those of one clip.
  known = batch if isinstance(batch, int) else 1
  tiles = known * height * width // math.prod(_SPACE)
  step_t = 2 * max(1, _CHUNK_TILES // tiles) if kt == 3 else 1
  step_t = min(step_t, frames + frames % 2)
  bands = math.gcd(height // _SPACE[0], max(1, tiles // _CHUNK_TILES))
  step_h = height // bands
  total = -(-frames // step_t) * step_t
  x_BTHWI = jnp.pad(
    x_BTHWI, ((0, 0), (0, total - frames), (0, 0), (0, 0), (0, 0))
  )
  sizes = (2 if kt == 3 else 1, *_SPACE)
  transformed = _transform_kernel(kernel, sizes)

  def chunk(i, y_BTHWO):
    corner = (0, i // bands * step_t, i % bands * step_h, 0, 0)
    size = (batch, step_t + kt - 1, step_h + 2, width + 2, x_BTHWI.shape[-1])
    part = _conv(lax.dynamic_slice(x_BTHWI, corner, size), transformed, sizes)
    return lax.dynamic_update_slice(y_BTHWO, part, corner)

  y_BTHWO = jnp.zeros((batch, total, height, width, kernel.shape[-1]))
  y_BTHWO = lax.fori_loop(0, total // step_t * bands, chunk, y_BTHWO)
  return y_BTHWO[:, :frames]


def _transform_kernel(kernel: jax.Array, sizes: Sequence[int]) -> jax.Array:
  """Transforms a kernel (kt, 3, 3, I, O) to values (points, I, O)."""
  for axis, m in enumerate(sizes):
    if m > 1:
      matrix = jnp.asarray(_TRANSFORMS[m][1], jnp.float32)
      kernel = jnp.tensordot(matrix, jnp.moveaxis(kernel, axis, 0), 1)
      kernel = jnp.moveaxis(kernel, 0, axis)
  return kernel.reshape(-1, *kernel.shape[3:])


def _conv(
  x_BTHWI: jax.Array, transformed: jax.Array, sizes: Sequence[int]
) -> jax.Array:
  """Convolves a chunk as a whole, with a kernel already transformed."""
  axes = [(axis, m) for axis, m in enumerate(sizes, start=1) if m > 1]
  x = x_BTHWI
  for done, (axis, m) in enumerate(reversed(axes)):
    x = _transform_input(x, done + axis, m)
  points, tiles = x.shape[: len(axes)], x.shape[len(axes) : -1]
  x_PNI = x.reshape(math.prod(points), math.prod(tiles), -1)
  y_PNO = jnp.einsum("pni,pio->pno", x_PNI, transformed)
  y = y_PNO.reshape(*points, *tiles, -1)
  for left, (axis, m) in zip(range(len(axes))[::-1], axes, strict=True):
    y = _transform_output(y, left + axis, m)
  return y


def _transform_input(x: jax.Array, axis: int, m: int) -> jax.Array:
  """Transforms tiles along an axis to values at points, the new first axis."""
  tiles = (x.shape[axis] - 2) // m
  last = m * (tiles - 1) + 1
  taps = [lax.slice_in_dim(x, k, k + last, m, axis=axis) for k in range(m + 2)]
  values = jnp.stack([_combine(row, taps) for row in _TRANSFORMS[m][2]])
  # Without the barrier, XLA recomputes this axis for each point of the next.
  return lax.optimization_barrier(values)


def _transform_output(x: jax.Array, axis: int, m: int) -> jax.Array:
  """Transforms values at points, the first axis, to m outputs per tile."""
  outputs = [_combine(row, x) for row in _TRANSFORMS[m][0]]
  shape = list(outputs[0].shape)
  shape[axis] *= m
  values = jnp.stack(outputs, axis=axis + 1).reshape(shape)
  return lax.optimization_barrier(values)


def _combine(
  row: np.ndarray, parts: Sequence[jax.Array] | jax.Array
) -> jax.Array:
  terms = [
    np.float32(c) * x for c, x in zip(row, parts, strict=True) if c != 0.0
  ]
  return functools.reduce(operator.add, terms)
