"""Tests of crops: which part of a frame each rule keeps."""

import numpy as np
from PIL import Image
import pytest

from input_pipeline import crops


def _crop(rule, size=8, **changes):
  fields = dict(short_side=size, scale=(0.8, 1.0), flip=False, filter="box")
  return crops.Crop(rule, size, **{**fields, **changes})


def _place(height, width):
  """A frame whose pixels hold their places: (y, x, 0)."""
  y, x = np.mgrid[:height, :width]
  return np.stack([y, x, np.zeros_like(x)], -1).astype(np.uint8)


def _cut(crop, frames, number=0, seed=0):
  return crop(frames, number, np.random.default_rng(seed))


def test_centre_and_the_three_crops_without_a_change_of_size():
  wide, tall = _place(8, 20), _place(20, 8)
  np.testing.assert_array_equal(_cut(_crop("centre"), [wide])[0], wide[:, 6:14])
  crop = _crop("three")
  assert crop.count == 3
  for number, start in enumerate((0, 6, 12)):
    cut = slice(start, start + 8)
    np.testing.assert_array_equal(_cut(crop, [wide], number)[0], wide[:, cut])
    np.testing.assert_array_equal(_cut(crop, [tall], number)[0], tall[cut])


def test_the_short_side_sets_the_scale_and_squash_keeps_all():
  frame = _place(16, 40)
  half = frame.reshape(8, 2, 20, 2, 3).mean((1, 3))
  # Box means of 2 x 2; .5 is rounded up or down.
  near = dict(atol=0.5)
  np.testing.assert_allclose(
    _cut(_crop("centre"), [frame])[0], half[:, 6:14], **near
  )
  np.testing.assert_allclose(
    _cut(_crop("centre", size=4, short_side=8), [frame])[0],
    half[2:6, 8:12],
    **near,
  )
  fifths = _place(16, 40).reshape(8, 2, 8, 5, 3).mean((1, 3))
  np.testing.assert_allclose(_cut(_crop("squash"), [frame])[0], fifths, **near)


@pytest.mark.parametrize(
  "rule, low, high", [("random", 8, 8), ("random_resized", 6.4, 8)]
)
def test_random_crops_reach_everywhere_and_have_the_stated_size(
  rule, low, high
):
  frame = 10 * _place(8, 24)
  crop = _crop(rule, filter="bilinear")
  corners, spans = [], []
  for seed in range(200):
    cut = _cut(crop, [frame], seed=seed)[0].astype(float)
    # Centres of the outer pixels, but for the two that antialiasing mixes.
    spans.append((cut[4, 6, 1] - cut[4, 1, 1]) / 10 * 8 / 5)
    corners.append(cut[4, 3:5, 1].mean() / 10)
  assert low - 0.1 < min(spans) < low + 0.15
  assert high - 0.15 < max(spans) < high + 0.1
  assert min(corners) < 4.5 and max(corners) > 18.5


def test_all_frames_are_cut_alike_and_half_of_the_clips_are_flipped():
  frame = _place(10, 24)
  clip = _cut(_crop("random_resized", flip=True), [frame] * 3, seed=4)
  assert clip.shape == (3, 8, 8, 3) and clip.dtype == np.uint8
  np.testing.assert_array_equal(clip[0], clip[2])
  flipped = 0
  for seed in range(200):
    plain = _cut(_crop("centre"), [frame], seed=seed)
    other = _cut(_crop("centre", flip=True), [frame], seed=seed)
    if (plain != other).any():
      flipped += 1
      np.testing.assert_array_equal(plain[:, :, ::-1], other)
  assert 75 < flipped < 125  # 100 expected; 3.5 standard deviations


def test_adm_halves_by_means_and_then_is_bicubic():
  rng = np.random.default_rng(0)
  frame = rng.integers(0, 256, (36, 50, 3), dtype=np.uint8)
  halves = Image.fromarray(frame).reduce(2)  # 18 x 25; 18 < 2 * 16
  resized = halves.resize((round(25 * 16 / 18), 16), Image.Resampling.BICUBIC)
  expected = np.asarray(resized)[:, 3:19]
  # `reduce` rounds half up, `resize` down; bicubic weights can double that.
  cut = _cut(_crop("adm", size=16), [frame])[0].astype(int)
  np.testing.assert_allclose(cut, expected, atol=2)


def test_every_box_lies_in_the_frame():
  for height, width in ((97, 341), (341, 97), (7, 7), (128, 171)):
    for rule in crops.RULES:
      crop = _crop(rule, size=7, short_side=9)
      for seed in range(50):
        frame = np.zeros((height, width, 3), np.uint8)
        assert _cut(crop, [frame], crop.count - 1, seed).shape == (1, 7, 7, 3)


@pytest.mark.parametrize(
  "changes, message",
  [
    (dict(rule="middle"), "train_crop or eval_crop='middle' .*'centre'"),
    (dict(filter="area"), "dataset.filter='area' .*'box'"),
    (dict(short_side=7), "dataset.short_side=7 .*dataset.size=8"),
    (dict(scale=(1.0, 0.8)), r"dataset.scale=\(1.0, 0.8\) .*\(0, 1\]"),
    (dict(size=0, short_side=0), "dataset.size=0 .* 1"),
  ],
)
def test_settings_that_cannot_work_are_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    _crop(**{"rule": "centre", **changes})
