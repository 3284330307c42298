"""Tests of models/transformers/masked.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models import network
from models import settings as settings_lib
from models.transformers import attend
from models.transformers import attention
from models.transformers import masked as masked_transformer
from tests import tiny

_LARGE = dict(
  num_tokens=1280,
  task_slots=0,
  num_classes=101,
  factor_bits=(9, 9),
  num_layers=24,
  width=1024,
  mlp_width=4096,
  num_heads=16,
  dropout=0.1,
  remat="off",
  attention=attend.Form(),
  dropout_bits="hash",
  unroll=False,
)
_SMALL = dict(
  num_tokens=6,
  task_slots=4,
  num_classes=3,
  factor_bits=(3, 2),
  num_layers=3,
  width=8,
  mlp_width=16,
  num_heads=2,
  dropout=0.5,
  remat="off",
  attention=attend.Form(),
  dropout_bits="hash",
  unroll=False,
)


def _define(dtype=None, **settings):
  size, settings = settings_lib.split(attention.TransformerSize, settings)
  return network.define(
    lambda rngs: masked_transformer.MaskedTransformer(
      **settings, size=size, rngs=rngs
    ),
    dtype,
  )


@pytest.fixture(scope="module")
def small():
  net = _define(**_SMALL)
  params = jax.jit(net.init)(jax.random.key(0))
  params = jax.tree.map(lambda x: 20.0 * x, params)  # away from the identity
  return net, params


@pytest.fixture(scope="module")
def inputs():
  key = jax.random.key(1)
  parts = jnp.stack(
    [jax.random.randint(key, (2, 6), 0, n) for n in (8, 4)], axis=-1
  )
  masked = jnp.array([[0, 1, 0, 0, 1, 1], [1, 0, 0, 0, 0, 0]], bool)
  return parts, masked, jnp.array([0, 3]), jnp.array([1, 2])


@pytest.mark.parametrize("task_slots", [0, 16])
def test_size_of_magvit_l_with_factorised_heads(task_slots):
  """MAGVIT-L has 306.9M parameters, for one task or for many."""
  net = _define(**{**_LARGE, "task_slots": task_slots})
  abstract = jax.eval_shape(net.init, jax.random.key(0))
  assert round(network.count(abstract) / 1e6, 1) == 306.9


def test_one_head_per_sub_token_over_its_own_codes(small, inputs):
  net, params = small
  logits = jax.jit(net)(params, *inputs)
  assert [x.shape for x in logits] == [(2, 6, 8), (2, 6, 4)]


def test_a_masked_token_is_not_seen(small, inputs):
  net, params = small
  parts, masked, label, task = inputs
  run = jax.jit(net)
  hidden = jnp.where(masked[..., None], (parts + 1) % 4, parts)
  for a, b in zip(
    run(params, parts, masked, label, task),
    run(params, hidden, masked, label, task),
    strict=True,
  ):
    np.testing.assert_array_equal(a, b)


def test_a_hint_is_seen_beside_the_mask_and_nowhere_else(small, inputs):
  net, params = small
  parts, masked, label, task = inputs
  hinted = jnp.array([[1, 1, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0]], bool)

  @jax.jit
  def run(parts, hinted):
    return net(params, parts, masked, label, task, hinted_BN=hinted)

  before = run(parts, hinted)
  moved = lambda where: jnp.where(where[..., None], (parts + 1) % 4, parts)
  seen = run(moved(hinted & masked), hinted)
  unseen = run(moved(~hinted & masked), hinted)
  for a, b, c in zip(before, seen, unseen, strict=True):
    assert np.abs(a[0] - b[0]).max() > 1e-3
    np.testing.assert_array_equal(a[1], b[1])  # has no hint under its mask
    np.testing.assert_array_equal(a, c)
  # A hint is no known token: the mask token is added to it.
  known = net(params, parts, masked & ~hinted, label, task)
  assert np.abs(before[0][0] - known[0][0]).max() > 1e-3
  plain = net(params, *inputs)
  for nowhere in (jnp.zeros_like(hinted), hinted & ~masked):
    for a, b in zip(run(parts, nowhere), plain, strict=True):
      np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("argument", [0, 1, 2, 3])
def test_tokens_mask_class_and_task_all_matter(small, inputs, argument):
  net, params = small
  run = jax.jit(net)
  changed = list(inputs)
  x = changed[argument]
  changed[argument] = ~x if x.dtype == bool else (x + 1) % 4
  before, after = run(params, *inputs), run(params, *changed)
  assert np.abs(before[0] - after[0]).max() > 1e-3


def test_logits_are_tied_to_the_embedding_tables(small, inputs):
  net, params = small
  table = params["factors"][1]["embedding"]
  changed = jax.tree.map(lambda x: x, params)
  changed["factors"][1]["embedding"] = table.at[3].set(0.0)
  logits = jax.jit(net)(changed, *inputs)[1]
  np.testing.assert_allclose(logits[..., 3], params["heads"][1]["bias"][3])


def test_scanned_layers_are_the_layers_in_turn(small, inputs):
  net, params = small
  one_layer = _define(**{**_SMALL, "num_layers": 1})
  block = lambda i: jax.tree.map(lambda x: x[i : i + 1], params["layers"])

  @jax.jit
  def hidden_after(layers, x):
    module_params = {**params, "layers": layers}
    return one_layer(module_params, x, None, method="_run_layers")

  x = jax.random.normal(jax.random.key(2), (2, 8, 8))
  expected = x
  for i in range(3):
    expected = hidden_after(block(i), expected)
  run = jax.jit(lambda x: net(params, x, None, method="_run_layers"))
  whole = run(x)
  np.testing.assert_allclose(whole, expected, rtol=1e-5, atol=1e-5)


def test_dropout_follows_its_key_and_is_off_without_one(small, inputs):
  net, params = small
  run = jax.jit(net)
  first = run(params, *inputs, jax.random.key(0))[0]
  again = run(params, *inputs, jax.random.key(0))[0]
  other = run(params, *inputs, jax.random.key(1))[0]
  np.testing.assert_array_equal(first, again)
  assert np.abs(first - other).max() > 1e-3
  np.testing.assert_array_equal(
    run(params, *inputs)[0], run(params, *inputs, None)[0]
  )


def test_rematerialised_gradients_are_the_same(inputs):
  params = tiny.trained_like(_define(**_SMALL))

  def gradient(remat):
    net = _define(**{**_SMALL, "remat": remat})
    loss = lambda p: sum(
      jnp.square(x).mean() for x in net(p, *inputs, jax.random.key(0))
    )
    return jax.jit(jax.grad(loss))(params)

  for a, b in zip(
    jax.tree.leaves(gradient("off")),
    jax.tree.leaves(gradient("all")),
    strict=True,
  ):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def _products(jaxpr):
  """Yields the matrix products of a program and of the bodies of its loops."""
  for equation in jaxpr.eqns:
    if equation.primitive.name == "dot_general":
      yield equation
    for value in equation.params.values():
      if hasattr(value, "jaxpr"):
        yield from _products(value.jaxpr)


def test_bfloat16_computes_in_bfloat16_but_for_statistics(small, inputs):
  net, params = small
  low = _define(**_SMALL, dtype=jnp.bfloat16)
  jaxpr = jax.make_jaxpr(lambda p: low(p, *inputs))(params)
  factors = {x.aval.dtype for e in _products(jaxpr.jaxpr) for x in e.invars}
  assert factors == {jnp.dtype("bfloat16")}
  lines = str(jaxpr).splitlines()
  for name in ("= exp ", "= rsqrt "):  # softmax, norms
    matches = [line for line in lines if name in line]
    assert matches and all(":f32" in line for line in matches), name
  logits = jax.jit(low)(params, *inputs)
  assert {x.dtype for x in logits} == {jnp.dtype("float32")}
  for a, b in zip(logits, jax.jit(net)(params, *inputs), strict=True):
    # bfloat16 has 8 bits, 0.4 %; these are three layers with large weights.
    assert np.linalg.norm(a - b) < 0.05 * np.linalg.norm(b)
    assert np.abs(a - b).max() > 0
  loss = lambda p: sum(jnp.square(x).mean() for x in low(p, *inputs))
  gradient = jax.eval_shape(jax.grad(loss), params)
  assert {x.dtype for x in jax.tree.leaves(gradient)} == {jnp.dtype("float32")}


def test_a_width_that_the_heads_do_not_divide_is_refused():
  with pytest.raises(ValueError, match="width=8 .*num_heads=3"):
    _define(**{**_SMALL, "num_heads": 3})
