"""Tests of one backward pass for two gradients, against two of jax.grad."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from magvit.cost import flops
from models import network
from models.tokenizer import discriminators
from models.tokenizer import shared_backward
from tests import tiny

_SHAPE = (5, 8, 8)


@pytest.fixture(scope="module")
def net():
  make = lambda rngs: discriminators.Discriminator(_SHAPE, 4, (2, 2), rngs=rngs)
  return network.define(make)


@pytest.fixture(scope="module")
def video():
  return jax.random.uniform(jax.random.key(1), (3, *_SHAPE, 3))


def _with_shares(net):
  return functools.partial(net, method="with_shares")


def _check_equal(a, b):
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5 * np.abs(y).max())


def test_each_of_two_losses_reaches_one_of_clips_and_weights(net, video):
  params = tiny.trained_like(net)
  # A loss that is flat for a clip, as the hinge is, leaves no gradient of it.
  generator = lambda logits: jnp.square(logits[1:]).sum()
  discriminator = lambda logits: jnp.sin(logits[:2]).sum()

  def shared(params, video):
    for_clips, for_weights = shared_backward.logits_for_both(
      _with_shares(net), params, video
    )
    return generator(for_clips) + discriminator(for_weights)

  to_weights, to_clips = jax.jit(jax.grad(shared, (0, 1)))(params, video)
  expected = jax.jit(jax.grad(lambda p: discriminator(net(p, video))))(params)
  _check_equal(to_weights, expected)
  expected = jax.jit(jax.grad(lambda x: generator(net(params, x))))(video)
  _check_equal(to_clips, expected)
  assert (to_clips[0] == 0).all()


def _plain_r1(net, params, video):
  slope = jax.grad(lambda x: net(params, x).sum())(video)
  return net(params, video), jnp.square(slope).sum((1, 2, 3, 4)).mean()


def test_r1_and_the_loss_of_its_logits_have_their_gradients(net, video):
  params = tiny.trained_like(net)

  def loss(passes):
    def run(params):
      logits, r1 = passes(params, video)
      return jnp.sin(logits).sum() + 10.0 * r1, (logits, r1)

    return run

  shared = functools.partial(shared_backward.logits_and_r1, _with_shares(net))
  plain = functools.partial(_plain_r1, net)
  got, values = jax.jit(jax.grad(loss(shared), has_aux=True))(params)
  expected, plain_values = jax.jit(jax.grad(loss(plain), has_aux=True))(params)
  _check_equal(values, plain_values)
  _check_equal(got, expected)


def test_r1_of_a_linear_discriminator_is_its_squared_norm(video):
  """No 1/2 and a sum over the clip: 10 x R1 is what the papers weight."""
  w = jax.random.normal(jax.random.key(0), (*_SHAPE, 3))
  linear = lambda w, x, shares: (jnp.einsum("bthwc,thwc->b", x, w), shares)
  logits, r1 = shared_backward.logits_and_r1(linear, w, video)
  np.testing.assert_allclose(logits, linear(w, video, None)[0], rtol=1e-5)
  np.testing.assert_allclose(r1, jnp.square(w).sum(), rtol=1e-5)


def test_no_pass_is_done_twice(net, video):
  params = jax.eval_shape(net.init, jax.random.key(0))
  forward = flops.count(net, params, video)
  plain = lambda params, x: jnp.sin(net(params, x)).sum()
  gradient = flops.count(jax.grad(plain, (0, 1)), params, video)

  def fakes(params, video):
    logits = shared_backward.logits_for_both(_with_shares(net), params, video)
    return logits[0].sum() + jnp.sin(logits[1]).sum()

  def reals(params):
    logits, r1 = shared_backward.logits_and_r1(_with_shares(net), params, video)
    return jnp.sin(logits).sum() + r1

  # Two losses cost no more than one. R1 adds a pass forward along the slope.
  assert flops.count(jax.grad(fakes, (0, 1)), params, video) == gradient
  assert flops.count(jax.grad(reals), params) <= gradient + forward
