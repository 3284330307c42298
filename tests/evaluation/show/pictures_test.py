"""Tests of evaluation/show/pictures.py."""

import numpy as np
from PIL import Image
from PIL import ImageSequence
import pytest

from evaluation.show import pictures
from storage import files


def _flat_clips(values, frames=1, height=2, width=3):
  """Clips BTHWC of one grey each: clip b is `values[b]` everywhere."""
  values = np.asarray(values, np.uint8).reshape(-1, 1, 1, 1, 1)
  return np.broadcast_to(values, (len(values), frames, height, width, 3)).copy()


def _read_gif(path):
  with Image.open(path) as image:
    frames = [
      np.asarray(frame.convert("RGB"))
      for frame in ImageSequence.Iterator(image)
    ]
    return np.stack(frames), image.info


def test_to_uint8_clips_and_rounds_to_nearest():
  video = np.array([-0.1, 0.0, 0.499 / 255, 0.501 / 255, 0.5, 1.0, 1.1])
  # 0.5 * 255 = 127.5 rounds to the even 128.
  assert pictures.to_uint8(video).tolist() == [0, 0, 0, 1, 128, 255, 255]


def test_to_uint8_of_every_level_is_the_identity():
  levels = np.arange(256, dtype=np.uint8)
  np.testing.assert_array_equal(pictures.to_uint8(levels), levels)
  as_float = levels.astype(np.float32) / 255
  np.testing.assert_array_equal(pictures.to_uint8(as_float), levels)


@pytest.mark.parametrize(
  "video, reason",
  [
    (np.zeros(4, np.int32), "dtype int32"),
    (np.array([0.5, np.nan]), r"video\[1\] is nan.*1 of 2"),
    (np.linspace(-1, 1, 100), r"\(x \+ 1\) / 2"),
    (np.linspace(0, 255, 100), "x / 255"),
  ],
)
def test_to_uint8_refuses_what_was_never_a_unit_range_video(video, reason):
  with pytest.raises(ValueError, match=reason):
    pictures.to_uint8(video)


def test_tile_places_clips_row_by_row_with_grey_between():
  grid_THWC = pictures.tile(_flat_clips([10, 20, 30]), columns=2, padding=1)
  expected_HW = [
    [10, 10, 10, 128, 20, 20, 20],
    [10, 10, 10, 128, 20, 20, 20],
    [128, 128, 128, 128, 128, 128, 128],
    [30, 30, 30, 128, 128, 128, 128],
    [30, 30, 30, 128, 128, 128, 128],
  ]
  assert grid_THWC.shape == (1, 5, 7, 3)
  for channel in range(3):
    assert grid_THWC[0, :, :, channel].tolist() == expected_HW


def test_tile_keeps_the_order_of_frames():
  videos_BTHWC = np.stack([_flat_clips([1, 2, 3])[:, 0]] * 2)
  grid_THWC = pictures.tile(videos_BTHWC, columns=1)
  assert grid_THWC[:, 0, 0, 0].tolist() == [1, 2, 3]


def test_side_by_side_pairs_clip_with_clip():
  left_BTHWC, right_BTHWC = _flat_clips([10, 20]), _flat_clips([11, 21])
  pairs_BTHWC = pictures.side_by_side([left_BTHWC, right_BTHWC])
  assert pairs_BTHWC[:, 0, 0, :, 0].tolist() == [
    [10, 10, 10, 128, 11, 11, 11],
    [20, 20, 20, 128, 21, 21, 21],
  ]


def test_side_by_side_refuses_unequal_shapes():
  with pytest.raises(ValueError, match=r"\(1, 1, 2, 3, 3\), \(2, 1, 2, 3, 3\)"):
    pictures.side_by_side([_flat_clips([1]), _flat_clips([1, 2])])


def test_filmstrip_has_clips_as_rows_and_every_second_frame_as_columns():
  videos_BTHWC = np.zeros((2, 5, 1, 1, 3), np.uint8)
  videos_BTHWC[:, :, 0, 0, :] = np.arange(10).reshape(2, 5, 1)
  strip_HWC = pictures.filmstrip(videos_BTHWC, every=2, padding=0)
  assert strip_HWC[:, :, 0].tolist() == [[0, 2, 4], [5, 7, 9]]


def test_stack_places_pictures_of_any_size_below_each_other():
  small = np.full((2, 3, 3), 10, np.uint8)
  wide = np.full((40, 100, 3), 20, np.uint8)
  stacked = pictures.stack([small, wide], max_width=50, padding=4)
  assert stacked.shape == (2 + 4 + 20, 50, 3)  # the wide one is halved
  assert (stacked[:2, :3] == 10).all() and (stacked[6:] == 20).all()
  assert (stacked[2:6] == 128).all() and (stacked[:2, 3:] == 128).all()


def test_grey_gif_is_exact_and_loops_for_ever(tmp_path):
  rng = np.random.default_rng(0)
  grey = rng.integers(0, 256, (5, 16, 16, 1), np.uint8)
  video_THWC = np.repeat(grey, 3, axis=-1)
  path = pictures.write_gif(tmp_path / "a.gif", video_THWC, fps=10, scale=1)
  read_THWC, info = _read_gif(path)
  np.testing.assert_array_equal(read_THWC, video_THWC)
  assert info["loop"] == 0
  assert info["duration"] == 100


def test_colour_gif_is_near_and_does_not_dither(tmp_path):
  ramp = np.linspace(0, 1, 32, dtype=np.float32)
  red_HW, green_HW = np.meshgrid(ramp, ramp)
  frame_HWC = np.stack([red_HW, green_HW, 1 - red_HW], axis=-1)
  video_THWC = np.stack([frame_HWC, frame_HWC[::-1]])
  path = pictures.write_gif(tmp_path / "a.gif", video_THWC, scale=1)
  read_THWC, _ = _read_gif(path)
  # 1024 colours on a 32 x 32 square shared by 256 entries: cells of 2 x 2, so
  # a step of 8 levels at most in the mean, 3 steps at worst.
  error = np.abs(read_THWC.astype(int) - pictures.to_uint8(video_THWC))
  assert error.mean() < 8
  assert error.max() <= 24
  # The same colour is stored alike wherever it stands: no dither, no flicker.
  np.testing.assert_array_equal(read_THWC[0], read_THWC[1, ::-1])


def test_gif_of_a_clip_that_pauses_lasts_as_long_as_the_clip(tmp_path):
  values = [0, 50, 50, 50, 100]
  video_THWC = _flat_clips(values)[:, 0]
  path = pictures.write_gif(tmp_path / "a.gif", video_THWC, fps=10)
  with Image.open(path) as image:
    durations = [
      frame.info["duration"] for frame in ImageSequence.Iterator(image)
    ]
  assert sum(durations) == 500


@pytest.mark.parametrize("width, expected", [(32, 800), (300, 600), (900, 900)])
def test_small_pictures_are_enlarged_by_a_whole_factor(
  tmp_path, width, expected
):
  image_HWC = np.zeros((4, width, 3), np.uint8)
  path = pictures.write_png(tmp_path / "a.png", image_HWC)
  with Image.open(path) as image:
    assert image.size == (expected, 4 * expected // width)


def test_png_enlargement_repeats_pixels(tmp_path):
  image_HWC = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
  path = pictures.write_png(tmp_path / "new" / "a.png", image_HWC, scale=3)
  read_HWC = np.asarray(Image.open(path))
  np.testing.assert_array_equal(
    read_HWC, np.kron(image_HWC, np.ones((3, 3, 1), np.uint8))
  )


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
  tmp_path, monkeypatch
):
  path = files.write_atomically(tmp_path / "a.txt", b"old")

  def fail(*_):
    raise OSError("disk full")

  monkeypatch.setattr(files.os, "replace", fail)
  with pytest.raises(OSError, match="disk full"):
    files.write_atomically(path, b"new")
  assert path.read_bytes() == b"old"
  assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
  "call, reason",
  [
    (lambda: pictures.tile(np.zeros((1, 2, 2, 3)), 1), "expected BTHWC"),
    (lambda: pictures.tile(np.zeros((1, 1, 2, 2, 1)), 1), "C = 3"),
    (lambda: pictures.tile(np.zeros((1, 1, 2, 2, 3)), 0), "columns=0"),
    (lambda: pictures.filmstrip(_flat_clips([1]), every=0), "every=0"),
    (lambda: pictures.write_gif("x", np.zeros((2, 2, 3))), "expected THWC"),
    (lambda: pictures.write_gif("x", np.zeros((1, 2, 2, 3)), fps=60), "fps=60"),
    (lambda: pictures.write_png("x", np.zeros((1, 2, 2, 3))), "expected HWC"),
    (lambda: pictures.write_png("x", np.zeros((2, 2, 3)), 0.5), "scale=0.5"),
  ],
)
def test_errors_name_the_field_and_what_was_expected(call, reason):
  with pytest.raises(ValueError, match=reason):
    call()
