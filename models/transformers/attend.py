"""Attention of queries to keys: one definition, and the forms it runs in.

plain   scores as one array, which a backward pass keeps; fastest where short
blocks  blocks of queries in turn, which a backward pass recomputes
kernel  kernels for CUDA and TPUs (cuda_attention.py, tpu_attention.py); blocks
        on CPUs, and for shapes that the kernels do not take; for a single query
        sums, which read a cache once

Results are the same to rounding, dropout included. No form but the plain one
ever keeps an array of N x N, whatever `remat` says.
"""

import dataclasses
import functools
import math

import jax
from jax import lax
from jax.ad_checkpoint import checkpoint_name
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec

from models import remat as remat_lib
from models.transformers import cuda_attention
from models.transformers import dropout as dropout_lib
from models.transformers import tpu_attention
from models.transformers.kernels import How

FORMS = ("auto", "plain", "blocks", "kernel")
_HEAD_AXIS = "tensor"  # mesh axis that splits heads; all others split the batch
_BLOCK = 256  # queries of a block
_SHORT = 512  # keys up to which "auto" takes the plain form on CPUs


@dataclasses.dataclass(frozen=True)
class Form:
  """How a network computes its attention; made by `choose`."""

  name: str = "plain"
  mesh: Mesh | None = None  # None: one device


@dataclasses.dataclass(frozen=True)
class Layout:
  """Which keys a query sees: those up to its place, and the prefix.

  start: place of the first query among the keys.
  prefix: number of leading keys that every query sees.
  block: number of tokens in a row that see each other, as those of a frame do;
    other than 1 it is not for kernels.
  """

  start: int | jax.Array = 0
  prefix: int | jax.Array = 0
  block: int = 1

  def seen(self, row: jax.Array, column: jax.Array) -> jax.Array:
    """bool: whether query `row` sees key `column`; both broadcast."""
    place, key = row + self.start, column
    if self.block > 1:
      place, key = place // self.block, key // self.block
    return (key <= place) | (column < self.prefix)


@dataclasses.dataclass(frozen=True)
class Drop:
  """Dropout of the weights of attention."""

  rate: float
  key: jax.Array
  bits: str = "hash"


def choose(
  field: str,
  platform: str,
  tokens: int,
  mesh: Mesh | None = None,
) -> Form:
  """The form of `transformer.attention` on a platform, like "cpu" or "gpu".

  Raises:
    ValueError: the field is unknown.
  """
  if field not in FORMS:
    raise ValueError(
      f"transformer.attention={field!r} must be one of {FORMS}; auto takes what"
      " was measured to be the fastest on the devices at hand"
    )
  if field == "auto":
    forms = {"gpu": "kernel", "cpu": "plain" if tokens <= _SHORT else "blocks"}
    field = forms.get(platform, "plain")
  if mesh is not None and mesh.size == 1:
    mesh = None
  return Form(field, mesh)


def attend(
  q_BNAd: jax.Array,
  k_BSAd: jax.Array,
  v_BSAd: jax.Array,
  layout: Layout | None = None,
  drop: Drop | None = None,
  form: Form = Form(),  # noqa: B008 - frozen
  bias_ANS: jax.Array | None = None,
) -> jax.Array:
  """Attention of N queries to S keys: (B, N, A, d), softmax in float32.

  Without a layout all queries see all keys. A bias is added to the scores. Bits
  of "threefry" cannot be drawn a block at a time, so they are drawn as before,
  in the plain form; so is a bias, which the kernels do not take.
  """
  if drop is not None and not drop.rate:
    drop = None
  threefry = drop is not None and drop.bits == "threefry"
  if form.name == "plain" or threefry or bias_ANS is not None:
    return _plain(q_BNAd, k_BSAd, v_BSAd, layout, drop, bias_ANS)
  if form.name == "kernel" and q_BNAd.shape[1] == 1 and drop is None:
    return _one_query(q_BNAd, k_BSAd, v_BSAd, layout)
  seeds, rate = jnp.zeros((*_heads(q_BNAd), 2), jnp.int32), 0.0
  if drop is not None:
    rate, seeds = drop.rate, dropout_lib.draw_seeds(drop.key, _heads(q_BNAd))
  alike = layout is None or isinstance(layout.start, int) and not layout.start
  alike = alike and (layout is None or layout.block == 1)
  kernel = form.name == "kernel" and alike and _divides(form, q_BNAd)
  if not kernel or not (
    cuda_attention.fits(q_BNAd, k_BSAd) and tpu_attention.fits(q_BNAd, k_BSAd)
  ):
    return _blocks(q_BNAd, k_BSAd, v_BSAd, layout, seeds, rate)
  prefix = jnp.zeros((), jnp.int32)
  if layout is not None:
    prefix = jnp.asarray(layout.prefix, jnp.int32)
  how = How(q_BNAd.shape[1], layout is not None, rate)
  run = functools.partial(_fused, how=how)
  if form.mesh is not None:
    run = _split(run, form.mesh)
  return run(q_BNAd, k_BSAd, v_BSAd, seeds, prefix)


def _heads(q_BNAd) -> tuple[int, int]:
  return q_BNAd.shape[0], q_BNAd.shape[2]


def _plain(q_BNAd, k_BSAd, v_BSAd, layout, drop: Drop | None, bias_ANS):
  scores_BANS = _scores(q_BNAd, k_BSAd, layout, 0)
  if bias_ANS is not None:
    scores_BANS += bias_ANS[None].astype(scores_BANS.dtype)
  p_BANS = jax.nn.softmax(scores_BANS)
  if drop is not None:
    p_BANS = dropout_lib.dropout(p_BANS, drop.rate, drop.key, drop.bits)
  return _gather(p_BANS, q_BNAd, v_BSAd)


def _scores(q_BNAd, k_BSAd, layout: Layout | None, first):
  """Scores of queries from number `first` on."""
  scores_BANS = jnp.einsum(
    "bqad,bkad->baqk", q_BNAd, k_BSAd, preferred_element_type=jnp.float32
  )
  scores_BANS /= q_BNAd.shape[-1] ** 0.5
  if layout is not None:
    rows, columns = scores_BANS.shape[-2:]
    row = first + lax.broadcasted_iota(jnp.int32, (rows, 1), 0)
    column = lax.broadcasted_iota(jnp.int32, (1, columns), 1)
    # Minus infinity, so that a hidden token weighs exactly 0.
    seen = layout.seen(row, column)
    scores_BANS = jnp.where(seen[None, None], scores_BANS, -jnp.inf)
  return scores_BANS


def _gather(p_BANS, q_BNAd, v_BSAd):
  p_BANS = p_BANS.astype(q_BNAd.dtype)
  return jnp.einsum("baqk,bkad->bqad", p_BANS, v_BSAd)


def _one_query(q_B1Ad, k_BSAd, v_BSAd, layout: Layout | None):
  """Attention of one query, by sums instead of products.

  A library's product may want keys and values in another order, and a cache
  would be copied for it with every token; sums are fused with what reads the
  cache.
  """
  wide = lambda x: x.astype(jnp.float32)
  scores_BSA1 = (wide(q_B1Ad) * wide(k_BSAd)).sum(-1, keepdims=True)
  scores_BSA1 /= q_B1Ad.shape[-1] ** 0.5
  if layout is not None:
    shape = (1, k_BSAd.shape[1], 1, 1)
    column = lax.broadcasted_iota(jnp.int32, shape, 1)
    seen = layout.seen(jnp.zeros_like(column), column)
    scores_BSA1 = jnp.where(seen, scores_BSA1, -jnp.inf)
  p_BSA1 = jax.nn.softmax(scores_BSA1, axis=1).astype(q_B1Ad.dtype)
  y_B1Ad = (wide(p_BSA1) * wide(v_BSAd)).sum(1, keepdims=True)
  return y_B1Ad.astype(q_B1Ad.dtype)


def _blocks(q_BNAd, k_BSAd, v_BSAd, layout, seeds, rate: float):
  """Blocks of queries in turn; the backward pass recomputes each one."""

  @functools.partial(jax.checkpoint, prevent_cse=False)
  def block(q_BMAd, first):
    p_BAMS = jax.nn.softmax(_scores(q_BMAd, k_BSAd, layout, first))
    if rate:
      rows, columns = p_BAMS.shape[-2:]
      row = first + lax.broadcasted_iota(jnp.int32, (rows, 1), 0)
      column = lax.broadcasted_iota(jnp.int32, (1, columns), 1)
      kept = dropout_lib.keep(seeds, row, column, columns, rate)
      p_BAMS = jnp.where(kept, p_BAMS * dropout_lib.scale(rate), 0.0)
    return _gather(p_BAMS, q_BMAd, v_BSAd)

  batch, tokens, heads, depth = q_BNAd.shape
  number = tokens // _BLOCK
  parts = []
  if number:
    whole = q_BNAd[:, : number * _BLOCK]
    whole = whole.reshape(batch, number, _BLOCK, heads, depth).swapaxes(0, 1)
    firsts = jnp.arange(number, dtype=jnp.int32) * _BLOCK
    y = lax.map(lambda part: block(*part), (whole, firsts)).swapaxes(0, 1)
    parts.append(y.reshape(batch, number * _BLOCK, heads, depth))
  if tokens % _BLOCK:
    parts.append(block(q_BNAd[:, number * _BLOCK :], number * _BLOCK))
  return parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _fused(q_BNAd, k_BNAd, v_BNAd, seeds, prefix, how: How):
  return _fused_forward(q_BNAd, k_BNAd, v_BNAd, seeds, prefix, how)[0]


def _fused_forward(q_BNAd, k_BNAd, v_BNAd, seeds, prefix, how):
  inputs = (q_BNAd, k_BNAd, v_BNAd, seeds, prefix)

  def on_cuda(q, k, v, seeds, prefix):
    return tuple(cuda_attention.forward(q, k, v, seeds, prefix[None], how))

  def without_sum(y):
    # The sum is read by the backward pass of CUDA's kernels alone.
    batch, tokens, heads, _ = y.shape
    return y, jnp.zeros((batch, heads, tokens))

  def on_tpu(q, k, v, seeds, prefix):
    return without_sum(tpu_attention.forward(q, k, v, seeds, prefix[None], how))

  def elsewhere(q, k, v, seeds, prefix):
    return without_sum(_as_blocks(how, q, k, v, seeds, prefix))

  o_BNAd, lse_BAN = lax.platform_dependent(
    *inputs, cuda=on_cuda, tpu=on_tpu, default=elsewhere
  )
  o_BNAd = checkpoint_name(o_BNAd, remat_lib.KEPT)
  lse_BAN = checkpoint_name(lse_BAN, remat_lib.KEPT)
  return o_BNAd, (*inputs, o_BNAd, lse_BAN)


def _fused_backward(how, kept, g_BNAd):
  def on_cuda(q, k, v, seeds, prefix, o, lse, g):
    return cuda_attention.backward(q, k, v, seeds, prefix[None], o, lse, g, how)

  def on_tpu(q, k, v, seeds, prefix, o, lse, g):
    return tpu_attention.backward(q, k, v, seeds, prefix[None], g, how)

  def elsewhere(q, k, v, seeds, prefix, o, lse, g):
    run = lambda q, k, v: _as_blocks(how, q, k, v, seeds, prefix)
    return jax.vjp(run, q, k, v)[1](g)

  gradients = lax.platform_dependent(
    *kept, g_BNAd, cuda=on_cuda, tpu=on_tpu, default=elsewhere
  )
  return *gradients, None, None


_fused.defvjp(_fused_forward, _fused_backward)


def _as_blocks(how, q_BNAd, k_BNAd, v_BNAd, seeds, prefix):
  layout = Layout(prefix=prefix) if how.causal else None
  return _blocks(q_BNAd, k_BNAd, v_BNAd, layout, seeds, how.rate)


def _divides(form: Form, q_BNAd) -> bool:
  """Whether the mesh splits batch and heads evenly, as `_split` needs it."""
  if form.mesh is None:
    return True
  parts = math.prod(form.mesh.shape[axis] for axis in _batch_axes(form.mesh))
  heads = form.mesh.shape[_HEAD_AXIS]
  return q_BNAd.shape[0] % parts == 0 and q_BNAd.shape[2] % heads == 0


def _batch_axes(mesh: Mesh) -> tuple[str, ...]:
  return tuple(axis for axis in mesh.axis_names if axis != _HEAD_AXIS)


def _split(run, mesh: Mesh):
  """Runs a kernel on each device's part of batch and heads."""
  batch, heads = _batch_axes(mesh), _HEAD_AXIS
  spec = PartitionSpec(batch, None, heads, None)
  return jax.shard_map(
    run,
    mesh=mesh,
    in_specs=(spec, spec, spec, PartitionSpec(batch, heads), PartitionSpec()),
    out_specs=spec,
    check_vma=False,
  )
