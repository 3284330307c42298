"""The diffusion head of MAR: a small denoiser of one latent at a time.

MAR (arXiv 2406.11838, section 3.2; LTH14/mar `diffloss.py`): a residual MLP
whose AdaLN follows the time and the trunk's features of the latent. It predicts
the noise, and where between its bounds the variance of a step lies.
"""

import dataclasses

from flax import nnx
import jax
from jax import lax
import jax.numpy as jnp

from models.transformers import modulation

_NORM_EPSILON = 1e-6


@dataclasses.dataclass(frozen=True)
class HeadSize:
  """Size of a diffusion head: blocks in sequence, and their channels."""

  num_blocks: int
  width: int


class DiffusionHead(nnx.Module):
  """Predicts noise and variance of noisy latents, each from its condition."""

  def __init__(
    self, channels: int, condition: int, size: HeadSize, *, rngs: nnx.Rngs
  ):
    """Makes a head for latents of C `channels` and features of `condition`."""
    width = size.width
    self.inputs = modulation.dense(channels, width, rngs)
    self.time = modulation.TimeEmbedding(width, rngs=rngs)
    self.condition = modulation.dense(condition, width, rngs)
    # Blocks are one stacked block, which is scanned and so compiles once.
    self.blocks = jax.vmap(lambda key: HeadBlock(width, rngs=nnx.Rngs(key)))(
      jax.random.split(rngs.params(), size.num_blocks)
    )
    self.norm = modulation.plain_norm(width, rngs)
    self.modulation = modulation.zero_linear(width, 2 * width, rngs)
    self.outputs = modulation.zero_linear(width, 2 * channels, rngs)

  def __call__(
    self, x: jax.Array, time: jax.Array, condition: jax.Array
  ) -> jax.Array:
    """Noise, then the variance's place, in [-1, 1] when trained: (..., 2C).

    Args:
      x: noisy latents (..., C), of any float dtype.
      time: float32 or int32 in 0..1000, (...).
      condition: features (..., D); axes of 1 are shared.

    Returns:
      float32; all zeros from a new head.
    """
    dtype = self.inputs.kernel.dtype
    c = jax.nn.silu(self.time(time) + self.condition(condition.astype(dtype)))
    x = self.inputs(x.astype(dtype))
    x, _ = lax.scan(lambda x, block: (block(x, c), None), x, self.blocks)
    shift, scale = jnp.split(self.modulation(c), 2, axis=-1)
    x = modulation.modulate(self.norm(x), shift, scale)
    return self.outputs(x).astype(jnp.float32)


class HeadBlock(nnx.Module):
  """Norm, modulation and an MLP, added through a gate."""

  def __init__(self, width: int, *, rngs: nnx.Rngs):
    self.norm = nnx.LayerNorm(width, epsilon=_NORM_EPSILON, rngs=rngs)
    self.mlp_in = modulation.dense(width, width, rngs)
    self.mlp_out = modulation.dense(width, width, rngs)
    self.modulation = modulation.zero_linear(width, 3 * width, rngs)

  def __call__(self, x: jax.Array, c: jax.Array) -> jax.Array:
    shift, scale, gate = jnp.split(self.modulation(c), 3, axis=-1)
    h = modulation.modulate(self.norm(x), shift, scale)
    return x + gate * self.mlp_out(jax.nn.silu(self.mlp_in(h)))
