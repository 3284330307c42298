"""Tests of magvit/optimizer.py."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from magvit import optimizer


def test_the_schedule_warms_up_and_ends_at_zero():
  c = base.tokenizer().optimizer
  c.warmup_steps, c.peak_learning_rate = 10, 1e-3
  schedule = optimizer.make_schedule(c, 110)
  np.testing.assert_allclose(schedule(0), 0.0)
  np.testing.assert_allclose(schedule(5), 5e-4, rtol=1e-6)
  np.testing.assert_allclose(schedule(10), 1e-3, rtol=1e-6)
  np.testing.assert_allclose(schedule(60), 5e-4, rtol=1e-5)
  np.testing.assert_allclose(schedule(110), 0.0, atol=1e-9)
  np.testing.assert_allclose(schedule(500), 0.0, atol=1e-9)  # never restarts


def test_a_warm_up_that_never_ends_is_refused():
  c = base.tokenizer().optimizer
  with pytest.raises(ValueError, match="warmup_steps=1000 .* num_steps=1000"):
    optimizer.make_schedule(c, 1000)


def test_weight_decay_reaches_kernels_only_and_every_parameter_moves():
  c = base.masked().optimizer
  c.warmup_steps, c.peak_learning_rate, c.weight_decay = 0, 0.1, 0.5
  adam = optimizer.make_optimizer(c, 100)
  params = {"a": {"kernel": jnp.array(2.0), "bias": jnp.array(2.0)}}
  still = jax.tree.map(jnp.zeros_like, params)
  updates, _ = adam.update(still, adam.init(params), params)
  np.testing.assert_allclose(updates["a"]["kernel"], -0.1 * 0.5 * 2.0)
  np.testing.assert_allclose(updates["a"]["bias"], 0.0)
  # Descent: the first Adam step is the sign of the gradient.
  ones = jax.tree.map(jnp.ones_like, params)
  updates, _ = adam.update(ones, adam.init(params), params)
  np.testing.assert_allclose(updates["a"]["bias"], -0.1, rtol=1e-5)


def test_gradients_are_clipped_by_their_global_norm():
  c = base.masked().optimizer
  c.warmup_steps, c.b1, c.b2 = 0, 0.0, 0.0
  c.clip_norm = 1.0
  adam = optimizer.make_optimizer(c, 100)
  params = {"bias": jnp.zeros(2)}
  _, state = adam.update(
    {"bias": jnp.array([30.0, 40.0])}, adam.init(params), params
  )
  np.testing.assert_allclose(state[1].mu["bias"], [0.6, 0.8], rtol=1e-5)


def test_muon_moves_kernels_as_orthogonal_matrices_and_the_rest_as_adam():
  c = base.tokenizer().optimizer
  c.name, c.warmup_steps, c.peak_learning_rate = "muon", 0, 0.1
  muon = optimizer.make_optimizer(c, 100)
  rng = np.random.default_rng(0)
  shape = (1, 2, 2, 4, 8)  # a matrix of 16 inputs by 8 outputs
  # Singular values from 1 to 0.01: Adam would all but ignore the last ones.
  u, _ = np.linalg.qr(rng.standard_normal((16, 8)))
  v, _ = np.linalg.qr(rng.standard_normal((8, 8)))
  gradient = {
    "kernel": jnp.asarray((u * np.logspace(0, -2, 8)) @ v).reshape(shape),
    "bias": jnp.array([3.0, -1e-3]),
  }
  params = jax.tree.map(jnp.zeros_like, gradient)
  updates, _ = muon.update(gradient, muon.init(params), params)
  step = np.asarray(updates["kernel"]).reshape(16, 8)
  singular = np.linalg.svd(step, compute_uv=False)
  assert singular.max() < 2 * singular.min()
  # Root mean square of a step of 16 x 8 with singular values of about 1 is
  # sqrt(8 / 128); scaled, it is a fifth of the learning rate.
  np.testing.assert_allclose(np.sqrt((step**2).mean()), 0.02, rtol=0.25)
  # It descends, in the directions of the gradient.
  assert np.diag(u.T @ step @ v.T).max() < 0
  np.testing.assert_allclose(updates["bias"], [-0.1, 0.1], rtol=1e-3)


@pytest.mark.parametrize("stack", ["layers", "blocks", "pairs"])
def test_muon_moves_each_layer_and_each_projection_by_itself(stack):
  """Stacked kernels move as those of a network with one layer and no heads."""
  c = base.masked().optimizer
  c.name, c.warmup_steps, c.peak_learning_rate = "muon", 0, 0.1
  muon = optimizer.make_optimizer(c, 100)

  def step(gradient):
    params = jax.tree.map(jnp.zeros_like, gradient)
    return muon.update(gradient, muon.init(params), params)[0]

  rng = np.random.default_rng(0)
  draw = lambda *shape: jnp.asarray(rng.standard_normal(shape), jnp.float32)
  kernels = {
    "qkv": draw(3, 8, 3, 2, 4),
    "out": draw(3, 2, 4, 8),
    "mlp_in": draw(3, 8, 16),
  }
  named = lambda arrays: {k: {"kernel": x} for k, x in arrays.items()}

  def matrices(kernels, layer):
    """Each matrix of a layer under a name of its own."""
    qkv_D3Ad = kernels["qkv"]["kernel"][layer]
    matrices = {name: qkv_D3Ad[:, i] for i, name in enumerate("qkv")}
    for name in ("out", "mlp_in"):
      matrices[name] = kernels[name]["kernel"][layer]
    return named({k: x.reshape(8, -1) for k, x in matrices.items()})

  moved = step({stack: named(kernels)})[stack]
  for layer in range(3):
    jax.tree.map(
      functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6),
      matrices(moved, layer),
      step(matrices(named(kernels), layer)),
    )


def test_muon_takes_layers_of_a_list_as_they_are():
  c = base.masked().optimizer
  c.name, c.warmup_steps, c.peak_learning_rate = "muon", 0, 0.1
  muon = optimizer.make_optimizer(c, 100)
  rng = np.random.default_rng(0)
  kernel = jnp.asarray(rng.standard_normal((3, 2, 8)), jnp.float32)
  gradient = {"blocks": {0: {"kernel": kernel}}, "conv": {"kernel": kernel}}
  params = jax.tree.map(jnp.zeros_like, gradient)
  moved, _ = muon.update(gradient, muon.init(params), params)
  np.testing.assert_array_equal(
    moved["blocks"][0]["kernel"], moved["conv"]["kernel"]
  )


def test_an_unknown_optimizer_is_refused():
  c = base.masked().optimizer
  c.name = "sgd"
  with pytest.raises(ValueError, match="optimizer.name='sgd': expected one"):
    optimizer.make_optimizer(c, 10_000)
