"""Tests of models/transformers/diffusion_head.py: sizes, and a new head."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from magvit.generators import learned_variance
from models import network
from models.transformers import diffusion_head
from tests import tiny


def _define(channels, condition, blocks, width):
  size = diffusion_head.HeadSize(blocks, width)
  return network.define(
    lambda rngs: diffusion_head.DiffusionHead(
      channels, condition, size, rngs=rngs
    )
  )


@pytest.mark.parametrize(
  ("condition", "blocks", "width", "millions"),
  [(768, 6, 1024, 35.7), (1024, 8, 1280, 72.2), (1280, 12, 1536, 151.2)],
)
def test_heads_have_mars_sizes(condition, blocks, width, millions):
  shapes = jax.eval_shape(
    _define(16, condition, blocks, width).init, jax.random.key(0)
  )
  assert round(network.count(shapes) / 1e6, 1) == millions


def test_a_new_head_predicts_zero_whose_error_is_one():
  head = _define(4, 8, 2, 16)
  params = jax.jit(head.init)(jax.random.key(0))
  keys = jax.random.split(jax.random.key(1), 4)
  shape = (3, 500, 4)
  x0, noise = (jax.random.normal(key, shape) for key in keys[:2])
  step = jax.random.randint(keys[2], shape[:2], 0, 1000)
  condition = jax.random.normal(keys[3], (3, 1, 8))  # shared along an axis
  chain = learned_variance.Chain.cosine()

  @jax.jit
  def run(x0, noise):
    output = head(params, chain.add(x0, noise, step), step, condition)
    return output, chain.loss(output, x0, noise, step)

  output, (error, bound) = run(x0, noise)
  assert output.shape == (3, 500, 8)
  np.testing.assert_array_equal(output, 0)
  # The mean of 6,000 squares of noise has a standard deviation of 0.02.
  np.testing.assert_allclose(error.mean(), 1, atol=0.06)
  assert bound.mean() > 0


def test_a_latent_is_denoised_by_itself_from_its_own_condition():
  head = _define(4, 8, 2, 16)
  params = tiny.trained_like(head)
  x = jax.random.normal(jax.random.key(0), (1, 2, 4))
  condition = jax.random.normal(jax.random.key(1), (1, 2, 8))

  def first(x, condition):
    return head(params, x, jnp.full((1, 2), 500), condition)[:, 0].sum()

  for gradient in jax.jit(jax.grad(first, argnums=(0, 1)))(x, condition):
    assert (gradient[:, 0] != 0).any()
    np.testing.assert_array_equal(gradient[:, 1], 0)


@pytest.mark.long
def test_a_trained_head_draws_the_two_distributions_that_it_was_shown():
  """Mean and variance of a Gaussian for each of two conditions, within 5 %."""
  means, deviations = jnp.array([-1.0, 0.8]), jnp.array([0.5, 0.8])
  chain = learned_variance.Chain.cosine()
  head = _define(1, 2, 2, 32)
  steps = 3000
  adam = optax.adam(optax.cosine_decay_schedule(4e-3, steps))
  params = head.init(jax.random.key(0))

  def loss(params, key):
    keys = jax.random.split(key, 4)
    which = jax.random.randint(keys[0], (512,), 0, 2)
    x0 = means[which] + deviations[which] * jax.random.normal(keys[1], (512,))
    noise = jax.random.normal(keys[2], (512, 1))
    step = jax.random.randint(keys[3], (512,), 0, 1000)
    x_t = chain.add(x0[:, None], noise, step)
    output = head(params, x_t, step, jax.nn.one_hot(which, 2))
    error, bound = chain.loss(output, x0[:, None], noise, step)
    return error.mean() + bound.mean()

  def train(carry, key):
    params, state, average = carry
    updates, state = adam.update(jax.grad(loss)(params, key), state, params)
    params = optax.apply_updates(params, updates)
    average = optax.incremental_update(params, average, 0.01)
    return (params, state, average), None

  start = (params, adam.init(params), params)
  keys = jax.random.split(jax.random.key(1), steps)
  run = jax.jit(lambda start: jax.lax.scan(train, start, keys)[0][2])
  params = run(start)
  few = learned_variance.Chain.cosine(100)
  for which in range(2):
    condition = jax.nn.one_hot(jnp.full((1,), which), 2)

    def predict(x_t, time, condition=condition):
      return head(params, x_t, jnp.broadcast_to(time, len(x_t)), condition)

    noise = jax.random.normal(jax.random.key(2), (20_000, 1))
    drawn = jax.jit(
      lambda noise, predict=predict: few.denoise(
        predict, jax.random.key(3), noise, 1.0, 6.0
      )
    )(noise)
    np.testing.assert_allclose(drawn.mean(), means[which], rtol=0.05)
    np.testing.assert_allclose(drawn.var(), deviations[which] ** 2, rtol=0.05)
