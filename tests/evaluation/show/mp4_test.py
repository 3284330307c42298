"""Tests of evaluation/show/mp4.py: what is written is read back."""

import ctypes
import fractions
import platform

import av
import numpy as np
import pytest

from evaluation.show import mp4


def _waves(frames, height, width):
  t, y, x = np.mgrid[:frames, :height, :width]
  waves = [np.sin(x / 9 + t / 3), np.sin(y / 7 - t), np.cos((x + y) / 11)]
  return (128 + 120 * np.stack(waves, -1)).astype(np.uint8)


def _write(path, video_THWC, rate=25):
  with mp4.Writer(path, rate) as writer:
    for frame_HWC in video_THWC:
      writer.add(frame_HWC)


@pytest.mark.parametrize(
  "size, rate, coding",
  [
    ((32, 48), 25, "yuv420p"),
    ((33, 47), fractions.Fraction(30000, 1001), "yuv444p"),
    ((32, 47), fractions.Fraction(1234567, 98765), "yuv444p"),
    ((1, 1), fractions.Fraction(1, 10), "yuv444p"),
  ],
)
def test_size_number_and_rate_are_kept(tmp_path, size, rate, coding):
  video = _waves(5, *size)
  _write(tmp_path / "new" / "a.mp4", video, rate)
  with av.open(str(tmp_path / "new" / "a.mp4")) as container:
    stream = container.streams.video[0]
    assert stream.codec_context.pix_fmt == coding
    assert float(stream.average_rate) == pytest.approx(float(rate), rel=1e-3)
    read = [f.to_ndarray(format="rgb24") for f in container.decode(stream)]
  assert np.shape(read) == video.shape
  error = np.float32(read) - video
  # Halving the resolution of colour costs most of it.
  assert np.sqrt(np.square(error).mean()) < (8 if coding == "yuv420p" else 4)


def test_colours_are_those_given(tmp_path):
  solid = np.broadcast_to(np.uint8([200, 30, 60]), (2, 16, 16, 3))
  _write(tmp_path / "a.mp4", solid)
  with av.open(str(tmp_path / "a.mp4")) as container:
    assert container.streams.video[0].codec_context.colorspace == 1
    frame = next(container.decode(video=0)).to_ndarray(format="rgb24")
  # The wrong matrix moves a channel by 15 and more.
  np.testing.assert_allclose(frame, np.float32(solid[0]), atol=3)


@pytest.mark.parametrize("size", [(142, 142), (160, 160), (143, 143)])
def test_the_bytes_do_not_depend_on_what_memory_held(tmp_path, size):
  if platform.libc_ver()[0] != "glibc":
    pytest.skip("only glibc fills new memory with a given byte")
  perturb, library = -6, ctypes.CDLL(None)
  noise = np.random.default_rng(0).integers(-9, 9, (10, *size, 3))
  video = np.clip(_waves(10, *size) + noise, 0, 255).astype(np.uint8)
  try:
    for byte in (1, 85, 170):
      assert library.mallopt(perturb, byte) == 1
      _write(tmp_path / f"{byte}.mp4", video)
  finally:
    library.mallopt(perturb, 0)
  first, *others = (path.read_bytes() for path in tmp_path.iterdir())
  assert len(others) == 2 and all(other == first for other in others)


def test_a_failure_leaves_no_file(tmp_path):
  path = tmp_path / "a.mp4"
  with pytest.raises(ValueError, match=r"\(16, 18\) .*first, \(16, 16\)"):
    with mp4.Writer(path, 25) as writer:
      for _ in range(90):  # the encoder holds many back before it writes
        writer.add(np.zeros((16, 16, 3), np.uint8))
      assert list(tmp_path.iterdir())
      writer.add(np.zeros((16, 18, 3), np.uint8))
  with pytest.raises(ValueError, match=r"\(16, 16, 3\) .*float32.* uint8"):
    _write(path, np.zeros((2, 16, 16, 3), np.float32))
  assert not list(tmp_path.iterdir())


def test_a_failure_of_the_encoder_names_the_file(tmp_path):
  for size, rate in (((8, 16400), 25), ((8, 8), 10**12)):
    with pytest.raises(ValueError, match="a.mp4: .*up to 16384 pixels a side"):
      _write(tmp_path / "a.mp4", np.zeros((2, *size, 3), np.uint8), rate)
    assert not list(tmp_path.iterdir())


def test_a_frame_may_last_an_hour(tmp_path):
  _write(tmp_path / "a.mp4", _waves(3, 16, 16), fractions.Fraction(1, 3600))
  with av.open(str(tmp_path / "a.mp4")) as container:
    stream = container.streams.video[0]
    assert stream.average_rate == fractions.Fraction(1, 3600)
    assert stream.sample_aspect_ratio == 1
