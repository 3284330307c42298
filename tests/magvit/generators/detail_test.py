"""Tests of magvit/generators/detail.py."""

import numpy as np
import pytest

from magvit.generators import detail
from magvit.generators import tasks


@pytest.mark.parametrize(
  "task, shares",
  [
    ("class_conditional", np.zeros((5, 5))),
    ("central_inpainting", np.zeros((5, 5))),
    ("dynamic_outpainting", np.zeros((5, 5))),
    (
      "frame_prediction",
      [
        [1, 0, 0, 0, 0],
        [0, 1, 0, 0, 0],
        [0, 0, 1, 0, 0],
        [0, 0, 1, 0, 0],
        [0, 0, 1, 0, 0],
      ],
    ),
    (
      "interpolation",
      [
        [1, 0, 0, 0, 0],
        [27 / 28, 0, 0, 0, 1 / 28],
        [0.5, 0, 0, 0, 0.5],
        [1 / 28, 0, 0, 0, 27 / 28],
        [0, 0, 0, 0, 1],
      ],
    ),
  ],
)
def test_detail_is_half_by_given_frames_and_half_by_the_condition(task, shares):
  given = tasks.given_pixels(task, (5, 8, 8), 3)
  made = detail.shares(given)
  assert made.dtype == np.float32
  shares = np.array(shares, np.float32)
  hidden = (shares.sum(1) > 0) & (np.diagonal(shares) == 0)
  shares[hidden] /= 2
  both = np.stack([shares, np.diag(hidden / 2)])
  np.testing.assert_allclose(made, both, rtol=1e-6)


@pytest.mark.parametrize("task", ["frame_prediction", "interpolation"])
def test_detail_that_all_frames_lack_is_carried_whole(task):
  """A still scene, whose grain a tokenizer loses, is given back its grain."""
  rng = np.random.default_rng(0)
  still = np.broadcast_to(
    0.2 + 0.6 * rng.random((2, 1, 8, 8, 3)), (2, 5, 8, 8, 3)
  )
  lost = rng.uniform(-0.1, 0.1, still[:, :1].shape)
  shares = detail.shares(tasks.given_pixels(task, (5, 8, 8), 3))
  carried = detail.restore(shares, still - lost, still, still - lost)
  np.testing.assert_allclose(carried, still, atol=1e-6)  # float32


def test_a_hidden_frame_gets_the_mean_of_both_estimates_of_its_detail():
  rng = np.random.default_rng(0)
  completed, condition, tokenized = rng.uniform(0.4, 0.6, (3, 2, 5, 8, 8, 3))
  shares = detail.shares(tasks.given_pixels("frame_prediction", (5, 8, 8), 3))
  made = detail.restore(shares, completed, condition, tokenized)
  np.testing.assert_allclose(made[:, :3], condition[:, :3], atol=1e-6)
  last = condition[:, 2:3] - completed[:, 2:3]
  lost = condition[:, 3:] - tokenized[:, 3:]
  expected = completed[:, 3:] + (last + lost) / 2
  np.testing.assert_allclose(made[:, 3:], expected, atol=1e-6)


def test_carried_detail_stays_within_the_range_of_pixels():
  condition = np.ones((1, 5, 8, 8, 3), np.float32)
  completed = np.linspace(0, 1, 5, dtype=np.float32)[:, None, None, None]
  completed = np.broadcast_to(completed, condition.shape)
  shares = detail.shares(tasks.given_pixels("frame_prediction", (5, 8, 8), 3))
  carried = detail.restore(shares, completed, condition, 0 * condition)
  np.testing.assert_array_equal(carried, condition)
