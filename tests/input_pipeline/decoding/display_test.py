"""Tests of display: frames are shown as a viewer shows them."""

import fractions
import struct

import av
import numpy as np
import pytest

from input_pipeline.decoding import display
from input_pipeline.decoding import frame_reader
from input_pipeline.decoding import media
from input_pipeline.decoding import reencode
from tests import raw_data

_ONE = 1 << 16


def _video(path, pixel_aspect=fractions.Fraction(1), size=(16, 32)):
  with av.open(str(path), "w") as container:
    stream = container.add_stream("libx264", rate=25)
    stream.height, stream.width = size
    stream.pix_fmt = "yuv444p"
    stream.codec_context.sample_aspect_ratio = pixel_aspect
    for frame_HWC in raw_data.frames(3, 1, *size):
      frame_HWC = np.ascontiguousarray(frame_HWC)
      frame = av.VideoFrame.from_ndarray(frame_HWC, format="rgb24")
      container.mux(stream.encode(frame))
    container.mux(stream.encode())


def _frames(path):
  """Frames of a full decode, after a look that clips are the same."""
  frames = list(media.probe(str(path)).frames())
  encoded = frame_reader.Encoded("a", 0, (str(path),))
  np.testing.assert_array_equal(frame_reader.read(encoded, range), frames)
  return np.stack(frames)


@pytest.mark.parametrize(
  "matrix, expected",
  [
    ((1, 0, 0, 1), lambda x: x),
    ((-1, 0, 0, 1), np.fliplr),
    ((1, 0, 0, -1), np.flipud),
    ((-1, 0, 0, -1), lambda x: np.rot90(x, 2)),
    ((0, 1, -1, 0), lambda x: np.rot90(x, -1)),
    ((0, -1, 1, 0), np.rot90),
    ((0, 1, 1, 0), lambda x: x.swapaxes(0, 1)),
    ((0, -1, -1, 0), lambda x: np.rot90(x, 2).swapaxes(0, 1)),
  ],
)
def test_turns_and_mirrors_of_the_display_matrix(tmp_path, matrix, expected):
  path = tmp_path / "a.mp4"
  _video(path)
  stored = _frames(path)
  data = path.read_bytes()
  last = (0, 0, 0, 1 << 30)
  identity = struct.pack(">9i", _ONE, 0, 0, 0, _ONE, *last)
  a, b, c, d = (_ONE * n for n in matrix)
  at = data.index(identity, data.index(b"tkhd"))
  turned = struct.pack(">9i", a, b, 0, c, d, *last)
  path.write_bytes(data[:at] + turned + data[at + 36 :])
  np.testing.assert_array_equal(_frames(path), [expected(f) for f in stored])


@pytest.mark.parametrize(
  "aspect, size",
  [
    ((16, 11), (16, 46)),  # 46.5 pixels: the nearest even number
    ((1, 2), (32, 32)),  # no pixel is lost
    ((1, 1), (16, 32)),
  ],
)
def test_pixels_become_square(tmp_path, aspect, size):
  path = tmp_path / "a.mp4"
  _video(path, fractions.Fraction(*aspect))
  frames = _frames(path)
  assert frames.shape == (3, *size, 3)
  _video(tmp_path / "square.mp4")
  stored = _frames(tmp_path / "square.mp4")
  np.testing.assert_allclose(
    frames.mean((1, 2)), stored.mean((1, 2)), atol=2
  )  # the picture fills the frame
  encoded = frame_reader.Encoded("a", 0, (str(path),))
  copy, _ = reencode.reencode(encoded, reencode.Encoding(0, 0, 18, 12, 95))
  with media.open_video(copy.parts[0]) as container:
    stream = media.video_stream(container)
    assert (stream.height, stream.width) == size
    assert stream.sample_aspect_ratio == 1


def test_an_unknown_aspect_is_square_and_an_odd_side_stays_exact():
  assert display.square_size(9, 9, None) == (9, 9)
  assert display.square_size(9, 9, fractions.Fraction(0)) == (9, 9)
  assert display.square_size(9, 9, fractions.Fraction(16, 11)) == (9, 13)


def _cover(container):
  """Adds a PNG as the cover of what the container holds."""
  stream = container.add_stream("png", rate=1)
  stream.width, stream.height, stream.pix_fmt = 20, 10, "rgb24"
  stream.disposition = av.stream.Disposition.attached_pic
  return stream


def _sound_with_cover(path, video_THWC=()):
  with av.open(str(path), "w") as container:
    cover = _cover(container)
    sound = container.add_stream("aac", rate=8000, layout="mono")
    film = None
    if len(video_THWC):
      film = container.add_stream("libx264", rate=25)
      film.height, film.width = video_THWC.shape[1:3]
      film.pix_fmt = "yuv420p"
    frame = av.VideoFrame.from_ndarray(
      np.zeros((10, 20, 3), np.uint8), format="rgb24"
    )
    container.mux(cover.encode(frame))
    container.mux(cover.encode())
    silence = av.AudioFrame(format="fltp", layout="mono", samples=1024)
    silence.sample_rate = 8000
    for plane in silence.planes:
      plane.update(bytes(plane.buffer_size))
    container.mux(sound.encode(silence))
    container.mux(sound.encode())
    for frame_HWC in video_THWC:
      frame_HWC = np.ascontiguousarray(frame_HWC)
      frame = av.VideoFrame.from_ndarray(frame_HWC, format="rgb24")
      container.mux(film.encode(frame))
    if film is not None:
      container.mux(film.encode())


def test_a_cover_is_no_video(tmp_path):
  path = tmp_path / "a.mp4"
  _sound_with_cover(path)
  with pytest.raises(ValueError, match="a.mp4: .*no video stream"):
    media.probe(str(path))
  encoded = frame_reader.Encoded("the-name", 0, (str(path),))
  for act in (lambda e: frame_reader.read(e, range), frame_reader.count_frames):
    with pytest.raises(ValueError, match="the-name: .*no video stream"):
      act(encoded)


def test_the_film_beside_a_cover_is_read(tmp_path):
  path = tmp_path / "a.mp4"
  _sound_with_cover(path, raw_data.frames(5, 1))
  assert _frames(path).shape == (5, 48, 64, 3)
  assert media.probe(str(path)).coding == "h264 yuv420p"
