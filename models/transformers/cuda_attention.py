"""Attention as kernels for CUDA: scores and dropout masks stay on the chip.

FlashAttention-2 (arXiv 2307.08691) with two differences. Masks of dropout are
those of models/transformers/dropout.py, so that the other forms draw the same;
and the gradients of queries and of keys are two kernels, because sums by many
blocks into one array would differ from run to run.

Lengths need not be multiples of a block: loads and stores are masked. Keys come
in pairs of HALF columns, which share the words of their random bits.
"""

import dataclasses
import functools
import math

import jax
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu
import jax.numpy as jnp

from models.transformers import dropout as dropout_lib
from models.transformers.kernels import HIDDEN
from models.transformers.kernels import How

_HALF = dropout_lib.HALF
_LARGEST_DEPTH = 128  # channels of a head


@dataclasses.dataclass(frozen=True)
class Tiles:
  """Queries of a block, warps and stages of each kernel.

  These were the fastest on an H100 (`attention` of benchmarks/accelerator.py).
  """

  forward: tuple[int, int, int] = (64, 4, 2)
  keys: tuple[int, int, int] = (64, 4, 3)
  queries: tuple[int, int, int] = (64, 4, 3)


def fits(q_BNAd: jax.Array, k_BNAd: jax.Array) -> bool:
  """Whether the kernels take these arrays."""
  return (
    q_BNAd.shape == k_BNAd.shape
    and q_BNAd.shape[-1] <= _LARGEST_DEPTH
    and q_BNAd.dtype in (jnp.bfloat16, jnp.float16, jnp.float32)
  )


def forward(
  q_BNAd, k_BNAd, v_BNAd, seeds, prefix, how: How, tiles: Tiles = Tiles()
):
  """(output, log2 of the sum of exponentials (B, A, N) in float32)."""
  block, warps, stages = tiles.forward
  batch, tokens, heads, depth = q_BNAd.shape
  padded = pl.next_power_of_2(depth)
  whole, few, row = _specs(tokens, padded)
  return pl.pallas_call(
    functools.partial(_forward, how=how, depth=depth, block=block),
    grid=(pl.cdiv(tokens, block), heads, batch),
    in_specs=[few, _prefix_spec(), whole, whole, whole],
    out_specs=[whole, row],
    out_shape=[
      jax.ShapeDtypeStruct(q_BNAd.shape, q_BNAd.dtype),
      jax.ShapeDtypeStruct((batch, heads, tokens), jnp.float32),
    ],
    compiler_params=plgpu.CompilerParams(num_warps=warps, num_stages=stages),
    interpret=how.interpret,
    name="attention",
  )(seeds, prefix, q_BNAd, k_BNAd, v_BNAd)


def backward(
  q_BNAd,
  k_BNAd,
  v_BNAd,
  seeds,
  prefix,
  o_BNAd,
  lse_BAN,
  g,
  how: How,
  tiles: Tiles = Tiles(),
):
  """Gradients of queries, keys and values."""
  batch, tokens, heads, depth = q_BNAd.shape
  padded = pl.next_power_of_2(depth)
  whole, few, row = _specs(tokens, padded)
  delta_BAN = jnp.einsum(
    "bnad,bnad->ban", o_BNAd, g, preferred_element_type=jnp.float32
  )
  delta_BAN /= dropout_lib.scale(how.rate)  # the kernels scale the sums
  like = jax.ShapeDtypeStruct(q_BNAd.shape, q_BNAd.dtype)

  def call(kernel, tile, parts, outputs, name):
    block, warps, stages = tile
    return pl.pallas_call(
      functools.partial(kernel, how=how, depth=depth, block=block),
      grid=(parts(block), heads, batch),
      in_specs=[few, _prefix_spec(), *([whole] * 4), row, row],
      out_specs=[whole] * outputs,
      out_shape=[like] * outputs,
      compiler_params=plgpu.CompilerParams(num_warps=warps, num_stages=stages),
      interpret=how.interpret,
      name=name,
    )(seeds, prefix, q_BNAd, k_BNAd, v_BNAd, g, lse_BAN, delta_BAN)

  by_queries = lambda block: pl.cdiv(tokens, block)
  by_keys = lambda block: pl.cdiv(tokens, _HALF)
  (dq,) = call(_queries, tiles.queries, by_queries, 1, "attention_of_queries")
  dk, dv = call(_keys, tiles.keys, by_keys, 2, "attention_of_keys")
  return dq, dk, dv


def _specs(tokens: int, depth: int):
  """Specs of (B, N, A, d), of seeds (B, A, 2) and of (B, A, N): one head."""
  whole = pl.BlockSpec(
    (None, tokens, None, depth), lambda i, a, b: (b, 0, a, 0)
  )
  few = pl.BlockSpec((None, None, 2), lambda i, a, b: (b, a, 0))
  row = pl.BlockSpec((None, None, tokens), lambda i, a, b: (b, a, 0))
  return whole, few, row


def _prefix_spec():
  return pl.BlockSpec((1,), lambda i, a, b: (0,))


def _load(ref, start, size: int, tokens: int, depth: int):
  """Rows of one head; those past the end, and padded channels, are 0."""
  inside = (start + jnp.arange(size) < tokens)[:, None]
  if ref.shape[-1] != depth:
    inside &= (jnp.arange(ref.shape[-1]) < depth)[None]
  return plgpu.load(ref.at[pl.ds(start, size), :], mask=inside, other=0.0)


def _store(ref, start, x, tokens: int, depth: int) -> None:
  inside = (start + jnp.arange(x.shape[0]) < tokens)[:, None]
  if ref.shape[-1] != depth:
    inside &= (jnp.arange(ref.shape[-1]) < depth)[None]
  at = ref.at[pl.ds(start, x.shape[0]), :]
  plgpu.store(at, x.astype(ref.dtype), mask=inside)


def _load_row(ref, start, size: int, tokens: int):
  inside = start + jnp.arange(size) < tokens
  return plgpu.load(ref.at[pl.ds(start, size)], mask=inside, other=0.0)


def _dot(a, b, contracted):
  return lax.dot_general(
    a, b, (contracted, ((), ())), preferred_element_type=jnp.float32
  )


def _scores(a, b, rows, columns, prefix, how: How, depth: int, tail: bool):
  """Scores of a x b^T in base 2; those of hidden keys are HIDDEN.

  `rows` and `columns` are numbers of queries and keys, which broadcast to the
  scores' shape. Keys past the end are in a `tail` alone.
  """
  scores = _dot(a, b, ((1,), (1,))) * (math.log2(math.e) / math.sqrt(depth))
  if tail:
    scores = jnp.where(columns < how.tokens, scores, HIDDEN)
  if how.causal:
    seen = (columns <= rows) | (columns < prefix)
    scores = jnp.where(seen, scores, HIDDEN)
  return scores


def _words(seed_ref, rows, lanes, how: How):
  """Random words of dropout; None without dropout."""
  if not how.rate:
    return None
  seeds = seed_ref[0], seed_ref[1]
  row_words = dropout_lib.words_of_row(how.tokens)
  return dropout_lib.hash_words(*seeds, rows * row_words + lanes)


def _drop(x, words, half, how: How):
  """Drops elements of x, which belong to one half of the words' columns.

  What is kept is not scaled: sums are, once, at the end.
  """
  if words is None:
    return x
  if isinstance(half, int):
    bits = lax.shift_right_logical(words, 16) if half else words & 0xFFFF
  else:
    shift = jnp.full_like(words, 0) + 16 * half
    bits = lax.shift_right_logical(words, shift) & 0xFFFF
  return jnp.where(bits >= dropout_lib.threshold(how.rate), x, 0.0)


def _queries_of_block(block: int):
  """(number of the first query, numbers of all (M, 1))."""
  start = pl.program_id(0) * block
  return start, (start + jnp.arange(block))[:, None]


def _over_keys(visit, start, rows, seed_ref, prefix, how: How):
  """Folds `visit` over the blocks of keys that queries see, in pairs.

  Args:
    visit: function (carry, number of the first key, drop, tail) -> carry, where
      `drop` drops elements of scores (M, HALF), as `_drop`, and keys past the
      end are in a `tail` alone.
    start: the first carry.
    rows: numbers of the queries (M, 1).
    seed_ref: two words of a seed.
    prefix: number of keys that all see.
    how: the kernel's facts.
  """
  lane = jnp.arange(_HALF)[None]
  whole, rest = divmod(how.tokens, 2 * _HALF)

  def pair(j, carry, halves, tail):
    words = _words(seed_ref, rows, j * _HALF + lane, how)
    for half in halves:
      drop = functools.partial(_drop, words=words, half=half, how=how)
      carry = visit(carry, (2 * j + half) * _HALF, drop, tail)
    return carry

  seen = whole
  if how.causal:
    last = pl.program_id(0) * len(rows) + len(rows) - 1
    reach = jnp.maximum(last + 1, prefix) + 2 * _HALF - 1
    seen = jnp.minimum(lax.div(reach, 2 * _HALF), whole)
  pairs = functools.partial(pair, halves=range(2), tail=False)
  carry = lax.fori_loop(0, seen, pairs, start)
  if not rest:
    return carry
  # A place known to the compiler may not lie past the end. Where the tail is
  # hidden from all, it adds weights of 0.
  at = whole + 0 * pl.program_id(0)
  return pair(at, carry, halves=range(pl.cdiv(rest, _HALF)), tail=True)


def _forward(
  seed_ref,
  prefix_ref,
  q_ref,
  k_ref,
  v_ref,
  o_ref,
  lse_ref,
  *,
  how,
  depth,
  block,
):
  start, rows = _queries_of_block(block)
  prefix = prefix_ref[0]
  lane = jnp.arange(_HALF)[None]
  q = _load(q_ref, start, block, how.tokens, depth)

  def visit(carry, first, drop, tail):
    o, highest, total = carry
    k = _load(k_ref, first, _HALF, how.tokens, depth)
    scores = _scores(q, k, rows, first + lane, prefix, how, depth, tail)
    now = jnp.maximum(highest, scores.max(1))
    p = jnp.exp2(scores - now[:, None])
    shrink = jnp.exp2(highest - now)
    total = total * shrink + p.sum(1)
    v = _load(v_ref, first, _HALF, how.tokens, depth)
    o = o * shrink[:, None] + _dot(drop(p).astype(v.dtype), v, ((1,), (0,)))
    return o, now, total

  o = jnp.zeros((block, q.shape[-1]), jnp.float32)
  highest = jnp.full((block,), HIDDEN, jnp.float32)
  zeros = jnp.zeros((block,), jnp.float32)
  o, highest, total = _over_keys(
    visit, (o, highest, zeros), rows, seed_ref, prefix, how
  )
  scale = dropout_lib.scale(how.rate)
  _store(o_ref, start, o * (scale / total)[:, None], how.tokens, depth)
  plgpu.store(
    lse_ref.at[pl.ds(start, block)],
    highest + jnp.log2(total),
    mask=start + jnp.arange(block) < how.tokens,
  )


def _queries(
  seed_ref,
  prefix_ref,
  q_ref,
  k_ref,
  v_ref,
  g_ref,
  lse_ref,
  delta_ref,
  dq_ref,
  *,
  how,
  depth,
  block,
):
  """Gradient of a block of queries, over all keys that they see."""
  start, rows = _queries_of_block(block)
  prefix = prefix_ref[0]
  lane = jnp.arange(_HALF)[None]
  q = _load(q_ref, start, block, how.tokens, depth)
  g = _load(g_ref, start, block, how.tokens, depth)
  lse = _load_row(lse_ref, start, block, how.tokens)[:, None]
  delta = _load_row(delta_ref, start, block, how.tokens)[:, None]

  def visit(dq, first, drop, tail):
    k = _load(k_ref, first, _HALF, how.tokens, depth)
    v = _load(v_ref, first, _HALF, how.tokens, depth)
    scores = _scores(q, k, rows, first + lane, prefix, how, depth, tail)
    p = jnp.exp2(scores - lse)
    dp = drop(_dot(g, v, ((1,), (1,))))
    return dq + _dot((p * (dp - delta)).astype(k.dtype), k, ((1,), (0,)))

  dq = jnp.zeros((block, q.shape[-1]), jnp.float32)
  dq = _over_keys(visit, dq, rows, seed_ref, prefix, how)
  scale = dropout_lib.scale(how.rate) / math.sqrt(depth)
  _store(dq_ref, start, dq * scale, how.tokens, depth)


def _keys(
  seed_ref,
  prefix_ref,
  q_ref,
  k_ref,
  v_ref,
  g_ref,
  lse_ref,
  delta_ref,
  dk_ref,
  dv_ref,
  *,
  how,
  depth,
  block,
):
  """Gradients of a block of keys, over all queries that see them.

  Scores are (keys, queries), so that no product needs one transposed. A block
  is one half of a pair: sums of both halves do not fit into the registers.
  """
  number = pl.program_id(0)
  first = number * _HALF
  prefix = prefix_ref[0]
  lane = jnp.arange(_HALF)[:, None]
  k, v = (_load(ref, first, _HALF, how.tokens, depth) for ref in (k_ref, v_ref))

  def queries(i, carry):
    dk, dv = carry
    start = i * block
    rows = (start + jnp.arange(block))[None]
    q = _load(q_ref, start, block, how.tokens, depth)
    g = _load(g_ref, start, block, how.tokens, depth)
    lse = _load_row(lse_ref, start, block, how.tokens)[None]
    delta = _load_row(delta_ref, start, block, how.tokens)[None]
    lanes = lax.div(number, 2) * _HALF + lane
    words = _words(seed_ref, rows, lanes, how)
    half = lax.rem(number, 2)
    # Keys past the end have gradients of their own, which are not stored.
    scores = _scores(k, q, rows, first + lane, prefix, how, depth, False)
    p = jnp.exp2(scores - lse)
    dropped = _drop(p, words, half, how).astype(g.dtype)
    dv += _dot(dropped, g, ((1,), (0,)))
    dp = _drop(_dot(v, g, ((1,), (1,))), words, half, how)
    dk += _dot((p * (dp - delta)).astype(q.dtype), q, ((1,), (0,)))
    return dk, dv

  first_block = 0
  if how.causal:
    first_block = jnp.where(first < prefix, 0, lax.div(first, block))
  zeros = jnp.zeros((_HALF, k.shape[-1]), jnp.float32)
  dk, dv = lax.fori_loop(
    first_block, pl.cdiv(how.tokens, block), queries, (zeros, zeros)
  )
  scale = dropout_lib.scale(how.rate)
  _store(dk_ref, first, dk * (scale / math.sqrt(depth)), how.tokens, depth)
  _store(dv_ref, first, dv * scale, how.tokens, depth)
