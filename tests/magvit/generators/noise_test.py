"""Tests of magvit/generators/noise.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from magvit.generators import noise as noise_lib

PROCESSES = [noise_lib.Diffusion(), noise_lib.FlowMatching()]
EACH = pytest.mark.parametrize("process", PROCESSES, ids=["diffusion", "flow"])


def _latents():
  """Clean latents and noise, (B, t, h, w, C) = (3, 2, 2, 2, 4) each."""
  rng = np.random.default_rng(0)
  draw = lambda: jnp.asarray(rng.normal(size=(3, 2, 2, 2, 4)), jnp.float32)
  return draw(), draw()


def test_shares_of_the_signal_are_those_of_the_paper():
  plain = noise_lib.Diffusion(zero_snr=False).signal_share
  rescaled = noise_lib.Diffusion().signal_share

  # Papers count steps from 1.
  assert plain[999] == pytest.approx(4.036e-5, abs=5e-9)
  assert np.sqrt(plain[999]) == pytest.approx(6.353e-3, abs=5e-7)
  assert plain[499] == pytest.approx(0.078587, abs=5e-7)
  assert plain[899] == pytest.approx(2.752e-4, abs=5e-8)
  assert rescaled[499] == pytest.approx(0.076029, abs=5e-7)
  assert rescaled[899] == pytest.approx(1.061e-4, abs=5e-8)
  assert rescaled[999] == 0.0
  assert rescaled[0] == plain[0]
  assert plain.dtype == rescaled.dtype == np.float32


def test_steps_of_sampling_trail():
  times = np.asarray(noise_lib.Diffusion().times(50))

  np.testing.assert_array_equal(times, [*range(999, 0, -20), -1])
  assert list(noise_lib.Diffusion().times(1)) == [999, -1]
  assert list(noise_lib.FlowMatching().times(2)) == [1.0, 0.5, 0.0]


@pytest.mark.parametrize("steps", [0, 1001])
def test_a_number_of_steps_that_the_diffusion_has_not_is_refused(steps):
  with pytest.raises(ValueError, match=f"steps={steps} must be from 1 to 1000"):
    noise_lib.Diffusion().times(steps)


def test_flow_of_no_steps_is_refused():
  with pytest.raises(ValueError, match="steps=0 must be at least 1"):
    noise_lib.FlowMatching().times(0)


def test_an_unknown_process_is_refused():
  with pytest.raises(ValueError, match=r"'heat' must be one of \['diffusion'"):
    noise_lib.find("heat")


def test_both_processes_are_found_by_name():
  assert [noise_lib.find(name) for name in noise_lib.PROCESSES] == PROCESSES


@EACH
def test_sampling_goes_from_noise_alone_to_the_clean_latents(process):
  x0, noise = _latents()
  times = process.times(4)

  np.testing.assert_array_equal(process.add(x0, noise, times[0]), noise)
  np.testing.assert_array_equal(process.add(x0, noise, times[-1]), x0)
  assert float(process.embedding(times[0])) in (999.0, 1000.0)


@EACH
def test_a_share_of_the_way_is_a_time_of_sampling(process):
  shares = jnp.array([1.0, 0.75, 0.5, 0.25, 0.0])

  np.testing.assert_array_equal(process.at(shares), process.times(4))


@EACH
def test_what_a_network_predicts_says_the_latents_and_the_noise(process):
  x0, noise = _latents()
  t = process.draw(jax.random.key(1), (3,))
  x_t = process.add(x0, noise, t)
  output = process.target(x0, noise, t)

  np.testing.assert_allclose(process.clean(x_t, output, t), x0, atol=1e-6)
  np.testing.assert_allclose(process.noise(x_t, output, t), noise, atol=1e-6)


def test_at_the_last_step_of_the_diffusion_v_is_minus_the_latents():
  x0, noise = _latents()
  v = noise_lib.Diffusion().target(x0, noise, jnp.array(999))

  np.testing.assert_array_equal(v, -x0)


@EACH
def test_times_of_frames_are_times_of_clips(process):
  x0, noise = _latents()
  t_B = process.draw(jax.random.key(2), (3,))
  t_Bt11 = jnp.broadcast_to(t_B[:, None, None, None], (3, 2, 1, 1))

  np.testing.assert_array_equal(
    process.add(x0, noise, t_Bt11), process.add(x0, noise, t_B)
  )


@EACH
@pytest.mark.parametrize("steps", [1, 4, 50])
@pytest.mark.parametrize("renewed", [False, True])
def test_a_perfect_network_leads_to_the_latents(process, steps, renewed):
  """Whether noise is renewed on the way or not, and in any number of steps."""
  x0, x = _latents()
  times = process.times(steps)
  for place, (t, s) in enumerate(zip(times[:-1], times[1:], strict=True)):
    # What the noise in x is follows from x0, which the network knows.
    signal, scale = process.scales(t)
    output = process.target(x0, (x - signal * x0) / scale, t)
    if renewed:
      fresh = jax.random.normal(jax.random.key(place), x.shape)
      x = process.noisy_step(x, output, t, s, fresh)
    else:
      x = process.step(x, output, t, s)

  np.testing.assert_allclose(x, x0, atol=2e-5)


@EACH
def test_without_eta_a_noisy_step_renews_nothing(process):
  x0, noise = _latents()
  times = process.times(4)
  t, s = times[1], times[2]
  x_t = process.add(x0, noise, t)
  fresh = jnp.full_like(noise, 7.0)

  np.testing.assert_allclose(
    process.noisy_step(x_t, x0, t, s, fresh, eta=0.0),
    process.step(x_t, x0, t, s),
    atol=1e-6,
  )


def test_the_variance_that_is_renewed_is_that_of_the_posterior():
  """eta 1 is DDPM's: (1 - a_s) / (1 - a_t) * (1 - a_t / a_s)."""
  process = noise_lib.Diffusion()
  t, s = jnp.array(500), jnp.array(480)
  a_t, a_s = (float(process.signal_share[i]) for i in (500, 480))
  zeros, ones = jnp.zeros((1, 1)), jnp.ones((1, 1))
  step = lambda fresh: process.noisy_step(zeros, zeros, t, s, fresh)
  renewed = float((step(ones) - step(zeros))[0, 0])

  assert renewed**2 == pytest.approx(
    (1 - a_s) / (1 - a_t) * (1 - a_t / a_s), rel=1e-4
  )


def test_euler_follows_the_straight_line():
  x0, noise = _latents()
  flow = noise_lib.FlowMatching()
  t, s = jnp.array(0.75), jnp.array(0.25)
  velocity = noise - x0

  np.testing.assert_allclose(
    flow.step(flow.add(x0, noise, t), velocity, t, s),
    flow.add(x0, noise, t) + (0.25 - 0.75) * velocity,
    atol=1e-6,
  )
