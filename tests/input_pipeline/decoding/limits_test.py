"""Tests of limits: a few bytes that claim much are refused before decoding."""

import os
import socket
import struct
import zlib

import av
import numpy as np
from PIL import Image
import pytest

from input_pipeline.decoding import frame_reader
from input_pipeline.decoding import limits
from input_pipeline.decoding import media
from input_pipeline.decoding import reencode
from tests import raw_data


def _gif(size, pages, later=None):
  """A GIF that declares this size; pictures after the first may be larger."""
  data = b"GIF89a" + struct.pack("<HHBBB", *size, 0x80, 0, 0)
  data += bytes(3) + b"\xff\xff\xff"
  for number in range(pages):
    inner = later if later and number else (1, 1)
    data += b"\x21\xf9\x04\x04\x0a\0\0\0\x2c"
    data += struct.pack("<HHHHB", 0, 0, *inner, 0) + b"\x02\x02\x44\x01\0"
  return data + b";"


def _png(size, pages=0):
  def chunk(kind, data):
    checksum = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + checksum

  header = struct.pack(">IIBBBBB", *size, 8, 0, 0, 0, 0)
  data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
  if pages:
    data += chunk(b"acTL", struct.pack(">II", pages, 0))
  return data + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def _tiff(pages):
  """A TIFF of this many pictures of one pixel."""
  data, short = bytearray(b"II*\0\x08\0\0\0"), [256, 257, 259, 262, 277, 278]
  for number in range(pages):
    tags = [(tag, 3, 1, 1) for tag in short]
    tags += [(258, 3, 1, 8), (273, 4, 1, 4), (279, 4, 1, 1)]
    folder = struct.pack("<H", len(tags))
    folder += b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags))
    after = len(data) + len(folder) + 4 if number < pages - 1 else 0
    data += folder + struct.pack("<I", after)
  return bytes(data)


@pytest.mark.parametrize(
  "data, message",
  [
    (_gif((30000, 30000), 3), "MAX_PICTURE_PIXELS=67,108,864 .*make it small"),
    (_gif((9000, 9000), 1), "MAX_PICTURE_PIXELS"),
    (_gif((6000, 6000), 2), "a frame has 6000 x 6000 .*MAX_PIXELS=16,777,216"),
    (_gif((10, 10), 3, later=(20000, 20000)), "MAX_PICTURE_PIXELS"),
    (_gif((1000, 1000), 20_000), "more than MAX_PAGES=10,000 .*video of them"),
    (
      _gif((2000, 2000), 2000),
      "2000 pictures .*MAX_PAGES_PIXELS=2,147,483,648",
    ),
    (_png((60000, 60000)), "MAX_PICTURE_PIXELS"),
    (_png((8, 8), pages=2**31 - 1), "MAX_PAGES"),
    (_tiff(301), "MAX_PAGES=300"),
    (b"P6 60000 60000 255\n", "MAX_PICTURE_PIXELS"),
  ],
)
def test_bombs_are_refused_before_a_picture_is_decoded(
  tmp_path, monkeypatch, data, message
):
  # The pictures of a GIF before a larger one are decoded.
  sizes, load = [], Image.Image.load

  def counted(image):
    sizes.append(image.size)
    return load(image)

  monkeypatch.setattr(Image.Image, "load", counted)
  if data[:2] == b"II":  # Pillow takes its time for the pages of a TIFF
    monkeypatch.setattr(limits, "MAX_PAGES", 300)
  path = tmp_path / "a.gif"
  path.write_bytes(data)
  with pytest.raises(ValueError, match=f"a.gif: .*{message}"):
    list(media.probe(str(path)).frames())
  for part in (str(path), data):
    encoded = frame_reader.Encoded("the-name", 0, (part,))
    with pytest.raises(ValueError, match=f"the-name: .*{message}"):
      frame_reader.read(encoded, range)
  assert max(sizes, default=(0, 0)) <= (10, 10)


def test_only_the_chosen_pictures_are_converted_and_kept(tmp_path, monkeypatch):
  path = tmp_path / "a.gif"
  pages = [Image.new("RGB", (8, 8), (i, 2 * i, 0)) for i in range(30)]
  pages[0].save(path, save_all=True, append_images=pages[1:])
  whole = list(media.probe(str(path)).frames())
  converted, rgb = [], media._rgb
  monkeypatch.setattr(media, "_rgb", lambda p: converted.append(1) or rgb(p))
  encoded = frame_reader.Encoded("the-name", 0, (str(path),))
  frames = frame_reader.read(encoded, lambda n: [3, 9, 9, 11])
  np.testing.assert_array_equal(frames, [whole[i] for i in (3, 9, 9, 11)])
  assert len(converted) == 3
  assert frame_reader.count_frames(encoded) == 30
  assert len(converted) == 3


def test_clips_that_do_not_fit_are_refused(tmp_path, monkeypatch):
  raw_data.video(tmp_path / "a.mp4", raw_data.frames(9, seed=1))
  paths = [str(tmp_path / f"{i}.png") for i in range(9)]
  for path in paths:
    raw_data.image(tmp_path / path, 0)
  monkeypatch.setattr(limits, "MAX_CLIP_PIXELS", 4 * 48 * 64)
  for parts in ((str(tmp_path / "a.mp4"),), tuple(paths)):
    encoded = frame_reader.Encoded("the-name", 0, parts)
    assert len(frame_reader.read(encoded, lambda n: range(4))) == 4
    with pytest.raises(ValueError, match="the-name.* MAX_CLIP_PIXELS=12,288"):
      frame_reader.read(encoded, lambda n: range(5))


def test_videos_that_declare_too_large_frames_are_refused(
  tmp_path, monkeypatch
):
  for name in ("a.mp4", "a.avi", "a.ts"):
    path = tmp_path / name
    raw_data.video(path, raw_data.frames(3, seed=1), "mpeg4")
    assert len(list(media.probe(str(path)).frames())) == 3
    with monkeypatch.context() as patch:
      patch.setattr(limits, "MAX_PIXELS", 48 * 64 - 1)
      with pytest.raises(ValueError, match=f"{name}: .*MAX_PIXELS=3,071"):
        list(media.probe(str(path)).frames())


def test_only_regular_files_are_opened(tmp_path):
  os.mkfifo(tmp_path / "pipe.png")
  (tmp_path / "folder.png").mkdir()
  (tmp_path / "device.png").symlink_to("/dev/zero")
  (tmp_path / "dangling.png").symlink_to(tmp_path / "nothing")
  with socket.socket(socket.AF_UNIX) as unix:
    unix.bind(str(tmp_path / "socket.png"))
    for name, message in (
      ("pipe.png", "it is a pipe"),
      ("folder.png", "it is a folder"),
      ("device.png", "it is a device"),
      ("dangling.png", "No such file"),
      ("socket.png", "it is a socket"),
    ):
      path = str(tmp_path / name)
      with pytest.raises(ValueError, match=f"{name}: {message}"):
        media.probe(path)
      with pytest.raises(ValueError, match=f"the-name: {message}"):
        frame_reader.read(frame_reader.Encoded("the-name", 0, (path,)), range)
  with pytest.raises(ValueError, match="it is a pipe"):
    media.open_video(str(tmp_path / "pipe.png"))


def test_a_still_of_an_hour_is_not_repeated_without_end(tmp_path):
  path = tmp_path / "a.webp"
  pages = [Image.new("RGB", (16, 16), c) for c in ("red", "lime")]
  pages[0].save(path, save_all=True, append_images=pages[1:], duration=3600000)
  encoding = reencode.Encoding(0, 25, 18, 12, 95)
  encoded = frame_reader.Encoded("a", 0, (str(path),))
  with pytest.raises(ValueError, match="a.webp .*--fps=25 .*MAX_REPEATS=1000"):
    reencode.reencode(encoded, encoding)
  copy, length = reencode.reencode(encoded, reencode.Encoding(0, 0, 18, 12, 95))
  assert length == 2
  assert frame_reader.count_frames(copy) == 2


def test_frames_that_an_encoder_does_not_take_are_value_errors(tmp_path):
  wide = tmp_path / "wide.mkv"
  with av.open(str(wide), "w") as container:
    stream = container.add_stream("ffv1", rate=25)
    stream.width, stream.height, stream.pix_fmt = 16400, 16, "yuv420p"
    container.mux(stream.encode(av.VideoFrame(16400, 16, "yuv420p")))
    container.mux(stream.encode())
  Image.new("L", (70000, 2)).save(tmp_path / "wide.png")
  for name in ("wide.mkv", "wide.png"):
    encoded = frame_reader.Encoded(name, 0, (str(tmp_path / name),))
    with pytest.raises(ValueError, match=f"cannot encode .*{name} .*sizes"):
      reencode.reencode(encoded, reencode.Encoding(0, 0, 18, 12, 95))
