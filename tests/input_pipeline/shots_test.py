"""Tests of input_pipeline/shots.py on frames with known cuts."""

import numpy as np
import pytest

from input_pipeline import shots
from tests import raw_data


def _thumbs(video_THWC):
  return np.stack([shots.thumbnail(frame) for frame in video_THWC])


def _scene(count, seed):
  """uint8 (count, 18, 32, 3): a camera that moves over smooth noise."""
  return _thumbs(raw_data.frames(count, seed, 54, 96))


def test_every_cut_is_found_and_no_other():
  lengths = (30, 21, 7, 40, 3)
  scenes = [_scene(count, seed) for seed, count in enumerate(lengths)]
  thumbs = np.concatenate(scenes)
  assert shots.cuts(thumbs) == np.cumsum(lengths)[:-1].tolist()
  spans = shots.find(thumbs, frames=17)
  assert spans == [(1, 29), (31, 50), (59, 97)]


def test_flashes_fades_noise_and_fast_motion_are_no_cuts():
  scene = _scene(60, seed=0)
  flash = scene.copy()
  flash[20] = 255
  fade = (scene * np.linspace(1, 0, 60)[:, None, None, None]).astype(np.uint8)
  rng = np.random.default_rng(0)
  noise = np.clip(scene + rng.normal(0, 6, scene.shape), 0, 255)
  wide = raw_data.frames(1, 1, 18, 600)[0]
  pan = np.stack([wide[:, 9 * i : 9 * i + 32] for i in range(60)])
  for thumbs in (scene, flash, fade, noise.astype(np.uint8), pan):
    assert shots.cuts(thumbs) == []


def test_a_cut_in_the_midst_of_motion_is_found():
  wide = raw_data.frames(1, 1, 18, 300)[0]
  pan = np.stack([wide[:, 4 * i : 4 * i + 32] for i in range(60)])
  other = 255 - np.stack([wide[:, 4 * i : 4 * i + 32] for i in range(30)])
  assert shots.cuts(np.concatenate([pan, other])) == [60]


@pytest.mark.parametrize("count", range(6))
def test_videos_of_a_few_frames_have_no_cuts(count):
  thumbs = _scene(6, seed=0)[:count]
  assert shots.cuts(thumbs) == []
  assert shots.find(thumbs, frames=7) == []


def test_black_frames_and_what_is_left_out_belong_to_no_shot():
  thumbs = _scene(100, seed=0)
  thumbs[40:45] = 9
  assert shots.find(thumbs, 17) == [(1, 39), (46, 99)]
  assert shots.find(thumbs, 17, [(0, 10), (80, 100)]) == [(11, 39), (46, 79)]
  assert shots.find(thumbs, 30, [(0, 10), (80, 100)]) == [(46, 79)]


def test_pieces_cover_a_shot_and_leave_out_stills():
  thumbs = _scene(100, seed=0)
  pieces = shots.moving_pieces(thumbs, (3, 63), 17)
  assert pieces == [(3, 23), (23, 43), (43, 63)]
  assert shots.moving_pieces(thumbs, (3, 19), 17) == []
  rng = np.random.default_rng(0)
  thumbs[23:43] = thumbs[23] ^ rng.integers(0, 2, thumbs[23:43].shape, np.uint8)
  pieces = shots.moving_pieces(thumbs, (3, 63), 17)
  assert pieces == [(3, 23), (23, 43), (43, 63)][::2]


def test_blocks_do_not_change_the_result(monkeypatch):
  thumbs = np.concatenate([_scene(12, 0), _scene(15, 1), _scene(9, 2)])
  whole = shots.cuts(thumbs)
  monkeypatch.setattr(shots, "_BLOCK", 5)
  assert shots.cuts(thumbs) == whole == [12, 27]
