"""Tests of magvit/optimizer.py."""

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
