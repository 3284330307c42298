"""Distances of images by the activations of a network trained to classify.

As in LPIPS (Zhang et al. 2018, arXiv 1801.03924, eq. 1): every activation is
divided by its length over the channels, and squared differences are summed over
the channels and averaged over the pixels. LPIPS then weights channels by heads
that were fitted to people's answers. `distance` has none: it is the mean over
the layers, each with the same weight, and is not LPIPS.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

_EPSILON = 1e-10


def distance(
  target: Sequence[jax.Array], output: Sequence[jax.Array]
) -> jax.Array:
  """Distances (B,) of two batches by their activations (B, h, w, C) by layer.

  Each is in [0, 4], and 0 where the activations are equal.
  """
  layers = [
    jnp.square(unit_length(x) - unit_length(y)).sum(-1).mean((1, 2))
    for x, y in zip(target, output, strict=True)
  ]
  return sum(layers, jnp.zeros(len(target[0]))) / len(layers)


def unit_length(x_BHWC: jax.Array) -> jax.Array:
  """Divides by the norm over the channels plus 1e-10, as LPIPS does."""
  square_BHW1 = jnp.square(x_BHWC).sum(-1, keepdims=True)
  # The slope of the root is infinite at 0 and would turn the gradient into nan
  # where no channel is active or all squares underflow.
  positive = square_BHW1 > 0.0
  norm_BHW1 = jnp.where(
    positive, jnp.sqrt(jnp.where(positive, square_BHW1, 1.0)), 0.0
  )
  return x_BHWC / (norm_BHW1 + _EPSILON)
