"""Tests of magvit/tokenizer/health.py: each sign, on latents made for it."""

import jax.numpy as jnp
import numpy as np

from magvit.tokenizer import health

_CLIP, _LATENT = (1, 2, 2), (1, 2, 2)  # (T, H, W) and (t, h, w)


def _update(state, step, z, ids, encode, interval=2):
  video = jnp.full((3, *_CLIP, 3), float(step))
  return health.update(state, jnp.int32(step), interval, video, z, ids, encode)


def test_a_bit_with_one_value_is_dead():
  z = np.ones((3, *_LATENT, 3), np.float32)
  z[..., 1] = -2.0
  z[:2, ..., 2] = -1.0  # two thirds: alive
  state = health.init(_CLIP, _LATENT, 3, 8)
  ids = jnp.zeros((3, *_LATENT), jnp.int32)
  _, metrics = _update(state, 0, z, ids, lambda v: z[:1])
  assert metrics["dead_bits"] == 2
  np.testing.assert_allclose(metrics["positive_share"], [1, 0, 1 / 3])
  np.testing.assert_allclose(metrics["mean_magnitude"], [1, 2, 1])


def test_clips_in_other_units_are_seen():
  z = jnp.zeros((3, *_LATENT, 2))
  ids = jnp.zeros((3, *_LATENT), jnp.int32)
  state = health.init(_CLIP, _LATENT, 2, 4)
  video = np.full((3, *_CLIP, 3), -1.0, np.float32)
  video[0] = 0.5
  video[1] = 1.0
  _, metrics = health.update(
    state, jnp.int32(0), 2, jnp.asarray(video), z, ids, lambda v: z[:1]
  )
  assert metrics["pixel_low"] == -1.0
  assert metrics["pixel_high"] == 1.0
  np.testing.assert_allclose(metrics["pixel_variance"], np.var(video), 1e-6)


def test_codes_count_as_used_within_the_window():
  state = health.init(_CLIP, _LATENT, 2, 4)
  z = jnp.zeros((3, *_LATENT, 2))
  shares = []
  for step, code in enumerate([0, 1, 1, 1, 3]):
    ids = jnp.full((3, *_LATENT), code)
    state, metrics = _update(state, step, z, ids, lambda v: z[:1], interval=3)
    shares.append(float(metrics["codes_used"]))
  assert shares == [0.25, 0.5, 0.5, 0.25, 0.5]


def test_the_flip_rate_is_of_one_clip_between_two_looks():
  state = health.init(_CLIP, _LATENT, 2, 4)
  z = jnp.zeros((3, *_LATENT, 2))
  ids = jnp.zeros((3, *_LATENT), jnp.int32)
  encode = lambda sign: (
    lambda video: jnp.broadcast_to(jnp.array([1.0, sign]), (1, *_LATENT, 2))
  )
  rates = []
  for step, sign in enumerate([1, -1, -1, -1, 1]):
    state, metrics = _update(state, step, z, ids, encode(sign))
    rates.append(np.asarray(metrics["flip_rate"]).tolist())
  # Looks at steps 0, 2 and 4; between them the last rate stands.
  assert rates == [[0, 0], [0, 0], [0, 1], [0, 1], [0, 1]]


def test_the_probe_is_a_clip_of_the_first_batch():
  state = health.init(_CLIP, _LATENT, 2, 4)
  z = jnp.zeros((3, *_LATENT, 2))
  ids = jnp.zeros((3, *_LATENT), jnp.int32)
  for step in range(3):
    video = jnp.full((3, *_CLIP, 3), step + 0.5)
    state, _ = health.update(
      state, jnp.int32(step), 2, video, z, ids, lambda v: z[:1]
    )
  np.testing.assert_array_equal(state["probe"], 0.5)


def test_the_use_of_a_huge_vocabulary_is_not_tracked():
  state = health.init(_CLIP, _LATENT, 24, 2**24)
  z = jnp.zeros((3, *_LATENT, 24))
  ids = jnp.zeros((3, *_LATENT), jnp.int32)
  _, metrics = _update(state, 0, z, ids, lambda v: z[:1])
  assert "codes_used" not in metrics


def test_a_channel_without_bits_that_does_not_vary_is_dead():
  assert health.init(_CLIP, _LATENT, 3, 0) == {}
  z = np.zeros((3, *_LATENT, 3), np.float32)
  z[..., 0] = 7.0
  z[0, ..., 1], z[0, ..., 2] = 0.3, 0.001
  video = jnp.linspace(0.0, 1.0, 36).reshape(3, *_CLIP, 3)
  metrics = health.latents(video, z)
  assert metrics["dead_channels"] == 2
  np.testing.assert_allclose(metrics["channel_std"], z.std((0, 1, 2, 3)))
  assert (metrics["pixel_low"], metrics["pixel_high"]) == (0.0, 1.0)
