"""Tests of magvit/generators/learned_variance.py: the chain, and its steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from magvit.generators import learned_variance

_CHAIN = learned_variance.Chain.cosine()


def test_the_cosine_schedule_is_that_of_iddpm():
  # cos^2 of eq. 17 at the middle of the chain, over its value at 0.
  at = lambda t: np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2
  np.testing.assert_allclose(_CHAIN.share_S[499], at(0.5) / at(0), rtol=1e-9)
  # The last beta is cut to 0.999.
  np.testing.assert_allclose(
    _CHAIN.share_S[999] / _CHAIN.share_S[998], 0.001, rtol=1e-6
  )


@pytest.mark.parametrize("steps", [2, 25, 100, 1000])
def test_fewer_steps_are_of_the_same_chain_from_its_first_to_its_last(steps):
  chain = learned_variance.Chain.cosine(steps)
  assert len(chain.time_S) == steps
  assert (chain.time_S[0], chain.time_S[-1]) == (0, 999)
  assert (np.diff(chain.time_S) > 0).all()
  np.testing.assert_array_equal(chain.share_S, _CHAIN.share_S[chain.time_S])


@pytest.mark.parametrize("steps", [1, 1001])
def test_a_number_of_steps_that_the_chain_has_not_is_refused(steps):
  message = f"sampling.diffusion_steps={steps} must be from 2 to 1000"
  with pytest.raises(ValueError, match=message):
    learned_variance.Chain.cosine(steps)


def test_perfect_noise_and_the_true_variance_leave_nothing_to_lose():
  keys = jax.random.split(jax.random.key(0), 3)
  x0, noise = (jax.random.normal(key, (300, 4)) for key in keys[:2])
  step = jax.random.randint(keys[2], (300,), 1, 1000)
  step = step.at[:50].set(jnp.arange(1, 51))
  place = -jnp.ones_like(noise)
  output = jnp.concatenate([noise, place], axis=-1)
  error, bound = _CHAIN.loss(output, x0, noise, step)
  np.testing.assert_array_equal(error, 0)
  np.testing.assert_allclose(bound, 0, atol=1e-3)
  # The largest variance is not the true one, which shows where steps begin.
  wider = jnp.concatenate([noise, -place], axis=-1)
  assert (_CHAIN.loss(wider, x0, noise, step)[1][:50] > 1e-4).all()


def test_the_bound_moves_the_variance_and_not_the_mean():
  x0, noise = jnp.ones((1, 2)), jnp.full((1, 2), 0.3)
  bound = lambda output: _CHAIN.loss(output, x0, noise, jnp.array([400]))[1][0]
  gradient = jax.grad(bound)(jnp.full((1, 4), 0.1))
  np.testing.assert_array_equal(gradient[:, :2], 0)
  assert (gradient[:, 2:] != 0).all()


def _perfect(x0):
  """A head that knows the clean latents."""

  def predict(x_t, time):
    share = jnp.asarray(_CHAIN.share_S.astype(np.float32))[time]
    noise = (x_t - jnp.sqrt(share) * x0) / jnp.sqrt(1 - share)
    return jnp.concatenate([noise, jnp.zeros_like(noise)], axis=-1)

  return predict


@pytest.mark.parametrize("steps", [2, 10])
def test_a_head_that_knows_the_noise_gives_the_latents_back(steps):
  x0 = jax.random.normal(jax.random.key(0), (5, 4))
  noise = jax.random.normal(jax.random.key(1), (5, 4))
  chain = learned_variance.Chain.cosine(steps)
  drawn = chain.denoise(_perfect(x0), jax.random.key(2), noise, 1.0, 6.0)
  np.testing.assert_allclose(drawn, x0, atol=1e-3)


def test_without_temperature_the_first_noise_says_all():
  def predict(x_t, time):  # a head with some doubt
    del time
    return jnp.concatenate([0.5 * x_t, jnp.zeros_like(x_t)], axis=-1)

  chain = learned_variance.Chain.cosine(5)
  noise = jax.random.normal(jax.random.key(0), (3, 4))
  draw = lambda key, temperature, noise=noise: chain.denoise(
    predict, jax.random.key(key), noise, temperature, 6.0
  )
  np.testing.assert_array_equal(draw(1, 0.0), draw(2, 0.0))
  assert (draw(1, 1.0) != draw(2, 1.0)).any()
  assert (draw(1, 0.0) != draw(1, 0.0, -noise)).any()


def test_latents_stay_within_the_limit():
  predict = lambda x_t, time: jnp.zeros((*x_t.shape[:-1], 2 * x_t.shape[-1]))
  noise = jax.random.normal(jax.random.key(0), (50, 4))
  chain = learned_variance.Chain.cosine(5)
  drawn = chain.denoise(predict, jax.random.key(1), noise, 1.0, 1.0)
  assert jnp.abs(drawn).max() <= 1
