"""Modulation of normed tokens by a condition, as in DiT (arXiv 2212.09748)."""

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

WAVES = 256  # sines and cosines of a time
_LONGEST_PERIOD = 10_000.0  # the longest of these, in times of 0..1000


class TimeEmbedding(nnx.Module):
  """Times in 0..1000 as vectors: sines and cosines, then an MLP."""

  def __init__(self, width: int, *, rngs: nnx.Rngs):
    init = jax.nn.initializers.normal(0.02)
    self.time_in = nnx.Linear(WAVES, width, kernel_init=init, rngs=rngs)
    self.time_out = nnx.Linear(width, width, kernel_init=init, rngs=rngs)

  def __call__(self, time: jax.Array) -> jax.Array:
    """Vectors (..., D) of times (...), in the dtype of the weights."""
    waves_W = waves(time, WAVES).astype(self.time_in.kernel.dtype)
    return self.time_out(jax.nn.silu(self.time_in(waves_W)))


def waves(time: jax.Array, count: int) -> jax.Array:
  """Cosines and sines of times, float32 (..., count)."""
  powers = np.arange(count // 2, dtype=np.float32) / (count // 2)
  frequencies = np.asarray(_LONGEST_PERIOD**-powers, np.float32)
  angles = jnp.einsum("...,f->...f", time.astype(jnp.float32), frequencies)
  return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], -1)


class LayerModulation(nnx.Module):
  """Shift, scale and gate of a layer's attention and of its MLP.

  A_i = A_1 + W_b W_a c (eq. 3), of which A_1 is shared by all layers; or, of
  rank 0, a linear map of each layer. At first all are zero, gates included.
  """

  def __init__(self, width: int, rank: int, rngs: nnx.Rngs):
    inputs = rank or width
    self.down = (
      nnx.Linear(width, rank, use_bias=False, rngs=rngs) if rank else None
    )
    self.up = zero_linear(inputs, 6 * width, rngs, use_bias=not rank)

  def __call__(self, shared_BfM, condition_BfD) -> list[jax.Array]:
    """Six arrays (B, f, 1, 1, D)."""
    if self.down is None:
      modulation_BfM = self.up(jax.nn.silu(condition_BfD))
    else:
      modulation_BfM = shared_BfM + self.up(self.down(condition_BfD))
    return jnp.split(modulation_BfM[:, :, None, None], 6, -1)


def modulate(x: jax.Array, shift: jax.Array, scale: jax.Array) -> jax.Array:
  return x * (1 + scale) + shift


def plain_norm(width: int, rngs: nnx.Rngs) -> nnx.LayerNorm:
  """Norm of each token's channels; what follows has scale and shift."""
  return nnx.LayerNorm(
    width, epsilon=1e-6, use_scale=False, use_bias=False, rngs=rngs
  )


def zero_linear(
  inputs: int, outputs: int, rngs: nnx.Rngs, use_bias: bool = True
) -> nnx.Linear:
  return nnx.Linear(
    inputs,
    outputs,
    use_bias=use_bias,
    kernel_init=nnx.initializers.zeros,
    rngs=rngs,
  )


def dense(cin: int, cout: int, rngs: nnx.Rngs) -> nnx.Linear:
  """Linear layer with Xavier's uniform weights."""
  init = jax.nn.initializers.xavier_uniform()
  return nnx.Linear(cin, cout, kernel_init=init, rngs=rngs)
