"""Tests of models/transformers/attention.py."""

import functools

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models import network
from models.transformers import attend
from models.transformers import attention
from tests import tiny


def _define(**changes):
  settings = {
    **dict(num_layers=3, width=8, mlp_width=16, num_heads=2, remat="off"),
    **changes,
  }
  size = attention.TransformerSize(**settings)
  return network.define(lambda rngs: attention.Stack(size, rngs=rngs))


@pytest.fixture(scope="module")
def params():
  return tiny.trained_like(_define())


@pytest.fixture(scope="module")
def tokens():
  return jax.random.normal(jax.random.key(2), (2, 5, 8))


def _dense(x, params):
  return x @ params["kernel"] + params["bias"]


def _norm(x, params):
  x = x - x.mean(-1, keepdims=True)
  x = x / np.sqrt(np.square(x).mean(-1, keepdims=True) + 1e-6)
  return x * params["scale"] + params["bias"]


def _gelu(x):
  return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def _brute_force_block(x, params, heads):
  """Computes the definition, one causal query at a time, in float64."""
  h = _norm(x, params["attention_norm"])
  y = np.zeros_like(x) + params["out"]["bias"]
  for b, n, a in np.ndindex(*x.shape[:2], heads):
    q, k, v = (
      h[b] @ params["qkv"]["kernel"][:, i, a] + params["qkv"]["bias"][i, a]
      for i in range(3)
    )
    weights = np.exp(k[: n + 1] @ q[n] / np.sqrt(q.shape[-1]))
    head = weights @ v[: n + 1] / weights.sum()
    y[b, n] += head @ params["out"]["kernel"][a]
  x = x + y
  h = _gelu(_dense(_norm(x, params["mlp_norm"]), params["mlp_in"]))
  return x + _dense(h, params["mlp_out"])


def test_a_stack_is_its_definition_layer_by_layer(params, tokens):
  run = jax.jit(lambda p, x: _define()(p, x, attend.Layout()))
  in_float64 = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
  x = np.asarray(tokens, np.float64)
  for layer in range(3):
    pick = functools.partial(np.take, indices=layer, axis=0)
    weights = jax.tree.map(pick, in_float64["layers"])
    x = _brute_force_block(x, weights, heads=2)
  expected = _norm(x, in_float64["norm"])
  np.testing.assert_allclose(run(params, tokens), expected, atol=1e-4)


def test_without_a_mask_every_token_reaches_every_other(params, tokens):
  jacobian = jax.jit(jax.jacobian(lambda x: _define()(params, x[None])[0]))
  reach_NN = np.abs(jacobian(tokens[0])).max((1, 3))
  assert (reach_NN > 0).all()


@pytest.mark.parametrize("remat", ["all", "dots"])
def test_remat_changes_no_gradient(params, tokens, remat):
  def gradient(remat):
    loss = lambda p: jnp.sin(_define(remat=remat)(p, tokens)).sum()
    return jax.jit(jax.grad(loss))(params)

  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
    gradient(remat),
    gradient("off"),
  )


def test_remat_saves_less_of_each_block(params, tokens):
  def saved(remat):
    run = lambda p: _define(remat=remat)(p, tokens)
    _, pullback = jax.eval_shape(lambda p: jax.vjp(run, p), params)
    return sum(x.size for x in jax.tree.leaves(pullback))

  assert saved("all") < saved("off") / 2
  assert saved("all") < saved("dots") < saved("off")
  with pytest.raises(ValueError, match="remat=True must be one of"):
    _define(remat=True)(params, tokens)


def test_dropout_follows_its_key_and_is_off_without_one(params, tokens):
  run = jax.jit(_define(dropout=0.5))
  first, again, other = (
    run(params, tokens, None, jax.random.key(k)) for k in (0, 0, 1)
  )
  np.testing.assert_array_equal(first, again)
  assert np.abs(first - other).max() > 1e-3
  without = jax.jit(_define())(params, tokens)
  np.testing.assert_array_equal(run(params, tokens), without)


def test_layers_one_by_one_are_the_loop(params, tokens):
  """Up to rounding: they are compiled in another order."""
  loss = lambda net: (
    lambda p: (net(p, tokens, attend.Layout(), jax.random.key(0)) ** 2).mean()
  )
  settings = dict(dropout=0.5, remat="dots")
  results = [
    jax.jit(jax.value_and_grad(loss(_define(**settings, unroll=unroll))))(
      params
    )
    for unroll in (False, True)
  ]
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
    *results,
  )


def test_gradients_of_a_table_are_sums_in_both_forms():
  """The product stands in for the sums on CUDA, where it is faster."""
  table = jax.random.normal(jax.random.key(0), (7, 4))
  ids = jnp.array([[0, 3, 3], [6, 0, 3]])
  g = jax.random.normal(jax.random.key(1), (2, 3, 4))
  expected = np.zeros((7, 4))
  for b, n in np.ndindex(2, 3):
    expected[ids[b, n]] += g[b, n]
  for gradient in (
    attention.table_gradient_as_product(table, g, ids),
    jax.vjp(lambda t: attention.look_up_rows(t, ids), table)[1](g)[0],
  ):
    np.testing.assert_allclose(gradient, expected, rtol=1e-6)


def test_softmax_is_in_float32(params, tokens):
  low = lambda tree: jax.tree.map(lambda a: a.astype(jnp.bfloat16), tree)
  jaxpr = str(jax.make_jaxpr(_define())(low(params), low(tokens)))
  exponentials = [line for line in jaxpr.splitlines() if "= exp " in line]
  assert exponentials
  assert all(":f32" in line for line in exponentials)


def test_heads_that_do_not_divide_the_width_are_refused():
  with pytest.raises(ValueError, match="width=8 .* num_heads=3"):
    attention.Block(attention.TransformerSize(1, 8, 16, 3), rngs=nnx.Rngs(0))
