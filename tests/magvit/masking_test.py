"""Tests of magvit/masking.py: geometry as literals, masks by counting."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from magvit import masking

_LATENTS = (5, 16, 16)  # of a clip 17 x 128 x 128


def test_frame_prediction_is_given_5_frames_which_are_2_latents():
  pixels = masking.given_pixels("frame_prediction", (17, 128, 128), 5)
  assert pixels[:5].all() and not pixels[5:].any()
  latents = masking.given_latents("frame_prediction", _LATENTS, 5, 4)
  assert latents[:2].all() and not latents[2:].any()
  one = masking.given_latents("frame_prediction", _LATENTS, 1, 4)
  assert one[:1].all() and not one[1:].any()


@pytest.mark.parametrize("size, low, high", [(128, 32, 96), (64, 16, 48)])
def test_central_inpainting_hides_the_middle_half(size, low, high):
  pixels = masking.given_pixels("central_inpainting", (17, size, size), 5)
  hidden = np.zeros((17, size, size), bool)
  hidden[:, low:high, low:high] = True
  np.testing.assert_array_equal(pixels, ~hidden)


def test_central_inpainting_on_the_latent_grid():
  latents = masking.given_latents("central_inpainting", _LATENTS, 5, 4)
  assert (~latents).sum() == 5 * 8 * 8
  assert not latents[:, 4:12, 4:12].any()


def test_full_generation_is_given_nothing():
  for shape in ((17, 128, 128), _LATENTS):
    assert not masking.TASKS["class_conditional"].given(shape, 5).any()


def test_what_is_not_given_is_filled_with_the_last_frame_or_zeros():
  video = jnp.arange(1.0, 4.0).reshape(1, 3, 1, 1, 1) * jnp.ones(
    (1, 3, 4, 4, 1)
  )
  given = masking.given_pixels("frame_prediction", (3, 4, 4), 2)
  filled = masking.TASKS["frame_prediction"].fill(video, given)
  np.testing.assert_array_equal(filled[0, :, 0, 0, 0], [1, 2, 2])
  given = masking.given_pixels("central_inpainting", (3, 4, 4), 2)
  filled = masking.TASKS["central_inpainting"].fill(video, given)
  np.testing.assert_array_equal(filled[0, 1, :, 1, 0], [2, 0, 0, 2])


def test_task_tokens_are_distinct_positive_rows_of_the_table():
  tokens = [task.token for task in masking.TASKS.values()]
  assert len(set(tokens)) == len(tokens)
  assert all(0 <= token < masking.TASK_SLOTS for token in tokens)


@pytest.mark.parametrize("per_clip", [False, True])
def test_masks_have_one_ratio_for_the_batch_or_one_per_clip(per_clip):
  masks = masking.training_mask(jax.random.key(0), 64, 80, per_clip)
  counts = np.asarray(masks.sum(-1))
  assert counts.min() >= 1
  assert (len(set(counts)) > 10) == per_clip
  assert len(set(counts)) == 1 or per_clip


def test_the_mask_ratio_follows_the_cosine_of_a_uniform_draw():
  """E[cos(pi r / 2)] = 2 / pi."""
  masks = masking.training_mask(jax.random.key(0), 4000, 200, True)
  # Standard error 0.31 / sqrt(4000) = 0.005; flooring takes up to 1 / 200.
  np.testing.assert_allclose(masks.mean(), 2 / np.pi, atol=0.02)


def test_every_position_is_masked_equally_often():
  masks = masking.training_mask(jax.random.key(0), 4000, 10, True)
  np.testing.assert_allclose(masks.mean(0), masks.mean(), atol=0.05)


@pytest.mark.parametrize("name", sorted(masking.SCHEDULES))
def test_schedules_fall_from_everything_to_nothing(name):
  r = jnp.linspace(0, 1, 50)
  share = masking.SCHEDULES[name](r)
  np.testing.assert_allclose(share[0], 1.0)
  np.testing.assert_allclose(share[-1], 0.0, atol=1e-6)
  assert (jnp.diff(share) < 0).all()


@pytest.mark.parametrize("frames", [0, 2, 17, 20])
def test_condition_frames_must_be_whole_latents(frames):
  with pytest.raises(ValueError, match=r"e\.g\. \[1, 5, 9, 13\]"):
    masking.check_condition_frames(frames, 17, 4)
