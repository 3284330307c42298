"""Clips equal the full decode: codecs x containers x B-frames x GOPs x cuts."""

import itertools

import numpy as np
import pytest

from input_pipeline.decoding import frame_reader
from input_pipeline.decoding import media
from tests import ffmpeg
from tests import raw_data

_FAST = ("-deadline", "good", "-cpu-used", "5", "-lag-in-frames", "16")
# FFmpeg's options of each codec. VPx write packets without a frame so.
_CODECS = {
  "mpeg4": ("-c:v", "mpeg4"),
  "xvid": ("-c:v", "libxvid"),  # it packs two frames into a packet
  "msmpeg4": ("-c:v", "msmpeg4"),
  "wmv2": ("-c:v", "wmv2"),
  "h264": ("-c:v", "libx264"),
  "hevc": ("-c:v", "libx265"),
  "mpeg2": ("-c:v", "mpeg2video"),
  "vp8": ("-c:v", "libvpx", "-auto-alt-ref", "1", *_FAST),
  "vp9": ("-c:v", "libvpx-vp9", "-auto-alt-ref", "1", *_FAST),
  "av1": ("-c:v", "libsvtav1", "-preset", "12"),
  "mjpeg": ("-c:v", "mjpeg"),
  "theora": ("-c:v", "libtheora"),
}
_WITH_B_FRAMES = ("mpeg4", "xvid", "h264", "hevc", "mpeg2")
_CONTAINERS = ("avi", "mp4", "mkv", "mov", "ts", "flv", "webm", "ogv", "mpg")
_FRAMES = 40


def _options(codec, b_frames, open_gop):
  options = [*_CODECS[codec], "-g", "12", "-threads", "1"]
  if codec == "h264":
    params = f"open-gop={open_gop}:scenecut=0:threads=1"
    options += ["-bf", str(b_frames), "-x264-params", params]
  elif codec == "hevc":
    params = f"bframes={b_frames}:open-gop={open_gop}:keyint=12:min-keyint=12"
    options += ["-x265-params", f"{params}:scenecut=0:log-level=none:pools=1"]
  elif codec in _WITH_B_FRAMES:
    options += ["-bf", str(b_frames)]
    if not open_gop and codec != "xvid":
      options += ["-flags", "+cgop", "-sc_threshold", "1000000000"]
  pixels = "yuvj420p" if codec == "mjpeg" else "yuv420p"
  return [*options, "-pix_fmt", pixels]


def _differing(path, starts, lengths) -> tuple[int, int]:
  """(number of frames, number of clips that differ from the full decode)."""
  whole = list(media.probe(str(path)).frames())
  encoded = frame_reader.Encoded(path.name, 0, (str(path),))
  assert frame_reader.count_frames(encoded) == len(whole)
  wrong = 0
  for length in lengths:
    for start in starts(len(whole) - length + 1):
      chosen = range(start, start + length)
      frames = frame_reader.read(encoded, lambda n, chosen=chosen: chosen)
      wrong += not np.array_equal(frames, whole[start : start + length])
  return len(whole), wrong


def _assert_equal(path, starts, lengths):
  frames, wrong = _differing(path, starts, lengths)
  assert frames > 20 and not wrong, path.name


@pytest.mark.parametrize(
  "name, codec, b_frames, further",
  [
    ("xvid.avi", "xvid", 2, ()),
    ("xvid_in_order.avi", "xvid", 2, ("-bsf:v", "mpeg4_unpack_bframes")),
    ("h264.avi", "h264", 2, ()),
    ("cut.avi", "h264", 2, ("-ss", "0.6")),
    ("mpeg4.mkv", "mpeg4", 2, ()),
    ("hidden.webm", "vp8", 0, ()),
    ("cut.mp4", "h264", 2, ("-ss", "0.6")),
    ("cut.mkv", "hevc", 2, ("-ss", "0.6")),
    ("av1.mp4", "av1", 0, ()),
  ],
)
def test_clips_equal_the_full_decode(tmp_path, name, codec, b_frames, further):
  path = tmp_path / name
  options = _options(codec, b_frames, open_gop=1)
  assert ffmpeg.encode(path, raw_data.frames(_FRAMES, seed=3), *options)
  if further:
    path, whole = tmp_path / f"copy_{name}", path
    assert ffmpeg.copy(whole, path, *further)
  _assert_equal(path, lambda n: range(0, n, 2), [8])


def test_b_frames_do_not_cost_the_random_access(tmp_path):
  for name in ("a.mp4", "a.mov", "a.mkv"):
    path = tmp_path / name
    options = _options("h264", b_frames=2, open_gop=0)
    assert ffmpeg.encode(path, raw_data.frames(_FRAMES, seed=3), *options)
    index = frame_reader._index(str(path))
    assert index is not None and len(index.times) == _FRAMES
    assert len(index.keyframes) == 4
    kept = frame_reader._keep_by_time(str(path), index, [30, 31])
    assert kept is not None and list(kept) == [30, 31]


@pytest.mark.long
@pytest.mark.parametrize("codec", _CODECS)
def test_every_clip_of_every_kind_of_file(tmp_path, codec):
  video_THWC = raw_data.frames(28, seed=3)
  files = []
  for b_frames, open_gop in itertools.product((0, 1, 2), (0, 1)):
    if codec not in _WITH_B_FRAMES and (b_frames or open_gop):
      continue
    if codec == "xvid" and open_gop:
      continue  # it has no such option
    options = _options(codec, b_frames, open_gop)
    for container in _CONTAINERS:
      path = tmp_path / f"{codec}_{b_frames}_{open_gop}.{container}"
      if not ffmpeg.encode(path, video_THWC, *options):
        continue  # the container does not hold the codec
      files.append(path)
      for name, further in (
        ("cut", ("-ss", "0.6")),
        ("cut_before", ("-ss", "0.6", "-copyinkf")),
        ("in_order", ("-bsf:v", "mpeg4_unpack_bframes")),
      ):
        copy = path.with_name(f"{name}_{path.name}")
        if ffmpeg.copy(path, copy, *further):
          files.append(copy)
  read = 0
  for path in files:
    try:
      list(media.probe(str(path)).frames())
    except ValueError:
      continue  # FFmpeg writes it, against the rules, and does not read it
    frames, wrong = _differing(path, range, range(1, 10))
    assert frames and not wrong, path.name
    read += 1
  assert read >= 2
