"""Modulation of normed tokens by a condition, as in DiT (arXiv 2212.09748)."""

from flax import nnx
import jax
import jax.numpy as jnp


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
