"""Tests of input_pipeline/decoding/media.py, on files that they make."""

import fractions
import os
import struct

import av
import numpy as np
from PIL import Image
import pytest

from evaluation.show import mp4
from input_pipeline.decoding import frame_reader
from input_pipeline.decoding import media
from tests import ffmpeg


def _colours(height, width):
  """A picture whose pixels all differ, so that no turn or mirror can hide."""
  y, x = np.mgrid[:height, :width]
  return np.stack([8 * y, 8 * x, y + x], -1).astype(np.uint8)


def _write_video(path, video_THWC, rate=25, codec="ffv1", pix_fmt="bgr0"):
  # Downloads are laid out so; then a cut-off file lacks its last frames.
  options = {"movflags": "+faststart"} if path.suffix == ".mp4" else {}
  with av.open(str(path), "w", options=options) as container:
    stream = container.add_stream(codec, rate=rate)
    _, stream.height, stream.width, _ = video_THWC.shape
    stream.pix_fmt = pix_fmt
    for frame_HWC in video_THWC:
      frame = av.VideoFrame.from_ndarray(frame_HWC, format="rgb24")
      container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def _frames(path):
  return np.stack(list(media.probe(str(path)).frames()))


def test_a_lossless_video_comes_out_exactly(tmp_path):
  video = np.stack([_colours(12, 20) + np.uint8(t) for t in range(7)])
  path = tmp_path / "a.mkv"
  _write_video(path, video, fractions.Fraction(30000, 1001))
  probed = media.probe(str(path))
  assert (probed.kind, probed.coding) == ("video", "ffv1 bgr0")
  assert probed.frame_rate == fractions.Fraction(30000, 1001)
  np.testing.assert_array_equal(_frames(path), video)


def test_frames_are_decoded_one_at_a_time(tmp_path):
  path = tmp_path / "a.mp4"
  noise = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), np.uint8)
  _write_video(path, noise, 25, "libx264", "yuv420p")
  path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
  frames = media.probe(str(path)).frames()
  assert next(frames).shape == (32, 32, 3)
  # A later frame is damaged.
  with pytest.raises(ValueError, match="^cannot read.*a.mp4"):
    list(frames)


@pytest.mark.parametrize(
  "mode, pixel, expected",
  [
    ("L", 90, (90, 90, 90)),
    ("1", 1, (255, 255, 255)),
    ("RGBA", (200, 100, 0, 255), (200, 100, 0)),
    ("RGBA", (200, 100, 0, 0), (255, 255, 255)),  # white shows through
    ("LA", (0, 51), (204, 204, 204)),
    ("I;16", 257 * 90, (90, 90, 90)),
  ],
)
def test_every_kind_of_png_becomes_rgb(tmp_path, mode, pixel, expected):
  path = tmp_path / "a.png"
  Image.new(mode, (5, 3), pixel).save(path)
  probed = media.probe(str(path))
  assert (probed.kind, probed.coding) == ("image", f"PNG {mode}")
  assert probed.frame_rate is None
  frames = _frames(path)
  assert frames.shape == (1, 3, 5, 3) and frames.dtype == np.uint8
  np.testing.assert_array_equal(frames, np.full((1, 3, 5, 3), expected))


def test_a_palette_with_transparency_is_laid_on_white(tmp_path):
  image = Image.fromarray(np.array([[0, 1]], np.uint8), "L")
  image.putpalette([10, 20, 30, 40, 50, 60])
  image.save(tmp_path / "a.png", transparency=1)
  np.testing.assert_array_equal(
    _frames(tmp_path / "a.png"), [[[[10, 20, 30], [255, 255, 255]]]]
  )


def test_exif_orientation_is_applied(tmp_path):
  image_HWC = _colours(4, 6)
  exif = Image.Exif()
  exif[0x0112] = 6  # shown after a quarter turn clockwise
  Image.fromarray(image_HWC).save(tmp_path / "a.png", exif=exif)
  np.testing.assert_array_equal(
    _frames(tmp_path / "a.png")[0], np.rot90(image_HWC, -1)
  )


def test_a_videos_quarter_turn_is_applied(tmp_path):
  path = tmp_path / "a.mp4"
  video = np.stack([_colours(16, 32)] * 2)
  _write_video(path, video, 25, "libx264", "yuv444p")
  upright = _frames(path)
  data = path.read_bytes()
  one = 1 << 16
  identity = struct.pack(">9i", one, 0, 0, 0, one, 0, 0, 0, 1 << 30)
  clockwise = struct.pack(">9i", 0, one, 0, -one, 0, 0, 0, 0, 1 << 30)
  track = data.index(b"tkhd")
  at = data.index(identity, track)
  path.write_bytes(data[:at] + clockwise + data[at + 36 :])
  np.testing.assert_array_equal(_frames(path), np.rot90(upright, -1, (1, 2)))


@pytest.mark.parametrize("suffix", ["gif", "png", "webp"])
def test_animated_images_are_videos(tmp_path, suffix):
  path = tmp_path / f"a.{suffix}"
  pages = [Image.new("RGB", (4, 4), c) for c in ("red", "lime", "blue")]
  more = {"lossless": True} if suffix == "webp" else {}
  pages[0].save(
    path, save_all=True, append_images=pages[1:], duration=40, **more
  )
  probed = media.probe(str(path))
  assert (probed.kind, probed.frame_rate) == ("video", 25)
  np.testing.assert_array_equal(
    _frames(path)[:, 0, 0], [[255, 0, 0], [0, 255, 0], [0, 0, 255]]
  )


@pytest.mark.parametrize(
  "milliseconds, rate",
  [
    ([3600_000] * 2, fractions.Fraction(1, 3600)),
    ([16_000_000] * 2, fractions.Fraction(1, 16_000)),
    ([16_400_000] * 2, fractions.Fraction(10)),
    ([40, 0], fractions.Fraction(50)),
    ([0, 0], fractions.Fraction(10)),
    ([33, 34], fractions.Fraction(2000, 67)),
  ],
)
def test_rates_of_animations_are_finite(tmp_path, milliseconds, rate):
  path = tmp_path / "a.webp"
  pages = [Image.new("RGB", (4, 4), c) for c in ("red", "lime")]
  pages[0].save(
    path, save_all=True, append_images=pages[1:], duration=milliseconds
  )
  assert media.probe(str(path)).frame_rate == rate


def test_the_slowest_rate_can_be_written(tmp_path):
  """MP4 holds differences of times in 32 bits, which B-frames multiply."""
  path = tmp_path / "a.mp4"
  noise = np.random.default_rng(0).integers(0, 256, (30, 16, 16, 3), np.uint8)
  with mp4.Writer(path, media._SLOWEST) as writer:
    for frame_HWC in noise // 4:
      writer.add(frame_HWC)
  assert media.probe(str(path)).frame_rate == media._SLOWEST
  assert len(_frames(path)) == 30


@pytest.mark.parametrize("suffix", ["avi", "mp4", "mkv", "mov", "flv"])
def test_a_title_may_be_in_any_coding(tmp_path, suffix):
  path = tmp_path / f"a.{suffix}"
  codec = ("-c:v", "flv" if suffix == "flv" else "mpeg4")
  title = ("-metadata", "title=uebung", "-metadata:s:v:0", "title=uebung")
  video = np.stack([_colours(16, 32)] * 3)
  assert ffmpeg.encode(path, video, *codec, *title)
  data = path.read_bytes()
  assert b"uebung" in data
  path.write_bytes(data.replace(b"uebung", b"\xfcbung "))  # Latin-1, as AVI has
  assert len(_frames(path)) == 3


def test_a_packet_without_bytes_repeats_a_frame_of_theora(tmp_path):
  path = tmp_path / "a.ogv"
  video = np.repeat([_colours(16, 32), _colours(16, 32)[::-1]], 4, 0)
  options = ("-c:v", "libtheora", "-pix_fmt", "yuv420p")
  assert ffmpeg.encode(path, video, *options)
  frames = _frames(path)
  assert len(frames) == 8
  np.testing.assert_array_equal(frames[0], frames[3])
  assert np.abs(np.int16(frames[3]) - frames[4]).mean() > 20
  encoded = frame_reader.Encoded("a", 0, (str(path),))
  clip = frame_reader.read(encoded, lambda n: range(n - 5, n))
  np.testing.assert_array_equal(clip, frames[3:])


def _truncated(path):
  Image.fromarray(_colours(30, 30)).save(path, "PNG")
  path.write_bytes(path.read_bytes()[:-40])


def _half_a_video(path):
  whole = path.with_suffix(".mp4")
  noise = np.random.default_rng(0).integers(0, 256, (9, 16, 16, 3), np.uint8)
  _write_video(whole, noise, 25, "libx264", "yuv420p")
  path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])


def _sound(path):
  with av.open(str(path), "w", format="avi") as container:
    stream = container.add_stream("pcm_s16le", rate=8000)
    frame = av.AudioFrame(format="s16", layout="stereo", samples=1024)
    frame.sample_rate = 8000
    container.mux(stream.encode(frame))


def _pages_of_two_sizes(path):
  first, second = (Image.new("RGB", (size, 4)) for size in (4, 5))
  first.save(path, "TIFF", save_all=True, append_images=[second])


@pytest.mark.parametrize(
  "write, message",
  [
    (lambda path: path.write_bytes(b""), "neither an image"),
    # FFmpeg would make a film of a text and follow a play list.
    (lambda path: path.write_text("hello\n" * 99), "neither an image"),
    (lambda path: path.write_text("ffconcat version 1.0\n"), "neither an"),
    (_truncated, "truncated"),
    (_half_a_video, "Invalid data"),
    (_sound, "no video stream"),
    (_pages_of_two_sizes, "frame 1 is 4 x 5, the first is 4 x 4"),
    (lambda path: Image.new("F", (4, 4)).save(path, "TIFF"), "no known range"),
    (lambda path: None, "No such file"),
  ],
)
def test_what_cannot_be_read_is_a_value_error(tmp_path, write, message):
  path = tmp_path / "a.txt"
  write(path)
  with pytest.raises(ValueError, match="^cannot read .*a.txt: .*") as e:
    list(media.probe(str(path)).frames())
  assert message in str(e.value)


def _titled(path):
  """Writes a video of one frame whose title is no UTF-8."""
  with av.open(str(path), "w", format="matroska") as container:
    container.metadata["title"] = "plain title"
    stream = container.add_stream("ffv1", rate=25)
    stream.height, stream.width, stream.pix_fmt = 12, 20, "bgr0"
    frame = av.VideoFrame.from_ndarray(_colours(12, 20), format="rgb24")
    container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
  data = path.read_bytes()
  assert b"plain title" in data
  path.write_bytes(data.replace(b"plain title", b"pl\xe4in t\xeetle"))


def test_titles_in_any_coding_do_not_matter(tmp_path):
  _titled(tmp_path / "a.mkv")
  np.testing.assert_array_equal(_frames(tmp_path / "a.mkv"), [_colours(12, 20)])


def test_videos_are_opened_without_an_argument_that_pyav_19_has_no_more(
  tmp_path, monkeypatch
):
  _titled(tmp_path / "a.mkv")
  before = int(av.__version__.partition(".")[0]) < 19
  given = {"metadata_errors": "replace"} if before else {}
  opened = av.open

  def open_as_19(file, mode, options):  # takes no metadata_errors
    return opened(file, mode, options=options, **given)

  monkeypatch.setattr(av, "__version__", "19.0.2")
  monkeypatch.setattr(av, "open", open_as_19)
  assert media.probe(str(tmp_path / "a.mkv")).coding == "ffv1 bgr0"


def test_odd_names_stay_one_line_of_text(tmp_path):
  path = os.path.join(os.fsencode(tmp_path), b"x\xff\ny.png")
  with open(path, "wb") as f:
    f.write(b"no picture")
  with pytest.raises(ValueError) as e:
    media.probe(os.fsdecode(path))
  assert "x\\xff\\ny.png: it is neither" in str(e.value)
  assert str(e.value).isprintable()


def test_folders_are_searched_below_and_by_suffix(tmp_path):
  for name in ("b.PNG", "c/a.mp4", ".hidden.png", ".git/a.png", "c/notes.txt"):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
  assert media.find(str(tmp_path)) == (["b.PNG", "c/a.mp4"], ["c/notes.txt"])
