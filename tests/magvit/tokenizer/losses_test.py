"""Tests of magvit/tokenizer/losses.py: closed forms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from magvit.generators import losses as generator_losses
from magvit.tokenizer import losses


def test_lazy_r1_is_scaled_and_costs_nothing_between():
  video = jax.random.uniform(jax.random.key(1), (5, 2, 4, 4, 3))
  without_r1 = lambda x: x.mean((1, 2, 3, 4))
  with_r1 = lambda x: (without_r1(x), jnp.float32(3.0))
  lazy = jax.jit(
    lambda step: losses.lazy_r1(with_r1, without_r1, video, step, 4)
  )
  for step, expected in enumerate([12.0, 0, 0, 0, 12.0]):
    logits, r1 = lazy(step)
    np.testing.assert_allclose(logits, without_r1(video), rtol=1e-5)
    np.testing.assert_allclose(r1, expected, rtol=1e-5)


def test_adversarial_losses_of_an_undecided_discriminator():
  zeros = jnp.zeros(4)
  for gan, generator, both in (
    ("non_saturating", np.log(2.0), 2 * np.log(2.0)),
    ("hinge", 0.0, 2.0),
  ):
    got = losses.GENERATOR_ADVERSARIAL[gan](zeros)
    np.testing.assert_allclose(got, generator)
    got = losses.DISCRIMINATOR_ADVERSARIAL[gan](zeros, zeros)
    np.testing.assert_allclose(got, both)


def test_adversarial_losses_reward_their_sides():
  good, bad = jnp.full(4, 5.0), jnp.full(4, -5.0)
  for gan in losses.GENERATOR_ADVERSARIAL:
    assert losses.GENERATOR_ADVERSARIAL[gan](good) < 0.01
    assert losses.DISCRIMINATOR_ADVERSARIAL[gan](good, bad) < 0.02
    assert losses.DISCRIMINATOR_ADVERSARIAL[gan](bad, good) > 1.0


def test_lecam_acts_beyond_the_anchors_only():
  real, fake = jnp.array([1.0, -3.0]), jnp.array([-2.0, 4.0])
  # relu(real - 0.5)^2 = 0.25, 0; relu(0.25 - fake)^2 = 2.25^2, 0
  got = losses.lecam(real, fake, jnp.array(0.25), jnp.array(0.5))
  np.testing.assert_allclose(got, 0.25 / 2 + 2.25**2 / 2)


def test_entropy_weight_falls_from_three_times_to_once():
  weight = lambda step: losses.entropy_weight(jnp.array(step), 0.1, 3.0, 2000)
  np.testing.assert_allclose(weight(0), 0.3, rtol=1e-6)
  np.testing.assert_allclose(weight(1000), 0.2, rtol=1e-6)
  np.testing.assert_allclose(weight(2000), 0.1, rtol=1e-6)
  np.testing.assert_allclose(weight(9999), 0.1, rtol=1e-6)


def test_the_gan_loss_of_the_generator_counts_from_its_start():
  c = base.tokenizer()
  c.num_steps = 10_000
  c.loss.adversarial, c.loss.adversarial_start = 0.25, 100
  weights = [losses.weights(c, jnp.array(step)) for step in (0, 99, 100, 9999)]
  assert [float(w["adversarial"]) for w in weights] == [0.0, 0.0, 0.25, 0.25]
  assert all(w["reconstruction"] == c.loss.reconstruction for w in weights)
  assert all(w["perceptual"] == c.loss.perceptual for w in weights)


def test_pixels_alone_are_compared_in_the_last_share_of_the_steps():
  c = base.tokenizer()
  c.num_steps, c.loss.pixel_share = 1000, 0.3
  weights = [losses.weights(c, jnp.array(step)) for step in (0, 699, 700, 999)]
  for name in ("adversarial", "perceptual"):
    kept = float(np.float32(c.loss[name]))
    assert [float(w[name]) for w in weights] == [kept, kept, 0.0, 0.0]
  for name in ("reconstruction", "commitment", "codebook"):
    assert {float(w[name]) for w in weights} == {c.loss[name]}


def test_a_gan_loss_that_never_starts_is_refused():
  c = base.tokenizer()
  c.num_steps = 100
  for share, end in ((0.0, 100), (0.4, 60)):
    c.loss.pixel_share, c.loss.adversarial_start = share, end - 1
    losses.check_settings(c)
    c.loss.adversarial_start = end
    with pytest.raises(
      ValueError, match=f"adversarial_start={end} .* num_steps=100 and loss.pix"
    ):
      losses.check_settings(c)
  c.loss.adversarial = 0.0  # then its start says nothing
  losses.check_settings(c)


def test_reconstruction_is_a_mean_over_everything():
  a = jnp.zeros((2, 1, 2, 2, 3))
  b = a.at[0, 0, 0, 0, 0].set(0.5)
  np.testing.assert_allclose(losses.reconstruction(a, b), 0.25 / 24)


def test_perceptual_loss_sees_every_frame_and_moves_only_the_output():
  def distance(target_BHWC, output_BHWC):
    return jnp.square(target_BHWC - 3.0 * output_BHWC).mean((1, 2, 3))

  target = jnp.full((1, 2, 2, 2, 3), 0.5)
  output = jnp.zeros_like(target).at[:, 1].set(0.5)
  value, (to_target, to_output) = jax.value_and_grad(
    functools.partial(losses.perceptual, distance), argnums=(0, 1)
  )(target, output)
  # 0.5^2 in frame 0 and (0.5 - 1.5)^2 in frame 1.
  np.testing.assert_allclose(value, (0.25 + 1.0) / 2)
  assert (to_target == 0).all()
  assert (to_output != 0).all()


def test_cross_entropy_is_smoothed_and_weighted():
  logits = jnp.log(jnp.array([[[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]]]))
  targets = jnp.array([[0, 2]])
  plain = lambda w, s: generator_losses.masked_cross_entropy(
    logits, targets, jnp.array([w]), s
  )
  np.testing.assert_allclose(plain([1.0, 0.0], 0.0), -np.log(0.7), rtol=1e-6)
  both = -(np.log(0.7) + np.log(0.8)) / 2
  np.testing.assert_allclose(plain([1.0, 1.0], 0.0), both, rtol=1e-6)
  smooth = 0.7 * -np.log(0.7) + 0.1 * -np.log([0.7, 0.2, 0.1]).sum()
  np.testing.assert_allclose(plain([1.0, 0.0], 0.3), smooth, rtol=1e-6)
