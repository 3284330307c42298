"""Tests of magvit/scoring/pictures.py: captions say what pictures show."""

import json

import numpy as np
from PIL import Image
import pytest

from magvit.scoring import pictures


def _published(tmp_path, frames):
  videos = np.zeros((5, frames, 4, 4, 3), np.uint8)
  pictures._publish(str(tmp_path), "a", videos, 4, "Clips", "All of them.")
  samples = tmp_path / "samples"
  captions = json.loads((samples / "captions.json").read_text())
  assert {p.name for p in samples.iterdir()} == {*captions, "captions.json"}
  return samples, captions


def test_stills_are_one_picture_and_not_called_frames(tmp_path):
  samples, captions = _published(tmp_path, 1)
  assert captions == {"a.png": {"title": "Clips", "caption": "All of them."}}
  with Image.open(samples / "a.png") as image:
    assert image.width > image.height  # four in the first row, one below


@pytest.mark.parametrize("frames, shown", [(2, 1), (5, 3), (17, 9)])
def test_a_strip_shows_the_frames_that_its_caption_names(
  tmp_path, frames, shown
):
  samples, captions = _published(tmp_path, frames)
  assert captions["a.png"]["caption"] == (
    f"The first 4, one a row; every second frame of {frames} from left to"
    " right, beginning with the first."
  )
  with Image.open(samples / "a.png") as image:
    pitch = (image.height + 2 * image.height / 22) / 4
    assert round(image.width / pitch) == shown
