"""Self-attention, the pre-LN block, and a scanned stack of blocks.

The transformer of ViT (arXiv 2010.11929, section 3.1), without positions: the
network that owns a token grid owns its positions as well.
"""

from collections.abc import Callable

from flax import nnx
import jax
from jax import lax
import jax.numpy as jnp

_LAYER_NORM_EPSILON = 1e-6


class Stack(nnx.Module):
  """Equal blocks one after the other, then a norm.

  One stacked block: layers are scanned, and compile once. With `remat` the
  backward pass keeps only the input of each block and computes it again.
  """

  def __init__(
    self,
    num_layers: int,
    width: int,
    mlp_width: int,
    num_heads: int,
    remat: bool,
    *,
    rngs: nnx.Rngs,
  ):
    self.layers = jax.vmap(
      lambda key: Block(width, mlp_width, num_heads, rngs=nnx.Rngs(key))
    )(jax.random.split(rngs.params(), num_layers))
    self.norm = layer_norm(width, rngs)
    self.remat = remat

  def __call__(
    self, x_BND: jax.Array, mask_NN: jax.Array | None = None
  ) -> jax.Array:
    """Tokens to tokens of the same shape and dtype; mask as in `Block`."""
    body = lambda x, block: (block(x, mask_NN), None)
    if self.remat:
      body = jax.checkpoint(body, prevent_cse=False)
    return self.norm(lax.scan(body, x_BND, self.layers)[0])


class Block(nnx.Module):
  """Attention and a gelu MLP, each normalised before and added (pre-LN)."""

  def __init__(
    self, width: int, mlp_width: int, num_heads: int, *, rngs: nnx.Rngs
  ):
    """Raises ValueError unless the heads divide the width."""
    if width % num_heads:
      raise ValueError(
        f"width={width} of a transformer must be a multiple of"
        f" num_heads={num_heads}: change either"
      )
    self.attention_norm = layer_norm(width, rngs)
    self.qkv = nnx.Linear(width, 3 * width, rngs=rngs)
    self.out = nnx.Linear(width, width, rngs=rngs)
    self.mlp_norm = layer_norm(width, rngs)
    self.mlp_in = nnx.Linear(width, mlp_width, rngs=rngs)
    self.mlp_out = nnx.Linear(mlp_width, width, rngs=rngs)
    self.num_heads = num_heads

  def __call__(
    self, x_BND: jax.Array, mask_NN: jax.Array | None = None
  ) -> jax.Array:
    """`mask_NN[i, j]` is True where token i may attend to token j.

    Every row needs a True. None: all tokens attend to all.
    """
    x_BND = x_BND + self._attend(self.attention_norm(x_BND), mask_NN)
    h_BND = jax.nn.gelu(self.mlp_in(self.mlp_norm(x_BND)))
    return x_BND + self.mlp_out(h_BND)

  def _attend(self, x_BND, mask_NN):
    qkv_BNE = self.qkv(x_BND)
    return self.out(attend(qkv_BNE, self.num_heads, mask_NN))


def attend(
  qkv_BNE: jax.Array,
  num_heads: int,
  mask_NN: jax.Array | None = None,
  drop: Callable[[jax.Array], jax.Array] = lambda p_BANN: p_BANN,
) -> jax.Array:
  """Multi-head attention without its projections: (B, N, D).

  Args:
    qkv_BNE: queries, keys and values, D channels each, E = 3 D.
    num_heads: divides D.
    mask_NN: as in `Block`.
    drop: dropout of the attention weights (B, A, N, N), float32.
  """
  batch, tokens, channels = qkv_BNE.shape
  depth = channels // 3 // num_heads
  qkv = qkv_BNE.reshape(batch, tokens, 3, num_heads, depth)
  q_BNAd, k_BNAd, v_BNAd = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
  scores_BANN = jnp.einsum("bqad,bkad->baqk", q_BNAd, k_BNAd)
  scores_BANN = scores_BANN.astype(jnp.float32) / depth**0.5
  if mask_NN is not None:
    # Minus infinity, so that a hidden token weighs exactly 0.
    scores_BANN = jnp.where(mask_NN, scores_BANN, -jnp.inf)
  p_BANN = drop(jax.nn.softmax(scores_BANN)).astype(qkv_BNE.dtype)
  y_BNAd = jnp.einsum("baqk,bkad->bqad", p_BANN, v_BNAd)
  return y_BNAd.reshape(batch, tokens, num_heads * depth)


def causal_mask(tokens: int) -> jax.Array:
  """bool (N, N): each token attends to itself and to the earlier ones."""
  return jnp.tril(jnp.ones((tokens, tokens), bool))


def layer_norm(width: int, rngs: nnx.Rngs) -> nnx.LayerNorm:
  """Over the channels of each token; statistics in float32."""
  return nnx.LayerNorm(width, epsilon=_LAYER_NORM_EPSILON, rngs=rngs)
