"""Tests of magvit/compression/video_codecs.py."""

import fractions

import numpy as np
import pytest

from evaluation.metrics import frames as frame_metrics
from magvit.compression import video_codecs

_RATE = fractions.Fraction(30000, 1001)
_CODECS = (
  video_codecs.x264("ultrafast", (20, 40)),
  video_codecs.x265("ultrafast", (20, 40)),
  video_codecs.vvenc("faster", (20, 40)),
)


def _video():
  """A smooth grey pattern that moves: 4:2:0 takes nothing away from it."""
  y, x = np.indices((48, 64))
  frames = [np.sin((x + 2 * t) / 7.0) * np.cos(y / 9.0) for t in range(5)]
  grey = np.rint(128 + 90 * np.stack(frames)).astype(np.uint8)
  return np.repeat(grey[..., None], 3, axis=-1)


@pytest.mark.parametrize("codec", _CODECS, ids=lambda codec: codec.name)
def test_a_lower_quantization_parameter_costs_more_and_is_closer(
  codec, tmp_path
):
  video = _video()
  sizes, scores = [], []
  for qp in codec.qps:
    path = str(tmp_path / f"{qp}.{codec.format}")
    video_codecs.encode(codec, qp, video, _RATE, path)
    output = video_codecs.decode(codec, path, video.shape[:3])
    assert output.shape == video.shape and output.dtype == np.uint8
    pair = (v[None] / 255.0 for v in (video, output))
    scores.append(frame_metrics.psnr(*pair).mean())
    with open(path, "rb") as f:
      data = f.read()
    sizes.append(len(data))
    assert data[:4] == b"\0\0\0\1"  # Annex-B, from the first byte on
    assert not any(name in data for name in (b"x264", b"x265", b"VVenC"))
  assert sizes[0] > sizes[1]
  # A wrong matrix or range alone would cost more than this.
  assert scores[0] > 38.0 and scores[0] > scores[1] + 3.0


def test_the_settings_are_those_for_comparisons_by_psnr():
  x264, x265, vvenc = (c.settings(30, 2.5) for c in _CODECS)
  assert x264[2:] == [
    *("-preset", "ultrafast", "-tune", "psnr"),
    *("-x264-params", "qp=30:keyint=infinite"),
    *("-bsf:v", "filter_units=remove_types=6", "-f", "h264"),
  ]
  assert x265[2:] == [
    *("-preset", "ultrafast", "-tune", "psnr"),
    *("-x265-params", "qp=30:keyint=-1:info=0:log-level=error", "-f", "hevc"),
  ]
  assert vvenc[2:] == [
    *("-preset", "faster", "-qp", "30", "-qpa", "0", "-period", "4"),
    *("-f", "vvc"),
  ]


def test_what_ffmpeg_says_reaches_the_user(tmp_path):
  with pytest.raises(ValueError, match="FFmpeg failed: .*preset.*nonsense"):
    codec = video_codecs.x265("nonsense", ())
    path = str(tmp_path / "a.hevc")
    video_codecs.encode(codec, 30, _video(), _RATE, path)
  with pytest.raises(ValueError, match="48 x 63 pixels must .* even"):
    path = str(tmp_path / "a.vvc")
    video_codecs.encode(_CODECS[1], 30, _video()[:, :, :63], _RATE, path)


def test_missing_frames_are_noticed(tmp_path):
  path = str(tmp_path / "a.hevc")
  video_codecs.encode(_CODECS[0], 30, _video(), _RATE, path)
  with pytest.raises(ValueError, match="6 frames of 48 x 64 have 55296"):
    video_codecs.decode(_CODECS[0], path, (6, 48, 64))
