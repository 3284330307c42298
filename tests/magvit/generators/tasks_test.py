"""Tests of magvit/generators/tasks.py: literals, and masks counted."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from magvit.generators import sampling
from magvit.generators import tasks

_SPACE = slice(None)

# Regions given in frames of 128 x 128 and 64 x 64, and in 16 x 16 latents.
_BOXES = {
  "central_outpainting": lambda a, b: (slice(a, b), slice(a, b)),
  "vertical_outpainting": lambda a, b: (_SPACE, slice(a, b)),
  "horizontal_outpainting": lambda a, b: (slice(a, b), _SPACE),
}
_SIDES = [(128, 32, 96), (64, 16, 48), (16, 4, 12)]
# The left end of the moving half, in each frame of a clip (T, W).
_STARTS = {
  (17, 128): [4 * t for t in range(17)],
  (17, 64): [2 * t for t in range(17)],
  (16, 128): [0, 4, 9, 13, 17, 21, 26, 30, 34, 38, 43, 47, 51, 55, 60, 64],
  (16, 64): [0, 2, 4, 6, 9, 11, 13, 15, 17, 19, 21, 23, 26, 28, 30, 32],
  (5, 16): [0, 2, 4, 6, 8],
  (4, 16): [0, 3, 5, 8],
  (5, 4): [0, 0, 1, 2, 2],  # the digits' latents; halves go to the even side
}


def _latents(task, shape, frames=5, causal=True):
  return (
    tasks.given_latents(task, shape, frames, 4, causal),
    tasks.kept_latents(task, shape, frames, 4, causal),
  )


@pytest.mark.parametrize(
  "task", ["frame_prediction", "class_conditional_frame_prediction"]
)
@pytest.mark.parametrize(
  "causal, latents, frames, given_latents",
  [
    (True, 5, 5, 2),  # Kinetics-600
    (True, 5, 1, 1),
    (True, 5, 9, 3),
    (False, 4, 1, 1),  # v1 on BAIR
    (False, 4, 5, 1),
    (False, 4, 8, 2),
  ],
)
def test_frame_prediction_is_given_the_first_frames(
  task, causal, latents, frames, given_latents
):
  pixels = tasks.given_pixels(task, (17, 128, 128), frames)
  assert pixels[:frames].all() and not pixels[frames:].any()
  given, exact = _latents(task, (latents, 16, 16), frames, causal)
  assert given[:given_latents].all() and not given[given_latents:].any()
  np.testing.assert_array_equal(exact, given & causal)


@pytest.mark.parametrize("causal, latents", [(True, 5), (False, 4)])
def test_interpolation_is_given_both_ends_and_keeps_the_first(causal, latents):
  for frames in (16, 17):
    pixels = tasks.given_pixels("interpolation", (frames, 64, 64), 5)
    assert pixels[[0, -1]].all() and not pixels[1:-1].any()
  given, exact = _latents("interpolation", (latents, 16, 16), causal=causal)
  assert given[[0, -1]].all() and not given[1:-1].any()
  assert exact[0].all() == causal and not exact[1:].any()


@pytest.mark.parametrize("task", sorted(_BOXES))
@pytest.mark.parametrize("side, low, high", _SIDES)
@pytest.mark.parametrize("frames", [17, 16, 5, 4])
def test_outpainting_is_given_the_middle_half(task, side, low, high, frames):
  given = tasks.given_pixels(task, (frames, side, side), 5)
  expected = np.zeros((frames, side, side), bool)
  expected[:, *_BOXES[task](low, high)] = True
  np.testing.assert_array_equal(given, expected)


@pytest.mark.parametrize("side, low, high", _SIDES)
@pytest.mark.parametrize("frames", [17, 16, 5, 4])
def test_central_inpainting_hides_the_middle_half(side, low, high, frames):
  given = tasks.given_pixels("central_inpainting", (frames, side, side), 5)
  hidden = np.zeros((frames, side, side), bool)
  hidden[:, low:high, low:high] = True
  np.testing.assert_array_equal(given, ~hidden)


@pytest.mark.parametrize("shape, starts", _STARTS.items(), ids=str)
def test_the_dynamic_tasks_move_from_the_left_end_to_the_right(shape, starts):
  frames, side = shape
  strip = tasks.given_pixels("dynamic_outpainting", (frames, side, side), 5)
  box = ~tasks.given_pixels("dynamic_inpainting", (frames, side, side), 5)
  for t, start in enumerate(starts):
    columns = np.zeros(side, bool)
    columns[start : start + side // 2] = True
    np.testing.assert_array_equal(strip[t], np.tile(columns, (side, 1)))
    rows = np.zeros((side, 1), bool)
    rows[side // 4 : 3 * side // 4] = True
    np.testing.assert_array_equal(box[t], rows & columns)


@pytest.mark.parametrize("shape", [(5, 16, 16), (4, 16, 16)])
def test_latents_have_the_geometry_of_pixels_and_none_in_space_is_exact(shape):
  for task in tasks.TASKS:
    if "prediction" in task or task == "interpolation":
      continue
    given, exact = _latents(task, shape)
    np.testing.assert_array_equal(given, tasks.given_pixels(task, shape, 5))
    assert not exact.any()


def test_exact_is_where_the_tokens_of_the_condition_are_all_true():
  exact = {name for name, task in tasks.TASKS.items() if task.exact}
  assert exact == {
    "class_conditional",
    "frame_prediction",
    "class_conditional_frame_prediction",
  }


def test_full_generation_alone_is_given_nothing():
  assert not tasks.given_pixels("class_conditional", (17, 8, 8), 5).any()
  needing = [task for task in tasks.TASKS if tasks.needs_clip(task)]
  assert needing == [task for task in tasks.TASKS][1:]


def _fill(task, video_TW, frames=2):
  """The condition clip of a clip whose frames repeat one row."""
  video = jnp.asarray(video_TW, jnp.float32)[None, :, None, :, None]
  video = jnp.tile(video, (1, 1, video.shape[3], 1, 1))
  given = tasks.given_pixels(task, video.shape[1:4], frames)
  return tasks.TASKS[task].fill(video, given)[0, ..., 0]


def test_prediction_repeats_the_last_given_frame():
  filled = _fill("frame_prediction", [[1] * 4, [2] * 4, [3] * 4, [4] * 4])
  np.testing.assert_array_equal(filled[:, 0, 0], [1, 2, 2, 2])


def test_interpolation_is_linear_in_each_pixel():
  """Frame k is k / (T - 1) of the way between the given frames at both ends."""
  clip = [[0, 8, 4, 1], [9] * 4, [9] * 4, [9] * 4, [4, 0, 4, 0]]
  np.testing.assert_array_equal(
    _fill("interpolation", clip)[:, 2],
    [
      [0, 8, 4, 1],
      [1, 6, 4, 0.75],
      [2, 4, 4, 0.5],
      [3, 2, 4, 0.25],
      [4, 0, 4, 0],
    ],
  )


def test_outpainting_repeats_the_edge_of_what_is_given():
  row = [[1, 2, 3, 4, 5, 6, 7, 8]]
  edge = [3, 3, 3, 4, 5, 6, 6, 6]
  for task in ("vertical_outpainting", "central_outpainting"):
    filled = _fill(task, row)
    np.testing.assert_array_equal(filled, np.tile(edge, (1, 8, 1)))
  np.testing.assert_array_equal(
    _fill("horizontal_outpainting", row), np.tile(row, (1, 8, 1))
  )
  column = jnp.tile(jnp.asarray(row[0], jnp.float32)[:, None], (1, 8))
  video = column[None, None, ..., None]
  for task in ("horizontal_outpainting", "central_outpainting"):
    given = tasks.given_pixels(task, (1, 8, 8), 1)
    filled = tasks.TASKS[task].fill(video, given)[0, 0, :, 1, 0]
    np.testing.assert_array_equal(filled, edge)


@pytest.mark.parametrize(
  "task, rows",
  [
    ("central_inpainting", [[1, 0, 0, 4], [5, 0, 0, 8]]),
    ("dynamic_inpainting", [[0, 0, 3, 4], [5, 6, 0, 0]]),
    ("dynamic_outpainting", [[1, 2, 0, 0], [0, 0, 7, 8]]),
  ],
)
def test_inpainting_and_moving_strips_hide_by_zeros(task, rows):
  filled = _fill(task, [[1, 2, 3, 4], [5, 6, 7, 8]])
  np.testing.assert_array_equal(filled[:, 1], rows)


@pytest.mark.parametrize("task", sorted(tasks.TASKS))
def test_the_condition_clip_is_the_clip_where_it_is_given(task):
  video = np.random.default_rng(0).random((1, 5, 8, 8, 3), np.float32)
  given = tasks.given_pixels(task, video.shape[1:4], 3)
  fill = tasks.TASKS[task].fill
  filled = fill(jnp.asarray(video), given)
  np.testing.assert_array_equal(filled[:, given], video[:, given])
  other = np.where(given[..., None], video, 0.5)  # hidden pixels are not read
  np.testing.assert_array_equal(filled, fill(jnp.asarray(other), given))


def test_task_tokens_are_rows_of_the_table_one_for_each_family():
  tokens = {name: task.token for name, task in tasks.TASKS.items()}
  assert all(0 <= token < tasks.TASK_SLOTS for token in tokens.values())
  families = {}
  for name, token in tokens.items():
    families.setdefault(token, set()).add(name.rsplit("_", 1)[-1])
  assert families == {  # rows 0, 1 and 2 are as the first release stored them
    0: {"conditional"},
    1: {"prediction"},
    2: {"inpainting"},
    3: {"interpolation"},
    4: {"outpainting"},
  }


@pytest.mark.parametrize(
  "task, shape",
  [("frame_prediction", (1, 4, 4)), ("central_inpainting", (5, 1, 1))],
)
def test_a_grid_too_small_for_a_task_is_refused(task, shape):
  match = re.escape(f"{shape} latents: set tasks.{task}=0")
  with pytest.raises(ValueError, match=f"^tasks.{task} .*{match}"):
    _latents(task, shape, 1)


@pytest.mark.parametrize("per_clip", [False, True])
def test_masks_have_one_ratio_for_the_batch_or_one_per_clip(per_clip):
  masks = sampling.training_mask(jax.random.key(0), 64, 80, per_clip)
  counts = np.asarray(masks.sum(-1))
  assert counts.min() >= 1
  assert (len(set(counts)) > 10) == per_clip
  assert len(set(counts)) == 1 or per_clip


def test_the_mask_ratio_follows_the_cosine_of_a_uniform_draw():
  """E[cos(pi r / 2)] = 2 / pi."""
  masks = sampling.training_mask(jax.random.key(0), 4000, 200, True)
  # Standard error 0.31 / sqrt(4000) = 0.005; flooring takes up to 1 / 200.
  np.testing.assert_allclose(masks.mean(), 2 / np.pi, atol=0.02)


def test_every_position_is_masked_equally_often():
  masks = sampling.training_mask(jax.random.key(0), 4000, 10, True)
  np.testing.assert_allclose(masks.mean(0), masks.mean(), atol=0.05)


@pytest.mark.parametrize("name", sorted(sampling.SCHEDULES))
def test_schedules_fall_from_everything_to_nothing(name):
  r = jnp.linspace(0, 1, 50)
  share = sampling.SCHEDULES[name](r, 64)
  np.testing.assert_allclose(share[0], 1.0, atol=1 / 64)  # exp: all but one
  np.testing.assert_allclose(share[-1], 0.0, atol=1e-6)
  assert (jnp.diff(share) <= 0).all() and (share <= 1).all()


def test_the_values_of_the_schedules_half_way():
  half = {
    name: float(share(jnp.float32(0.5), 64))
    for name, share in sampling.SCHEDULES.items()
  }
  assert half == pytest.approx(
    {
      "cosine": 0.5**0.5,
      "uniform": 0.5,
      "exp": 7 / 8,  # 1 - 64^-0.5
      "log": 1 / 6,  # -log2(0.5) / log2(64)
      "pow0.5": 1 - 0.5**0.5,
      "pow2": 3 / 4,
      "pow3": 7 / 8,
    },
    abs=1e-6,
  )


@pytest.mark.parametrize("frames", [0, 2, 17, 20])
def test_condition_frames_must_be_whole_latents(frames):
  match = rf"^condition_frames={frames} .* \[1, 5, 9, 13\]"
  with pytest.raises(ValueError, match=match):
    tasks.check_condition_frames(frames, 17, 4)


def test_without_causality_any_number_of_condition_frames_is_taken():
  tasks.check_condition_frames(4, 16, 1)
  with pytest.raises(ValueError, match="condition_frames=16"):
    tasks.check_condition_frames(16, 16, 1)
