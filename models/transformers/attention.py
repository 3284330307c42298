"""Self-attention, the pre-LN block, and a scanned stack of blocks.

The transformer of ViT (arXiv 2010.11929, section 3.1), without positions: the
network that owns a token grid owns its positions as well.
"""

from collections.abc import Callable
import dataclasses
import typing

from flax import nnx
import jax
from jax import lax
import jax.numpy as jnp

from models import remat as remat_lib

_LAYER_NORM_EPSILON = 1e-6

# Keys and values of all layers (L) and positions (S): (L, B, S, A, d) each.
Cache = tuple[jax.Array, jax.Array]


@dataclasses.dataclass(frozen=True)
class TransformerSize:
  """Size of a stack of equal transformer blocks, and how it is trained.

  width: channels of a token, D.
  mlp_width: hidden units of each block's MLP.
  dropout: rate of dropout of hidden units and of attention.
  remat: what a backward pass keeps of each block (models/remat.py).
  """

  num_layers: int
  width: int
  mlp_width: int
  num_heads: int
  dropout: float = 0.0
  remat: str = "off"


class Stack(nnx.Module):
  """Equal blocks in sequence, then a norm.

  They are one stacked block, which is scanned and so compiles once.
  """

  def __init__(self, size: TransformerSize, *, rngs: nnx.Rngs):
    self.layers = jax.vmap(
      lambda key: Block(
        size.width,
        size.mlp_width,
        size.num_heads,
        size.dropout,
        rngs=nnx.Rngs(key),
      )
    )(jax.random.split(rngs.params(), size.num_layers))
    self.norm = layer_norm(size.width, rngs)
    self.remat = size.remat
    self.num_layers = size.num_layers
    self.num_heads = size.num_heads

  def __call__(
    self,
    x_BND: jax.Array,
    mask_NN: jax.Array | None = None,
    dropout_key: jax.Array | None = None,
  ) -> jax.Array:
    """Runs all blocks; shape and dtype stay, arguments are those of `Block`."""
    keys_L = None
    if dropout_key is not None:
      keys_L = jax.random.split(dropout_key, self.num_layers)

    def body(x_BND, layer):
      block, key = layer
      return block(x_BND, mask_NN, key), None

    body = remat_lib.apply(body, self.remat, in_scan=True)
    return self.norm(lax.scan(body, x_BND, (self.layers, keys_L))[0])

  def empty_cache(self, batch: int, length: int) -> Cache:
    """Cache of zeros for sequences of `length` (S) tokens."""
    width = self.norm.num_features
    shape = (self.num_layers, batch, length, self.num_heads)
    dtype = typing.cast(nnx.Param, self.norm.scale).dtype
    empty_LBSAd = jnp.zeros((*shape, width // self.num_heads), dtype)
    return empty_LBSAd, empty_LBSAd

  def extend(
    self,
    x_BND: jax.Array,
    cache: Cache,
    start: int | jax.Array,
    mask_NS: jax.Array,
  ) -> tuple[jax.Array, Cache]:
    """Output of `__call__` for N tokens at `start`, and the cache with them.

    `mask_NS[i, j]` is True where token `start + i` may attend to token j,
    which has to be in the cache or among the N.
    """

    def body(carry, layer):
      # The whole cache is carried and one slice of it written: XLA does that
      # in place, where a scan over the layers' caches would copy them.
      x_BND, keys_LBSAd, values_LBSAd = carry
      block, index = layer
      q_BNAd, k_BNAd, v_BNAd = block.project(x_BND)
      at = (index, 0, start, 0, 0)
      write = lax.dynamic_update_slice
      keys_LBSAd = write(keys_LBSAd, k_BNAd[None], at)
      values_LBSAd = write(values_LBSAd, v_BNAd[None], at)
      y_BNAd = attend_to(
        q_BNAd, keys_LBSAd[index], values_LBSAd[index], mask_NS
      )
      return (block.finish(x_BND, y_BNAd), keys_LBSAd, values_LBSAd), None

    layers = (self.layers, jnp.arange(self.num_layers))
    (x_BND, *written), _ = lax.scan(body, (x_BND, *cache), layers)
    keys_LBSAd, values_LBSAd = written
    return self.norm(x_BND), (keys_LBSAd, values_LBSAd)


class Block(nnx.Module):
  """Attention and a gelu MLP, each normalised before and added (pre-LN)."""

  def __init__(
    self,
    width: int,
    mlp_width: int,
    num_heads: int,
    dropout: float = 0.0,
    *,
    rngs: nnx.Rngs,
  ):
    """Raises ValueError unless the heads divide the width."""
    if width % num_heads:
      raise ValueError(
        f"width={width} of a transformer must be a multiple of"
        f" num_heads={num_heads}: change either"
      )
    depth = width // num_heads
    self.attention_norm = layer_norm(width, rngs)
    # Heads are a dimension of their own, so that a mesh can split them.
    self.qkv = nnx.LinearGeneral(width, (3, num_heads, depth), rngs=rngs)
    self.out = nnx.LinearGeneral(
      (num_heads, depth), width, axis=(-2, -1), rngs=rngs
    )
    self.mlp_norm = layer_norm(width, rngs)
    self.mlp_in = nnx.Linear(width, mlp_width, rngs=rngs)
    self.mlp_out = nnx.Linear(mlp_width, width, rngs=rngs)
    self.dropout = dropout

  def __call__(
    self,
    x_BND: jax.Array,
    mask_NN: jax.Array | None = None,
    dropout_key: jax.Array | None = None,
  ) -> jax.Array:
    """`mask_NN[i, j]` is True where token i may attend to token j.

    Every row needs a True; without a mask all tokens attend to all. The key
    draws the dropout of training, on attention and on all that is added to the
    tokens; without a key nothing is dropped.
    """
    keys = [None] * 2
    if dropout_key is not None:
      keys = jax.random.split(dropout_key)
    drop = lambda p_BANN: dropout(p_BANN, self.dropout, keys[0])
    y_BNAd = attend_to(*self.project(x_BND), mask_NN, drop)
    return self.finish(x_BND, y_BNAd, keys[1])

  def project(self, x_BND: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Queries, keys and values (B, N, A, d)."""
    return split_qkv(self.qkv(self.attention_norm(x_BND)))

  def finish(
    self,
    x_BND: jax.Array,
    y_BNAd: jax.Array,
    dropout_key: jax.Array | None = None,
  ) -> jax.Array:
    """Output of the block, from its input and what its attention gathered."""
    keys = [None] * 2
    if dropout_key is not None:
      keys = jax.random.split(dropout_key)
    x_BND = x_BND + dropout(self.out(y_BNAd), self.dropout, keys[0])
    h_BND = self.mlp_out(jax.nn.gelu(self.mlp_in(self.mlp_norm(x_BND))))
    return x_BND + dropout(h_BND, self.dropout, keys[1])


def split_qkv(
  qkv_BN3Ad: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Queries, keys and values (B, N, A, d)."""
  return qkv_BN3Ad[:, :, 0], qkv_BN3Ad[:, :, 1], qkv_BN3Ad[:, :, 2]


def attend_to(
  q_BNAd: jax.Array,
  k_BSAd: jax.Array,
  v_BSAd: jax.Array,
  mask_NS: jax.Array | None = None,
  drop: Callable[[jax.Array], jax.Array] = lambda p_BANS: p_BANS,
) -> jax.Array:
  """Attention of N queries to S keys: (B, N, A, d), in float32 inside.

  `mask_NS` is as in `Block`; `drop` is the dropout of the weights (B, A, N, S).
  """
  scores_BANS = jnp.einsum(
    "bqad,bkad->baqk", q_BNAd, k_BSAd, preferred_element_type=jnp.float32
  )
  scores_BANS /= q_BNAd.shape[-1] ** 0.5
  if mask_NS is not None:
    # Minus infinity, so that a hidden token weighs exactly 0.
    scores_BANS = jnp.where(mask_NS, scores_BANS, -jnp.inf)
  p_BANS = drop(jax.nn.softmax(scores_BANS)).astype(q_BNAd.dtype)
  return jnp.einsum("baqk,bkad->bqad", p_BANS, v_BSAd)


def look_up(table: nnx.Embed, ids: jax.Array) -> jax.Array:
  """Rows (..., D) in the table's dtype, which `nnx.Embed` itself widens."""
  return jnp.take(table.embedding[...], ids, axis=0)


def causal_mask(tokens: int) -> jax.Array:
  """bool (N, N): each token attends to itself and to the earlier ones."""
  return jnp.tril(jnp.ones((tokens, tokens), bool))


def layer_norm(width: int, rngs: nnx.Rngs) -> nnx.LayerNorm:
  """Norm over the channels of each token; statistics are in float32."""
  return nnx.LayerNorm(width, epsilon=_LAYER_NORM_EPSILON, rngs=rngs)


def dropout(x: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
  """Drops elements at a rate, scaling the rest; without a key, none."""
  if key is None or rate == 0.0:
    return x
  # Stateless: a Dropout that holds rngs would draw one mask for every step.
  return nnx.Dropout(rate, deterministic=False)(x, rngs=key)
