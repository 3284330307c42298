"""Decoder-only transformer over the tokens of a clip, with a cache.

It is the AR-LM baseline of MAGVIT-v2 (arXiv 2310.05737, UCF-101), whose 840M
parameters are 24 layers of width 1024 with an input and an output table of 2^18
rows each; and, with `prefix_attention="bidirectional"`, the prefix-LM of
VideoPoet (arXiv 2312.14125) on visual tokens.

The sequence of S positions is [bos] [class token], then the N tokens of the
clip in (t, h, w) raster order, without the last. Position n + 1 predicts token
n. Class `num_classes` means "no class". All ids are non-negative. If only the
first M tokens are known, so are the first P = 2 + M positions.

A token of several sub-tokens enters as the sum of their embeddings. It leaves
by the chain rule: sub-token f is predicted from the past and from the
sub-tokens before f of the same token, whose embeddings are added to the
features. The sum of the heads' log-probabilities is thus exactly that of the
token. With heads that see only the past, like the masked model's, it would not
be: they would draw sub-tokens that never occur together, which no later step
repairs.
"""

from collections.abc import Sequence

from flax import nnx
import jax
import jax.numpy as jnp

from models.transformers import attend
from models.transformers import attention

_PREFIX_ATTENTION = ("causal", "bidirectional")
_PREFIX = 2  # positions of [bos] and [class token]


class ArTransformer(nnx.Module):
  """Predicts logits of the next token from the tokens so far and a class."""

  def __init__(
    self,
    num_tokens: int,
    num_classes: int,
    factor_bits: Sequence[int],
    tie_embeddings: bool,
    prefix_attention: str,
    size: attention.TransformerSize,
    *,
    rngs: nnx.Rngs,
  ):
    """Takes settings as in configs/base.py, and the number of tokens of a clip.

    Raises:
      ValueError: prefix_attention is unknown, or the heads do not divide the
        width.
    """
    if prefix_attention not in _PREFIX_ATTENTION:
      raise ValueError(
        f"transformer.prefix_attention={prefix_attention!r} must be one of"
        f" {_PREFIX_ATTENTION}"
      )
    embed = lambda rows: nnx.Embed(
      rows,
      size.width,
      embedding_init=jax.nn.initializers.truncated_normal(stddev=0.02),
      rngs=rngs,
    )
    tables = lambda: nnx.List([embed(2**bits) for bits in factor_bits])
    self.factors = tables()
    self.outputs = None if tie_embeddings else tables()
    self.bos = embed(1)
    self.classes = embed(num_classes + 1)
    self.length = _PREFIX + num_tokens - 1  # S
    self.positions = embed(self.length)
    self.stack = attention.Stack(size, rngs=rngs)
    self.prefix_attention = prefix_attention
    self.size = size

  def __call__(
    self,
    parts_BNF: jax.Array,
    class_B: jax.Array,
    given: int | jax.Array = 0,
    dropout_key: jax.Array | None = None,
  ) -> list[jax.Array]:
    """Logits (B, N, 2^bits) of each sub-token of each token, float32.

    Args:
      parts_BNF: int32 sub-tokens. No logit depends on a later token, nor on its
        own or a later sub-token of the same token.
      class_B: int32 in 0..num_classes.
      given: number of leading tokens of the clip, below N, that are the
        condition: with [bos] and [class token] they are the prefix. Logits of
        given tokens mean nothing where the prefix attends to itself both ways.
      dropout_key: draws the dropout of training; None for inference.
    """
    x_BND = self.features(parts_BNF, class_B, given, dropout_key)
    return [
      self.logits(x_BND, parts_BNF[..., :f]) for f in range(len(self.factors))
    ]

  def features(
    self,
    parts_BNF: jax.Array,
    class_B: jax.Array,
    given: int | jax.Array = 0,
    dropout_key: jax.Array | None = None,
  ) -> jax.Array:
    """Features (B, N, D) for `logits` of each token; arguments as of a call."""
    keys = [None] * 2
    if dropout_key is not None:
      keys = jax.random.split(dropout_key)
    x_BSD = self._embed_sequence(parts_BNF[:, :-1], class_B)
    x_BSD = attention.drop(self.size, x_BSD, keys[0])
    x_BSD = self.stack(x_BSD, self._layout(given), keys[1])
    return x_BSD[:, _PREFIX - 1 :]

  def depths(self, parts_BNF: jax.Array, class_B: jax.Array) -> jax.Array:
    """Means over the tokens of whole clips by depth, float32 (B, L + 1, D).

    The last token, which no position of the sequence has seen, is left out.
    """
    x_BSD = self._embed_sequence(parts_BNF[:, :-1], class_B)
    layout = self._layout(0)
    return attention.means_by_depth(
      lambda x_BSD, block: block(x_BSD, layout),
      x_BSD,
      self.stack.layers,
      _PREFIX,
    )

  def logits(self, x_BND: jax.Array, earlier_BNf: jax.Array) -> jax.Array:
    """Logits (B, N, V) of sub-token f, given the f before it; float32."""
    f = earlier_BNf.shape[-1]
    output = (self.outputs or self.factors)[f]
    h_BND = x_BND + self._embed_parts(earlier_BNf)
    return jnp.einsum(
      "bnd,vd->bnv",
      h_BND,
      output.embedding[...],
      preferred_element_type=jnp.float32,
    )

  def start(
    self, parts_BMF: jax.Array, class_B: jax.Array, given: int | jax.Array
  ) -> attention.Cache:
    """Makes a cache that holds the prefix.

    `parts_BMF` begins with the given tokens, and those after them are ignored:
    M is static and at least `given`.
    """
    x_BPD = self._embed_sequence(parts_BMF, class_B)
    cache = self.stack.empty_cache(class_B.shape[0], self.length)
    return self.stack.extend(x_BPD, cache, self._layout(given))[1]

  def step(
    self,
    previous_BF: jax.Array,
    class_B: jax.Array,
    n: int | jax.Array,
    cache: attention.Cache,
  ) -> tuple[jax.Array, attention.Cache]:
    """Features (B, 1, D) of token n, and the cache with token n - 1.

    `n` is at least `given`, and the cache holds the tokens before n - 1.
    `previous_BF` is token n - 1; ignored for token 0, which follows the class.
    """
    x_BD = jnp.where(
      n == 0,
      attention.look_up(self.classes, class_B),
      self._embed_parts(previous_BF),
    )
    position = n + _PREFIX - 1
    x_B1D = (x_BD + self.positions.embedding[position][None])[:, None]
    # Nothing follows yet, so this also fits the last position of the prefix.
    return self.stack.extend(x_B1D, cache, attend.Layout(start=position))

  def _embed_sequence(self, parts_BMF, class_B):
    bos_D = self.bos.embedding[0]
    class_BD = attention.look_up(self.classes, class_B)
    tokens_BMD = self._embed_parts(parts_BMF)
    prefix_B2D = jnp.stack(
      [jnp.broadcast_to(bos_D, class_BD.shape), class_BD], axis=1
    )
    x_BPD = jnp.concatenate([prefix_B2D, tokens_BMD], axis=1)
    return x_BPD + self.positions.embedding[None, : x_BPD.shape[1]]

  def _embed_parts(self, parts):
    """Sum (..., D) of the embeddings of f sub-tokens (..., f); 0 for none."""
    width, dtype = self.positions.features, self.positions.embedding.dtype
    x = jnp.zeros((*parts.shape[:-1], width), dtype)
    for f in range(parts.shape[-1]):
      x += attention.look_up(self.factors[f], parts[..., f])
    return x

  def _layout(self, given) -> attend.Layout:
    if self.prefix_attention == "bidirectional":
      return attend.Layout(prefix=_PREFIX + given)
    return attend.Layout()
