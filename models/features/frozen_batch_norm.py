"""Batch norm with the statistics of training, which are never updated."""

import jax
from jax import lax


def normalize(
  x_BHWC: jax.Array,
  scale_C: jax.Array,
  bias_C: jax.Array,
  mean_C: jax.Array,
  variance_C: jax.Array,
  epsilon: float,
) -> jax.Array:
  """(x - mean) / sqrt(variance + epsilon) * scale + bias, for each channel."""
  gain_C = scale_C * lax.rsqrt(variance_C + epsilon)
  mean, gain, bias = (
    lax.broadcast_to_rank(x_C, x_BHWC.ndim) for x_C in (mean_C, gain_C, bias_C)
  )
  return (x_BHWC - mean) * gain + bias
