"""Tests of windows: the frames that each rule takes, in literals."""

import pytest

from input_pipeline import windows


def _window(rule, frames=3, stride=2, short_videos="error"):
  return windows.Window(rule, frames, stride, short_videos)


@pytest.mark.parametrize(
  "rule, expected",
  [
    ("first", [[0, 2, 4]]),
    ("centre", [[1, 3, 5]]),  # the earlier of two middles
    ("ends", [[0, 2, 4], [3, 5, 7]]),
    ("all", [[0, 2, 4], [1, 3, 5], [2, 4, 6], [3, 5, 7]]),
  ],
)
def test_clips_of_a_video_of_eight_frames(rule, expected):
  window = _window(rule)
  assert window.count(8) == len(expected)
  chosen = [window.choose(8, i, 0.7) for i in range(window.count(8))]
  assert chosen == expected


def test_every_random_window_is_as_likely():
  window = _window("random")
  starts = [window.choose(8, 0, (i + 0.5) / 40)[0] for i in range(40)]
  assert starts == [0] * 10 + [1] * 10 + [2] * 10 + [3] * 10


def test_bair_has_15_windows():
  assert windows.Window("all", 16, 1, "error").count(30) == 15


def test_short_videos():
  with pytest.raises(ValueError, match="4 frames, .* 5: .*short_videos='hold'"):
    _window("first").choose(4, 0, 0.0)
  for rule in windows.RULES:
    held = _window(rule, short_videos="hold")
    assert held.choose(4, 0, 0.9) == [0, 2, 3]
  assert _window("all", short_videos="hold").count(4) == 1


@pytest.mark.parametrize(
  "changes, message",
  [
    (dict(rule="middle"), "train_window or eval_window='middle' .*'centre'"),
    (dict(short_videos="skip"), "dataset.short_videos='skip' .*'hold'"),
    (dict(stride=0), "dataset.stride=0 .* 1"),
    (dict(frames=0), "dataset.frames=0 .* 1"),
  ],
)
def test_settings_that_cannot_work_are_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    _window(**{"rule": "first", **changes})
