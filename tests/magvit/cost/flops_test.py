"""Tests of counting operations: closed forms."""

import jax
from jax import lax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
import pytest

from magvit import mesh as mesh_lib
from magvit.cost import flops
from magvit.generators import masked
from models.tokenizer import convolution_forms
from tests import tiny


def _array(*shape):
  return jax.ShapeDtypeStruct(shape, jnp.float32)


def test_products_of_matrices():
  product = lambda a, b: jnp.einsum("bij,bjk->bik", a, b)
  assert flops.count(product, _array(2, 3, 5), _array(2, 5, 7)) == (
    2 * 2 * 3 * 5 * 7
  )
  loss = lambda a, b: jnp.square(product(a, b)).sum()
  gradient = jax.grad(loss, argnums=(0, 1))
  forward = 2 * 2 * 3 * 5 * 7
  assert flops.count(gradient, _array(2, 3, 5), _array(2, 5, 7)) == 3 * forward


def test_a_loop_counts_as_often_as_it_runs_and_a_branch_if_dearest():
  def loop(x, w):
    return lax.scan(lambda x, _: (x @ w, None), x, None, length=11)[0]

  once = 2 * 4 * 6 * 6
  assert flops.count(loop, _array(4, 6), _array(6, 6)) == 11 * once
  branch = lambda flag, x, w: lax.cond(flag, lambda: x @ w @ w, lambda: x @ w)
  flag = jax.ShapeDtypeStruct((), jnp.bool_)
  arguments = (flag, _array(4, 6), _array(6, 6))
  assert flops.count(branch, *arguments) == 2 * once
  assert flops.count(branch, *arguments, branch=min) == once


def test_a_form_for_one_platform_does_not_count():
  f = lambda x, w: lax.platform_dependent(
    x, w, cpu=lambda x, w: x @ w @ w, default=lambda x, w: x @ w
  )
  once = 2 * 4 * 6 * 6
  assert flops.count(f, _array(4, 6), _array(6, 6)) == once
  assert flops.count(f, _array(4, 6), _array(6, 6), platform="cpu") == 2 * once
  assert flops.count(f, _array(4, 6), _array(6, 6), platform="tpu") == once


def test_a_loop_up_to_a_constant_counts_as_if_from_the_start():
  f = lambda start, x, w: lax.fori_loop(start, 9, lambda _, x: x @ w, x)
  start = jax.ShapeDtypeStruct((), jnp.int32)
  once = 2 * 4 * 6 * 6
  assert flops.count(f, start, _array(4, 6), _array(6, 6)) == 9 * once
  from_four = lambda x, w: lax.while_loop(
    lambda c: c[0] < 9, lambda c: (c[0] + 1, c[1] @ w), (4, x)
  )
  assert flops.count(from_four, _array(4, 6), _array(6, 6)) == 5 * once
  unknown = lambda end, x, w: lax.fori_loop(0, end, lambda _, x: x @ w, x)
  assert flops.count(unknown, start, _array(4, 6), _array(6, 6)) == once


def test_what_each_device_of_a_mesh_computes_counts_for_each():
  mesh = mesh_lib.data_mesh(jax.devices())
  split, whole = PartitionSpec("data"), PartitionSpec()
  product = lambda x, w: x @ w
  f = jax.shard_map(
    product, mesh=mesh, in_specs=(split, whole), out_specs=split
  )
  x, w = _array(16, 6), _array(6, 6)
  assert flops.count(f, x, w) == flops.count(product, x, w)


@pytest.mark.parametrize("strides", [(1, 1, 1), (2, 2, 2)])
def test_convolutions_and_their_gradients(strides):
  conv = lambda x, k: convolution_forms.conv_native(x, k, strides)
  x, kernel = _array(1, 9, 11, 13, 4), _array(3, 3, 3, 4, 8)
  t, h, w = (
    (n - 3) // s + 1 for n, s in zip((9, 11, 13), strides, strict=True)
  )
  forward = 2 * t * h * w * 8 * 27 * 4
  assert flops.count(conv, x, kernel) == forward
  assert (
    flops.count(
      lambda x, k: convolution_forms.conv_as_taps(x, k, strides), x, kernel
    )
    == forward
  )
  loss = lambda k, x: jnp.square(conv(x, k)).sum()
  assert flops.count(jax.grad(loss), kernel, x) == 2 * forward


def test_recomputing_costs_a_forward_pass_more(tiny_tokenizer_workdir):
  def count(remat):
    config = tiny.masked(tiny_tokenizer_workdir)
    config.transformer.remat = remat
    net = masked.define_transformer(config, 192)
    params = jax.eval_shape(net.init, jax.random.key(0))
    int32 = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.int32)
    inputs = (int32(8, 192, 2), int32(8, 192), int32(8), int32(8))

    def loss(params, parts, hidden, label, task):
      logits = net(params, parts, hidden > 0, label, task)
      return sum(jnp.square(x).mean() for x in logits)

    return flops.count(jax.grad(loss), params, *inputs)

  # The layers' three passes become four; the heads, outside, stay at three.
  assert 1.2 < count("all") / count("off") < 4 / 3


def test_products_that_no_result_reads_do_not_count():
  def both(x, w):
    loss = lambda x, w: jnp.square(x @ w).sum()
    return jax.grad(loss, argnums=(0, 1))(x, w)[1]

  once = 2 * 4 * 6 * 6
  assert flops.count(both, _array(4, 6), _array(6, 6)) == 2 * once
  loop = lambda x, w: lax.scan(lambda x, _: (x, x @ w), x, None, length=3)[0]
  assert flops.count(loop, _array(4, 6), _array(6, 6)) == 0
