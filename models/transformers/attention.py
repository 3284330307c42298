"""Self-attention, the pre-LN block, and a scanned stack of blocks.

The transformer of ViT (arXiv 2010.11929, section 3.1), without positions: the
network that owns a token grid owns its positions as well.
"""

from collections.abc import Callable
import dataclasses
import typing
from typing import Any

from flax import nnx
import jax
from jax import lax
import jax.numpy as jnp

from models import remat as remat_lib
from models.transformers import attend
from models.transformers import dropout as dropout_lib

_LAYER_NORM_EPSILON = 1e-6
# Most rows of a table whose gradient is a product on GPUs.
_FEW_ROWS = 1024

# Keys and values of all layers (L) and positions (S): (L, B, S, A, d) each.
Cache = tuple[jax.Array, jax.Array]


@dataclasses.dataclass(frozen=True)
class TransformerSize:
  """Size of a stack of equal transformer blocks, and how it is trained.

  width: channels of a token, D.
  mlp_width: hidden units of each block's MLP.
  dropout: rate of dropout of hidden units and of attention.
  remat: what a backward pass keeps of each block (models/remat.py).
  dropout_bits: kind of dropout's random bits (models/transformers/dropout.py).
  attention: form of attention (models/transformers/attend.py).
  unroll: whether the blocks are compiled one by one in training. A loop
    compiles once, but on GPUs it copies what the backward pass keeps of each
    block.
  """

  num_layers: int
  width: int
  mlp_width: int
  num_heads: int
  dropout: float = 0.0
  remat: str = "off"
  dropout_bits: str = "hash"
  attention: attend.Form = attend.Form()
  unroll: bool = False


class Stack(nnx.Module):
  """Equal blocks in sequence, then a norm.

  They are one stacked block, which is scanned and so compiles once.
  """

  def __init__(self, size: TransformerSize, *, rngs: nnx.Rngs):
    self.layers = jax.vmap(lambda key: Block(size, rngs=nnx.Rngs(key)))(
      jax.random.split(rngs.params(), size.num_layers)
    )
    self.norm = layer_norm(size.width, rngs)
    self.size = size
    self.num_layers = size.num_layers
    self.num_heads = size.num_heads

  def __call__(
    self,
    x_BND: jax.Array,
    layout: attend.Layout | None = None,
    dropout_key: jax.Array | None = None,
  ) -> jax.Array:
    """Runs all blocks; shape and dtype stay, arguments are those of `Block`."""
    keys_L = None
    if dropout_key is not None:
      keys_L = jax.random.split(dropout_key, self.num_layers)

    def body(x_BND, layer):
      block, key = layer
      return block(x_BND, layout, key), None

    body = remat_lib.apply(body, self.size.remat, in_scan=not self.size.unroll)
    return self.norm(scan_layers(body, x_BND, (self.layers, keys_L), self.size))

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
    layout: attend.Layout,
  ) -> tuple[jax.Array, Cache]:
    """Output of `__call__` for N tokens, and the cache with them.

    The first of them is at `layout.start`. Tokens that they see have to be in
    the cache or among the N.
    """

    def body(carry, layer):
      # The whole cache is carried and one slice of it written: XLA does that
      # in place, where a scan over the layers' caches would copy them.
      x_BND, keys_LBSAd, values_LBSAd = carry
      block, index = layer
      q_BNAd, k_BNAd, v_BNAd = block.project(x_BND)
      at = (index, 0, layout.start, 0, 0)
      write = lax.dynamic_update_slice
      keys_LBSAd = write(keys_LBSAd, k_BNAd[None], at)
      values_LBSAd = write(values_LBSAd, v_BNAd[None], at)
      y_BNAd = attend.attend(
        q_BNAd,
        keys_LBSAd[index],
        values_LBSAd[index],
        layout,
        form=self.size.attention,
      )
      return (block.finish(x_BND, y_BNAd), keys_LBSAd, values_LBSAd), None

    layers = (self.layers, jnp.arange(self.num_layers))
    (x_BND, *written), _ = lax.scan(body, (x_BND, *cache), layers)
    keys_LBSAd, values_LBSAd = written
    return self.norm(x_BND), (keys_LBSAd, values_LBSAd)


class Block(nnx.Module):
  """Attention and a gelu MLP, each normalised before and added (pre-LN)."""

  def __init__(self, size: TransformerSize, *, rngs: nnx.Rngs):
    """Raises ValueError unless the heads divide the width."""
    width, num_heads = size.width, size.num_heads
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
    self.mlp_in = nnx.Linear(width, size.mlp_width, rngs=rngs)
    self.mlp_out = nnx.Linear(size.mlp_width, width, rngs=rngs)
    self.size = size

  def __call__(
    self,
    x_BND: jax.Array,
    layout: attend.Layout | None = None,
    dropout_key: jax.Array | None = None,
  ) -> jax.Array:
    """Without a layout all tokens attend to all.

    The key draws the dropout of training, on attention and on all that is added
    to the tokens; without a key nothing is dropped.
    """
    keys = [None] * 2
    if dropout_key is not None:
      keys = jax.random.split(dropout_key)
    qkv = self.project(x_BND)
    y_BNAd = attend_in_training(self.size, *qkv, layout, keys[0])
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
    x_BND = x_BND + drop(self.size, self.out(y_BNAd), keys[0])
    h_BND = self.mlp_out(jax.nn.gelu(self.mlp_in(self.mlp_norm(x_BND))))
    return x_BND + drop(self.size, h_BND, keys[1])


def split_qkv(
  qkv_BN3Ad: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Queries, keys and values (B, N, A, d)."""
  return qkv_BN3Ad[:, :, 0], qkv_BN3Ad[:, :, 1], qkv_BN3Ad[:, :, 2]


def attend_in_training(
  size: TransformerSize,
  q_BNAd: jax.Array,
  k_BNAd: jax.Array,
  v_BNAd: jax.Array,
  layout: attend.Layout | None,
  dropout_key: jax.Array | None,
) -> jax.Array:
  """Attention (B, N, A, d) of a network; without a key nothing is dropped."""
  dropped = None
  if dropout_key is not None:
    dropped = attend.Drop(size.dropout, dropout_key, size.dropout_bits)
  return attend.attend(q_BNAd, k_BNAd, v_BNAd, layout, dropped, size.attention)


def drop(
  size: TransformerSize, x: jax.Array, key: jax.Array | None
) -> jax.Array:
  """Dropout of a network's hidden units; without a key none."""
  return dropout_lib.dropout(x, size.dropout, key, size.dropout_bits)


def scan_layers(body, x_BND: jax.Array, layers, size: TransformerSize):
  """Folds `body(x, layer) -> (x, None)` over stacked layers."""
  unroll = size.num_layers if size.unroll else 1
  return lax.scan(body, x_BND, layers, unroll=unroll)[0]


def means_by_depth(
  run: Callable[[jax.Array, Any], jax.Array],
  x_BND: jax.Array,
  layers: Any,
  first: int,
) -> jax.Array:
  """Means over the tokens before, and after each of L layers: (B, L + 1, D).

  Args:
    run: function (tokens, layer) -> tokens.
    x_BND: input of the first layer.
    layers: stacked layers.
    first: number of leading tokens that do not count.
  """
  mean = lambda x_BND: x_BND[:, first:].astype(jnp.float32).mean(1)

  def body(x_BND, layer):
    x_BND = run(x_BND, layer)
    return x_BND, mean(x_BND)

  _, means_LBD = lax.scan(body, x_BND, layers)
  return jnp.concatenate([mean(x_BND)[:, None], means_LBD.swapaxes(0, 1)], 1)


def look_up(table: nnx.Embed, ids: jax.Array) -> jax.Array:
  """Rows (..., D) in the table's dtype, which `nnx.Embed` itself widens."""
  return look_up_rows(table.embedding[...], ids)


@jax.custom_vjp
def look_up_rows(table_VD: jax.Array, ids: jax.Array) -> jax.Array:
  """Rows (..., D) of a table."""
  return jnp.take(table_VD, ids, axis=0)


def _look_up_backward(kept, g):
  table_VD, ids = kept

  def as_sums(table_VD, g, ids):
    take = lambda table_VD: jnp.take(table_VD, ids, axis=0)
    return jax.vjp(take, table_VD)[1](g)[0]

  if len(table_VD) > _FEW_ROWS:
    return as_sums(table_VD, g, ids), None
  gradient_VD = lax.platform_dependent(
    *(table_VD, g, ids), cuda=table_gradient_as_product, default=as_sums
  )
  return gradient_VD, None


look_up_rows.defvjp(
  lambda table_VD, ids: (look_up_rows(table_VD, ids), (table_VD, ids)),
  _look_up_backward,
)


def table_gradient_as_product(
  table_VD: jax.Array, g: jax.Array, ids: jax.Array
) -> jax.Array:
  """Gradient (V, D) of a table that `ids` look up; g is (..., D).

  Where many rows are added to few, a GPU adds them in turn.
  """
  hot_NV = jax.nn.one_hot(ids.reshape(-1), len(table_VD), dtype=g.dtype)
  gradient_VD = jnp.einsum(
    "nv,nd->vd",
    hot_NV,
    g.reshape(-1, g.shape[-1]),
    preferred_element_type=jnp.float32,
  )
  return gradient_VD.astype(table_VD.dtype)


def layer_norm(width: int, rngs: nnx.Rngs) -> nnx.LayerNorm:
  """Norm over the channels of each token; statistics are in float32."""
  return nnx.LayerNorm(width, epsilon=_LAYER_NORM_EPSILON, rngs=rngs)
