"""Attention as kernels for TPUs: scores and dropout masks stay on the chip.

All keys of a head fit on the chip, so that a block of queries sees them at
once: there is no running softmax, and a backward pass keeps nothing but
queries, keys and values. Arrays are (B, A, d, N), for tokens fill the lanes;
scores are (keys, queries), so that softmax reduces over sublanes. Masks of
dropout are those of models/transformers/dropout.py, which the other forms draw.

Lengths need not be multiples of a block: what is read past the end is not
defined, so that zeros take its place, and it is hidden.
"""

import functools
import math

import jax
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
import jax.numpy as jnp

from models.transformers import dropout as dropout_lib
from models.transformers.kernels import HIDDEN
from models.transformers.kernels import How

_LANES = 128  # smallest width of an array's last dimension on a chip
_HALF = dropout_lib.HALF
# Queries of a block: of 128, 256 and 384, the compiler's schedules for v5e take
# the fewest cycles a head with 384, and 256, 2 % behind, pads less.
BLOCK = 256
_MOST_KEYS = 4096  # scores of a block with more do not fit on every chip
_MEMORY = 64 * 2**20  # bytes on the chip that a kernel may take


def fits(q_BNAd: jax.Array, k_BNAd: jax.Array) -> bool:
  """Whether the kernels take these arrays."""
  return (
    q_BNAd.shape == k_BNAd.shape
    and q_BNAd.shape[1] <= _MOST_KEYS
    and q_BNAd.dtype in (jnp.bfloat16, jnp.float32)
  )


def forward(q_BNAd, k_BNAd, v_BNAd, seeds, prefix, how: How) -> jax.Array:
  """The output (B, N, A, d); seeds are int32 (B, A, 2), prefix (1,)."""
  arrays = [_arranged(x) for x in (q_BNAd, k_BNAd, v_BNAd)]
  like = arrays[0]
  o = pl.pallas_call(
    functools.partial(_forward, how=how),
    grid_spec=_grid(like, inputs="bww", outputs="b"),
    out_shape=jax.ShapeDtypeStruct(like.shape, like.dtype),
    compiler_params=_parameters(),
    interpret=how.interpret,
    name="attention",
  )(seeds.reshape(-1), prefix, *arrays)
  return _restored(o)


def backward(q_BNAd, k_BNAd, v_BNAd, seeds, prefix, g_BNAd, how: How):
  """Gradients of queries, keys and values, (B, N, A, d) each."""
  arrays = [_arranged(x) for x in (q_BNAd, k_BNAd, v_BNAd, g_BNAd)]
  like = arrays[0]
  sums = pltpu.VMEM((like.shape[2], _padded(how.tokens)), jnp.float32)
  gradients = pl.pallas_call(
    functools.partial(_backward, how=how),
    grid_spec=_grid(like, inputs="bwwb", outputs="bww", scratch=(sums, sums)),
    out_shape=[jax.ShapeDtypeStruct(like.shape, like.dtype)] * 3,
    compiler_params=_parameters(),
    interpret=how.interpret,
    name="attention_backward",
  )(seeds.reshape(-1), prefix, *arrays)
  return tuple(_restored(x) for x in gradients)


def _padded(tokens: int) -> int:
  return -(-tokens // _LANES) * _LANES


def _arranged(x: jax.Array) -> jax.Array:
  """(B, A, d, N) of (B, N, A, d)."""
  return x.transpose(0, 2, 3, 1)


def _restored(x_BAdN: jax.Array) -> jax.Array:
  return x_BAdN.transpose(0, 3, 1, 2)


def _load(ref, start, tokens: int) -> jax.Array:
  """(d, M) of tokens from `start` on; those past the end are 0."""
  x = ref[0, 0]
  if tokens % _LANES == 0:
    return x
  place = lax.broadcasted_iota(jnp.int32, x.shape, 1) + start
  return jnp.where(place < tokens, x, jnp.zeros_like(x))


def _grid(like_BAdN, inputs: str, outputs: str, scratch=()):
  """Grid over clips, heads and blocks of queries.

  Inputs and outputs are named by a letter each: "b" for the block of queries,
  "w" for the whole head.
  """
  batch, heads, depth, tokens = like_BAdN.shape
  padded = _padded(tokens)
  block = min(BLOCK, padded)
  specs = {
    "b": pl.BlockSpec((1, 1, depth, block), lambda b, a, i, *_: (b, a, 0, i)),
    "w": pl.BlockSpec((1, 1, depth, padded), lambda b, a, i, *_: (b, a, 0, 0)),
  }
  outs = [specs[kind] for kind in outputs]
  return pltpu.PrefetchScalarGridSpec(
    num_scalar_prefetch=2,
    grid=(batch, heads, pl.cdiv(tokens, block)),
    in_specs=[specs[kind] for kind in inputs],
    out_specs=outs if len(outs) > 1 else outs[0],
    scratch_shapes=scratch,
  )


def _parameters() -> pltpu.CompilerParams:
  return pltpu.CompilerParams(
    dimension_semantics=("parallel", "parallel", "arbitrary"),
    vmem_limit_bytes=_MEMORY,
  )


def _dot(a, b, contracted):
  return lax.dot_general(
    a, b, (contracted, ((), ())), preferred_element_type=jnp.float32
  )


def _exponentials(q_dM, k_dN, prefix_ref, how: How):
  """(exponentials of scores (N, M), one over their sums (1, M))."""
  depth, block = q_dM.shape
  scores = _dot(k_dN, q_dM, ((0,), (0,)))
  scores *= math.log2(math.e) / math.sqrt(depth)
  column = lax.broadcasted_iota(jnp.int32, scores.shape, 0)
  seen = column < how.tokens
  if how.causal:
    row = lax.broadcasted_iota(jnp.int32, scores.shape, 1)
    row += pl.program_id(2) * block
    seen &= (column <= row) | (column < prefix_ref[0])
  if how.causal or how.tokens < scores.shape[0]:
    scores = jnp.where(seen, scores, HIDDEN)
  exponentials = jnp.exp2(scores - scores.max(0, keepdims=True))
  return exponentials, 1.0 / exponentials.sum(0, keepdims=True)


def _kept(seed_ref, shape, how: How):
  """bool (N, M): whether weights are kept; None without dropout."""
  if not how.rate:
    return None
  columns, block = shape
  mask = pl.program_id(0) * pl.num_programs(1) + pl.program_id(1)
  seeds = seed_ref[2 * mask], seed_ref[2 * mask + 1]
  words = (columns // 2, block)
  row = lax.broadcasted_iota(jnp.int32, words, 1) + pl.program_id(2) * block
  lane = lax.broadcasted_iota(jnp.int32, words, 0)
  position = row * dropout_lib.words_of_row(how.tokens) + lane
  words = dropout_lib.hash_words(*seeds, position).reshape(-1, _HALF, block)
  halves = [words & 0xFFFF, lax.shift_right_logical(words, words * 0 + 16)]
  bits = jnp.stack(halves, axis=1).reshape(shape)
  return bits >= dropout_lib.threshold(how.rate)


def _drop(x, kept):
  """What is kept is not scaled: sums are, once, at the end."""
  return x if kept is None else jnp.where(kept, x, 0.0)


def _forward(seed_ref, prefix_ref, q_ref, k_ref, v_ref, o_ref, *, how: How):
  # Queries past the end give outputs that are not stored.
  q, k, v = (
    q_ref[0, 0],
    _load(k_ref, 0, how.tokens),
    _load(v_ref, 0, how.tokens),
  )
  weights, share = _exponentials(q, k, prefix_ref, how)
  weights = _drop(weights, _kept(seed_ref, weights.shape, how))
  o = _dot(v, weights.astype(v.dtype), ((1,), (0,)))
  o *= share * dropout_lib.scale(how.rate)
  o_ref[0, 0] = o.astype(o_ref.dtype)


def _backward(
  seed_ref,
  prefix_ref,
  q_ref,
  k_ref,
  v_ref,
  g_ref,
  dq_ref,
  dk_ref,
  dv_ref,
  dk_sum,
  dv_sum,
  *,
  how: How,
):
  start = pl.program_id(2) * q_ref.shape[3]
  q, g = (_load(ref, start, how.tokens) for ref in (q_ref, g_ref))
  k, v = (_load(ref, 0, how.tokens) for ref in (k_ref, v_ref))
  weights, share = _exponentials(q, k, prefix_ref, how)
  weights *= share
  kept = _kept(seed_ref, weights.shape, how)
  into = _drop(_dot(v, g, ((0,), (0,))), kept)
  total = (weights * into).sum(0, keepdims=True)
  scores = (weights * (into - total)).astype(q.dtype)
  dropped = _drop(weights, kept).astype(q.dtype)

  @pl.when(pl.program_id(2) == 0)
  def _():
    dk_sum[...] = jnp.zeros_like(dk_sum)
    dv_sum[...] = jnp.zeros_like(dv_sum)

  scale = dropout_lib.scale(how.rate)
  of_scores = scale / math.sqrt(q.shape[0])
  dq = _dot(k, scores, ((1,), (0,))) * of_scores
  dq_ref[0, 0] = dq.astype(dq_ref.dtype)
  dk_sum[...] += _dot(q, scores, ((1,), (1,)))
  dv_sum[...] += _dot(g, dropped, ((1,), (1,)))

  @pl.when(pl.program_id(2) == pl.num_programs(2) - 1)
  def _():
    dk_ref[0, 0] = (dk_sum[...] * of_scores).astype(dk_ref.dtype)
    dv_ref[0, 0] = (dv_sum[...] * scale).astype(dv_ref.dtype)
