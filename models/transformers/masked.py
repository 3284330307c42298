"""MAGVIT's masked transformer with a factorised vocabulary.

A post-LN BERT with learned positions (google-research/magvit
`simplified_bert.py`). A token of 2^18 values enters as the sum of the
embeddings of its sub-tokens (2 x 2^9) and leaves through one head per
sub-token, tied to the same table (MAGVIT-v2, arXiv 2310.05737, section 3.3).
"""

from collections.abc import Sequence
import typing

from flax import nnx
import jax
import jax.numpy as jnp

from models import remat as remat_lib
from models.transformers import attention
from models.transformers import diffusion_head

_LAYER_NORM_EPSILON = 1e-12


class MaskedTrunk(nnx.Module):
  """Features of every token of a masked grid, with a class and a task.

  The sequence is [task token, if there are tasks] [class token] then the N
  tokens of the clip in (t, h, w) raster order. Class `num_classes` means "no
  class". All ids are non-negative. Subclasses say what a token enters as, and
  what is predicted from its features.
  """

  def __init__(
    self,
    num_tokens: int,
    task_slots: int,
    num_classes: int,
    size: attention.TransformerSize,
    *,
    rngs: nnx.Rngs,
  ):
    """Makes a trunk; `task_slots` 0 means one task and no task token."""
    embed = lambda rows: _embed(rows, size.width, rngs)
    self.mask = embed(1)
    self.classes = embed(num_classes + 1)
    self.tasks = embed(task_slots) if task_slots else None
    self.prefix = 2 if task_slots else 1
    self.positions = embed(self.prefix + num_tokens)
    self.norm = _layer_norm(size.width, rngs)
    # Layers are one stacked block, which is scanned and so compiles once.
    self.layers = jax.vmap(lambda key: Block(size, rngs=nnx.Rngs(key)))(
      jax.random.split(rngs.params(), size.num_layers)
    )
    self.size = size

  def features(
    self,
    tokens_BND: jax.Array,
    masked_BN: jax.Array,
    class_B: jax.Array,
    task_B: jax.Array,
    dropout_key: jax.Array | None = None,
    hinted_BN: jax.Array | None = None,
  ) -> jax.Array:
    """Features (B, N, D) of every token.

    Args:
      tokens_BND: embedded tokens; those under the mask are ignored, but for
        hints.
      masked_BN: bool, True where the input is the mask token.
      class_B: int32 in 0..num_classes.
      task_B: int32 task token; ignored by a model without tasks.
      dropout_key: draws the dropout of training; None for inference.
      hinted_BN: bool, True where the mask token and a token, the hint, are
        added; None for nowhere. It counts under the mask alone.
    """
    x_BND = self._sequence(tokens_BND, masked_BN, class_B, task_B, hinted_BN)
    keys = [None] * 2
    if dropout_key is not None:
      keys = jax.random.split(dropout_key)
    x_BND = attention.drop(self.size, x_BND, keys[0])
    return self._run_layers(x_BND, keys[1])[:, self.prefix :]

  def means_by_depth(
    self, tokens_BND: jax.Array, class_B: jax.Array, task_B: jax.Array
  ) -> jax.Array:
    """Means over the tokens of whole clips by depth, float32 (B, L + 1, D)."""
    nothing_BN = jnp.zeros(tokens_BND.shape[:2], bool)
    x_BND = self._sequence(tokens_BND, nothing_BN, class_B, task_B)
    return attention.means_by_depth(
      lambda x_BND, block: block(x_BND, None), x_BND, self.layers, self.prefix
    )

  def _sequence(
    self, tokens_BND, masked_BN, class_B, task_B, hinted_BN=None
  ) -> jax.Array:
    """The input of the first layer, the prefix included."""
    mask_BND = jnp.broadcast_to(self.mask.embedding[0], tokens_BND.shape)
    if hinted_BN is not None:
      mask_BND += jnp.where(hinted_BN[..., None], tokens_BND, 0)
    tokens_BND = jnp.where(masked_BN[..., None], mask_BND, tokens_BND)
    prefix = [attention.look_up(self.classes, class_B)[:, None]]
    if self.tasks is not None:
      prefix.insert(0, attention.look_up(self.tasks, task_B)[:, None])
    x_BND = jnp.concatenate([*prefix, tokens_BND], axis=1)
    return self.norm(x_BND + self.positions.embedding[None])

  def _run_layers(self, x_BND, dropout_key):
    layer_keys = None
    if dropout_key is not None:
      layer_keys = jax.random.split(dropout_key, self.size.num_layers)

    def body(x, layer):
      block, key = layer
      return block(x, key), None

    body = remat_lib.apply(body, self.size.remat, in_scan=not self.size.unroll)
    layers = (self.layers, layer_keys)
    return attention.scan_layers(body, x_BND, layers, self.size)


class MaskedTransformer(MaskedTrunk):
  """Predicts logits of every token from a masked grid, a class and a task."""

  def __init__(
    self,
    num_tokens: int,
    task_slots: int,
    num_classes: int,
    factor_bits: Sequence[int],
    size: attention.TransformerSize,
    *,
    rngs: nnx.Rngs,
  ):
    """Makes a model; `task_slots` 0 means one task and no task token."""
    check_heads("transformer", size)
    self.factors = nnx.List(
      [_embed(2**bits, size.width, rngs) for bits in factor_bits]
    )
    super().__init__(num_tokens, task_slots, num_classes, size, rngs=rngs)
    self.heads = nnx.List(
      [Head(size.width, 2**b, rngs=rngs) for b in factor_bits]
    )

  def __call__(
    self,
    parts_BNF: jax.Array,
    masked_BN: jax.Array,
    class_B: jax.Array,
    task_B: jax.Array,
    dropout_key: jax.Array | None = None,
    hinted_BN: jax.Array | None = None,
  ) -> list[jax.Array]:
    """Logits (B, N, 2^bits) of each sub-token, float32.

    Args:
      parts_BNF: int32 sub-tokens; those under the mask are ignored, but for
        hints.
      masked_BN: bool, True where the input is the mask token.
      class_B: int32 in 0..num_classes.
      task_B: int32 task token; ignored by a model without tasks.
      dropout_key: draws the dropout of training; None for inference.
      hinted_BN: bool, True where a token under the mask is seen as a hint.
    """
    x_BND = self.features(
      self._embed_parts(parts_BNF),
      masked_BN,
      class_B,
      task_B,
      dropout_key,
      hinted_BN,
    )
    return [
      head(x_BND, table.embedding[...])
      for head, table in zip(self.heads, self.factors, strict=True)
    ]

  def depths(
    self, parts_BNF: jax.Array, class_B: jax.Array, task_B: jax.Array
  ) -> jax.Array:
    """Means over the tokens of whole clips by depth, float32 (B, L + 1, D)."""
    tokens_BND = self._embed_parts(parts_BNF)
    return self.means_by_depth(tokens_BND, class_B, task_B)

  def _embed_parts(self, parts_BNF: jax.Array) -> jax.Array:
    tokens_BND = sum(
      attention.look_up(table, parts_BNF[..., f])
      for f, table in enumerate(self.factors)
    )
    return typing.cast(jax.Array, tokens_BND)


class MaskedLatents(MaskedTrunk):
  """The same trunk on latents: a diffusion head draws what a token is.

  A latent enters by a linear layer. From a table of embeddings and logits it
  differs in nothing else.
  """

  def __init__(
    self,
    num_tokens: int,
    channels: int,
    task_slots: int,
    num_classes: int,
    head: diffusion_head.HeadSize,
    size: attention.TransformerSize,
    *,
    rngs: nnx.Rngs,
  ):
    """Makes a model; `task_slots` 0 means one task and no task token."""
    check_heads("denoiser", size)
    self.latents = _dense(channels, size.width, rngs)
    super().__init__(num_tokens, task_slots, num_classes, size, rngs=rngs)
    self.head = diffusion_head.DiffusionHead(
      channels, size.width, head, rngs=rngs
    )

  def conditions(
    self,
    z_BNC: jax.Array,
    masked_BN: jax.Array,
    class_B: jax.Array,
    task_B: jax.Array,
    dropout_key: jax.Array | None = None,
  ) -> jax.Array:
    """What the head is told of every token, (B, N, D).

    The arguments are those of `features`, with latents for tokens.
    """
    dtype = self.mask.embedding.dtype
    tokens_BND = self.latents(z_BNC.astype(dtype))
    return self.features(tokens_BND, masked_BN, class_B, task_B, dropout_key)

  def denoise(
    self, x_t: jax.Array, time: jax.Array, condition: jax.Array
  ) -> jax.Array:
    """The head's output, as `DiffusionHead` says."""
    return self.head(x_t, time, condition)


def check_heads(section: str, size: attention.TransformerSize) -> None:
  """Raises ValueError unless the heads divide the width."""
  if size.width % size.num_heads:
    raise ValueError(
      f"{section}.width={size.width} must be a multiple of"
      f" {section}.num_heads={size.num_heads}"
    )


class Block(nnx.Module):
  """Self-attention and MLP, each added and then normalised (post-LN)."""

  def __init__(self, size: attention.TransformerSize, *, rngs: nnx.Rngs):
    width, mlp_width = size.width, size.mlp_width
    heads = (size.num_heads, width // size.num_heads)
    self.qkv = _dense(width, (3, *heads), rngs)
    self.out = _dense(heads, width, rngs, axis=(-2, -1))
    self.attention_norm = _layer_norm(width, rngs)
    self.mlp_in = _dense(width, mlp_width, rngs)
    self.mlp_out = _dense(mlp_width, width, rngs)
    self.mlp_norm = _layer_norm(width, rngs)
    self.size = size

  def __call__(
    self, x_BND: jax.Array, dropout_key: jax.Array | None
  ) -> jax.Array:
    keys = [None] * 3
    if dropout_key is not None:
      keys = jax.random.split(dropout_key, 3)
    qkv = attention.split_qkv(self.qkv(x_BND))
    y_BNAd = attention.attend_in_training(self.size, *qkv, None, keys[0])
    h_BND = attention.drop(self.size, self.out(y_BNAd), keys[1])
    x_BND = self.attention_norm(x_BND + h_BND)
    h_BND = self.mlp_out(jax.nn.gelu(self.mlp_in(x_BND)))
    return self.mlp_norm(x_BND + attention.drop(self.size, h_BND, keys[2]))


class Head(nnx.Module):
  """Dense, gelu, norm, then the tied embedding table and a bias."""

  def __init__(self, width: int, vocabulary: int, *, rngs: nnx.Rngs):
    self.dense = _dense(width, width, rngs)
    self.norm = _layer_norm(width, rngs)
    self.bias = nnx.Param(jnp.zeros(vocabulary))

  def __call__(self, x_BND: jax.Array, table_VD: jax.Array) -> jax.Array:
    h_BND = self.norm(jax.nn.gelu(self.dense(x_BND)))
    logits_BNV = jnp.einsum(
      "bnd,vd->bnv", h_BND, table_VD, preferred_element_type=jnp.float32
    )
    return logits_BNV + self.bias[None, None]


def _init():
  # Values are truncated at two standard deviations, as in BERT; `stddev` is
  # that of the untruncated distribution.
  return jax.nn.initializers.truncated_normal(stddev=0.02)


def _embed(rows: int, width: int, rngs: nnx.Rngs) -> nnx.Embed:
  return nnx.Embed(rows, width, embedding_init=_init(), rngs=rngs)


def _dense(
  cin, cout, rngs: nnx.Rngs, axis: int | tuple[int, ...] = -1
) -> nnx.LinearGeneral:
  """Linear layer; widths may be tuples, whose dimensions `axis` names."""
  return nnx.LinearGeneral(cin, cout, axis=axis, kernel_init=_init(), rngs=rngs)


def _layer_norm(width: int, rngs: nnx.Rngs) -> nnx.LayerNorm:
  return nnx.LayerNorm(width, epsilon=_LAYER_NORM_EPSILON, rngs=rngs)
