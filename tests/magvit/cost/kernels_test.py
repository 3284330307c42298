"""Tests of kernels of Pallas: blocks counted by the grid."""

import jax
from jax.experimental import pallas as pl
import jax.numpy as jnp

from magvit.cost import flops
from magvit.cost import kernels
from models.transformers import kernels as transformer_kernels
from models.transformers import tpu_attention


def _product(x, w):
  """A product of (16, 128) and (128, 384) in 2 x 3 blocks."""

  def body(x_ref, w_ref, y_ref):
    y_ref[...] = x_ref[...] @ w_ref[...]

  return pl.pallas_call(
    body,
    grid=(2, 3),
    in_specs=[
      pl.BlockSpec((8, 128), lambda i, j: (i, 0)),
      pl.BlockSpec((128, 128), lambda i, j: (0, j)),
    ],
    out_specs=pl.BlockSpec((8, 128), lambda i, j: (i, j)),
    out_shape=jax.ShapeDtypeStruct((16, 384), jnp.float32),
    interpret=True,
    name="product",
  )(x, w)


def _array(*shape, dtype=jnp.float32):
  return jax.ShapeDtypeStruct(shape, dtype)


def test_a_block_is_read_when_its_place_changes():
  text = jax.make_jaxpr(_product)(_array(16, 128), _array(128, 384)).jaxpr
  (kernel,) = kernels.find(text, "tpu").values()
  plain = flops.count(jnp.matmul, _array(16, 128), _array(128, 384))
  assert kernel.flops == plain == flops.count_in(text)
  # Rows of x stay for three steps; each step takes another block of w.
  assert kernel.operands == (2 * 8 * 128 * 4, 6 * 128 * 128 * 4)
  assert kernel.results == (6 * 8 * 128 * 4,)


def test_attention_reads_keys_once_a_head():
  tokens = _array(2, 300, 4, 64, dtype=jnp.bfloat16)
  seeds, prefix = _array(2, 4, 2, dtype=jnp.int32), _array(1, dtype=jnp.int32)
  how = transformer_kernels.How(300, causal=False, rate=0.1, interpret=True)
  text = jax.make_jaxpr(
    lambda q, k, v, s, p: tpu_attention.forward(q, k, v, s, p, how)
  )(tokens, tokens, tokens, seeds, prefix).jaxpr
  described = kernels.find(text, "tpu")
  ((name, shapes),) = described
  assert (name, shapes) == ("attention", ((2, 4, 64, 300),))
  kernel = described[name, shapes]
  heads, padded = 2 * 4, 384
  # Two blocks of 256 queries read the keys and values of 384 places once.
  whole, blocks = heads * 64 * padded * 2, heads * 2 * 64 * 256 * 2
  assert kernel.operands == (heads * 2 * 4, 4, blocks, whole, whole)
  assert kernel.results == (blocks,)
  assert kernel.flops == 2 * 2 * heads * 2 * 256 * padded * 64
