"""Bilinear resizing as the published feature networks were run with.

Neither is what `jax.image.resize` does, which samples at half-pixel centres and
averages when it shrinks. Both are products with two small matrices, because
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
  return _resize(images, height, width, lambda old, new: old / new)


def corner_aligned_bilinear(
  images: jax.Array, height: int, width: int
) -> jax.Array:
  """Chainer's `resize_images`: the corner pixels stay where they are.

  Output pixel i samples at i * (in - 1) / (out - 1). Takes (..., H, W, C) of
  any dtype and gives float32 of the same range.
  """
  return _resize(images, height, width, lambda old, new: (old - 1) / (new - 1))


def _resize(images, height, width, step):
  rows = _weights(images.shape[-3], height, step)
  columns = _weights(images.shape[-2], width, step)
  x = images.astype(jnp.float32)
  with jax.default_matmul_precision("highest"):
    x = jnp.einsum("ih,...hwc->...iwc", rows, x)
    return jnp.einsum("jw,...iwc->...ijc", columns, x)


def _weights(old: int, new: int, step) -> np.ndarray:
  """Matrix (new, old): each output pixel's shares of two input pixels."""
  if old == new:
    return np.eye(new, dtype=np.float32)
  # Positions are float32, as the originals compute them.
  position = np.arange(new, dtype=np.float32) * np.float32(step(old, new))
  low = np.minimum(position.astype(np.int32), old - 1)
  high = np.minimum(low + 1, old - 1)
  share = position - low
  weights = np.zeros((new, old), np.float32)
  np.add.at(weights, (np.arange(new), low), 1.0 - share)
  np.add.at(weights, (np.arange(new), high), share)
  return weights
