"""Bilinear resizing as the published feature networks were run with.

None is what `jax.image.resize` does, which samples at half-pixel centres and
averages when it shrinks. All are products with two small matrices, because
gathers are slow on TPUs; they round as float32 does.
"""

import jax
import jax.numpy as jnp
import numpy as np


def tf1_bilinear(
  images: jax.Array | np.ndarray, height: int, width: int
) -> jax.Array:
  """TensorFlow 1's `resize_bilinear`, align_corners=False.

  Output pixel i samples at i * in / out, without half a pixel's offset and
  without averaging when it shrinks. Takes (..., H, W, C) of any dtype and gives
  float32 of the same range.
  """
  return _resize(images, height, width, lambda old, new: (old / new, 0.0))


def half_pixel_bilinear(
  images: jax.Array | np.ndarray, height: int, width: int
) -> jax.Array:
  """Torch's `interpolate`, bilinear, align_corners=False, antialias=False.

  Output pixel i samples at (i + 1/2) * in / out - 1/2, and at the border where
  that is outside, without averaging when it shrinks. Takes (..., H, W, C) of
  any dtype and gives float32 of the same range.
  """
  return _resize(
    *(images, height, width),
    lambda old, new: (old / new, 0.5),
  )


def corner_aligned_bilinear(
  images: jax.Array, height: int, width: int
) -> jax.Array:
  """Chainer's `resize_images`: the corner pixels stay where they are.

  Output pixel i samples at i * (in - 1) / (out - 1). Takes (..., H, W, C) of
  any dtype and gives float32 of the same range.
  """
  return _resize(
    *(images, height, width), lambda old, new: ((old - 1) / (new - 1), 0.0)
  )


def _resize(images, height, width, grid):
  rows = _weights(images.shape[-3], height, grid)
  columns = _weights(images.shape[-2], width, grid)
  x = images.astype(jnp.float32)
  with jax.default_matmul_precision("highest"):
    x = jnp.einsum("ih,...hwc->...iwc", rows, x)
    return jnp.einsum("jw,...iwc->...ijc", columns, x)


def _weights(old: int, new: int, grid) -> np.ndarray:
  """Matrix (new, old): each output pixel's shares of two input pixels.

  `grid` gives the distance of two output pixels, in input pixels, and the place
  of the centre within a pixel: output pixel i is at (i + place) * distance -
  place.
  """
  if old == new:
    return np.eye(new, dtype=np.float32)
  # Positions are float32, as the originals compute them.
  step, centre = (np.float32(x) for x in grid(old, new))
  position = (np.arange(new, dtype=np.float32) + centre) * step - centre
  position = np.maximum(position, np.float32(0.0))
  low = np.minimum(position.astype(np.int32), old - 1)
  high = np.minimum(low + 1, old - 1)
  share = position - low
  weights = np.zeros((new, old), np.float32)
  np.add.at(weights, (np.arange(new), low), 1.0 - share)
  np.add.at(weights, (np.arange(new), high), share)
  return weights
