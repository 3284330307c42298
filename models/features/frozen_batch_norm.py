"""Batch norm with the statistics of training, which are never updated."""

from flax import nnx
import jax
from jax import lax
import jax.numpy as jnp


class FrozenBatchNorm(nnx.Module):
  """Batch norm of published statistics, the identity until they are loaded.

  A convolution with a norm is a subclass, so that all of its arrays stand side
  by side, as exported weights name them.
  """

  def __init__(self, channels: int, epsilon: float):
    self.epsilon = epsilon
    self.scale = nnx.Param(jnp.ones(channels))
    self.bias = nnx.Param(jnp.zeros(channels))
    self.mean = nnx.Param(jnp.zeros(channels))
    self.variance = nnx.Param(jnp.ones(channels))

  def normalize(self, x_BHWC: jax.Array) -> jax.Array:
    """(x - mean) / sqrt(variance + epsilon) * scale + bias, by channel."""
    gain_C = self.scale[...] * lax.rsqrt(self.variance[...] + self.epsilon)
    mean, gain, bias = (
      lax.broadcast_to_rank(x_C, x_BHWC.ndim)
      for x_C in (self.mean[...], gain_C, self.bias[...])
    )
    return (x_BHWC - mean) * gain + bias
