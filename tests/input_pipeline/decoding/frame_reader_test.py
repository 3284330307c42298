"""Tests of frame_reader: exact frames, no more decoded than needed."""

import dataclasses

import numpy as np
from PIL import Image
import pytest

from input_pipeline.decoding import frame_reader
from input_pipeline.decoding import media
from tests import raw_data


def _encoded(*parts):
  return frame_reader.Encoded("the-name", 0, parts)


@pytest.mark.parametrize(
  "file, codec, options",
  [
    ("closed.mp4", "libx264", {}),
    ("open.mp4", "libx264", {"x264-params": "open-gop=1"}),
    ("refresh.mp4", "libx264", {"x264-params": "intra-refresh=1"}),
    ("hevc.mp4", "libx265", {"x265-params": "log-level=none"}),
    ("vp9.webm", "libvpx-vp9", {"deadline": "realtime"}),
    ("xvid.avi", "mpeg4", {}),
    ("stream.ts", "libx264", {}),  # a seek lands elsewhere
    ("old.mpg", "mpeg2video", {}),  # a seek lands elsewhere
  ],
)
def test_frames_are_those_of_a_full_decode(tmp_path, file, codec, options):
  path = tmp_path / file
  raw_data.video(path, raw_data.frames(26, seed=1), codec, **options)
  whole = list(media.probe(str(path)).frames())
  assert len(whole) == 26
  for part in (str(path), path.read_bytes()):
    encoded = _encoded(part)
    assert frame_reader.count_frames(encoded) == 26
    for start in range(0, 18, 3 if part == str(path) else 7):
      wanted = [start, start + 4, start + 8]
      frames = frame_reader.read(encoded, lambda n, w=wanted: w)
      np.testing.assert_array_equal(frames, [whole[i] for i in wanted])


def test_decoding_starts_at_the_last_keyframe_before_the_clip(
  tmp_path, monkeypatch
):
  path = tmp_path / "a.mp4"
  raw_data.video(path, raw_data.frames(60, seed=1), keyframes=10)
  decoded = []
  until = frame_reader._until

  def counted(*args):
    for frame in until(*args):
      decoded.append(frame.pts)
      yield frame

  monkeypatch.setattr(frame_reader, "_until", counted)
  frame_reader.read(_encoded(str(path)), lambda n: [44, 47])
  assert 4 <= len(decoded) <= 4 + 10  # far from 60; B-frames may come before


def test_a_file_whose_packets_do_not_number_its_frames_is_counted(
  tmp_path, monkeypatch
):
  path = tmp_path / "a.mp4"
  raw_data.video(path, raw_data.frames(9, seed=1))
  whole = list(media.probe(str(path)).frames())
  index = frame_reader._index(str(path))
  wrong = dataclasses.replace(index, times=[*index.times, 10**9])
  lengths = []

  def last(length):
    lengths.append(length)
    return [length - 1]

  monkeypatch.setattr(frame_reader, "_index", lambda part: wrong)
  (frame_HWC,) = frame_reader.read(_encoded(str(path)), last)
  np.testing.assert_array_equal(frame_HWC, whole[8])
  assert lengths == [10, 9]


def test_images_and_frames_of_a_folder(tmp_path):
  clip = raw_data.frames(4, seed=2)
  paths = [str(tmp_path / f"{i}.png") for i in range(4)]
  for path, frame_HWC in zip(paths, clip, strict=True):
    Image.fromarray(frame_HWC).save(path)
  frames = frame_reader.read(_encoded(*paths), lambda n: [1, n - 1])
  np.testing.assert_array_equal(frames, clip[[1, 3]])
  (frame_HWC,) = frame_reader.read(_encoded(paths[2]), range)
  np.testing.assert_array_equal(frame_HWC, clip[2])
  assert frame_reader.count_frames(_encoded(*paths)) == 4
  assert frame_reader.count_frames(_encoded(paths[0])) == 1


def test_damaged_files_are_named(tmp_path):
  path = tmp_path / "a.mp4"
  raw_data.video(path, raw_data.frames(20, seed=1))
  whole = path.read_bytes()
  for damaged in (b"", whole[:-200], whole[: len(whole) // 2]):
    with pytest.raises(ValueError, match="the-name: "):
      frame_reader.read(_encoded(damaged), lambda n: [n - 1])
  big, small = tmp_path / "big.png", tmp_path / "small.png"
  raw_data.image(big, 0)
  raw_data.image(small, 0, height=24)
  with pytest.raises(ValueError, match=r"the-name: .*\[\(24, 64\), \(48"):
    frame_reader.read(_encoded(str(big), str(small)), range)
