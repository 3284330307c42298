"""Images and videos of any common format, frame by frame: Pillow and FFmpeg.

Frames come out in turn, uint8 RGB, as a viewer shows them:

- Transparency is laid on white; 16 bits a channel become 8. A video's
  transparency is dropped.
- EXIF orientation and a video's quarter turns and mirrors are applied, and
  pixels of a video that are not square become so.
- Files of Pillow's formats that hold several pictures (GIF, animated PNG and
  WebP, TIFF) are videos, at 10 frames per second where they name no rate.
- A variable frame rate counts as its average: every frame is kept.
- The cover of a piece of music is no video.

A file that breaks off is an error where its format tells (MP4, MOV, FLV, PNG,
JPEG); others, like Matroska and most AVI, end sooner without a word. Files that
declare or hold more than `limits` allows are errors, and so is what is no
regular file, like a pipe.
"""

from collections.abc import Callable
from collections.abc import Container
from collections.abc import Iterator
import contextlib
import dataclasses
import fractions
import functools
import io
import os
import warnings

import av
import av.container
import av.error
import av.stream
import numpy as np
from PIL import Image
from PIL import ImageOps

from input_pipeline.decoding import display
from input_pipeline.decoding import limits
from input_pipeline.decoding import streams
from storage import listing

# Above half of its own limit Pillow only warns, and then takes the memory.
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)

IMAGE_SUFFIXES = (
  *(".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif"),
  *(".tiff", ".webp"),
)
VIDEO_SUFFIXES = (
  *(".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg"),
  *(".ogv", ".ts", ".webm", ".wmv"),
)

# Both libraries read more than images and videos (FFmpeg makes a film of any
# text file, and follows play lists to other files), so they get these formats
# only.
_IMAGE_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
# Formats whose further pictures are frames; elsewhere they are previews.
_SEQUENCES = ("GIF", "PNG", "TIFF", "WEBP")
_ORIENTATION = 0x0112  # number of EXIF's field
_BAND_PIXELS = 2**20  # pixels of a picture that are converted at a time
_VIDEO_FORMATS = "asf,avi,flv,matroska,mov,mpeg,mpegts,mpegvideo,ogg"
_DEFAULT_RATE = fractions.Fraction(10)  # frames per second
# Frames per second that a file may name; others come of damaged headers. MP4
# cannot hold the times of frames that are shown for twice as long.
_SLOWEST, _FASTEST = fractions.Fraction(1, 2**14), fractions.Fraction(100_000)
# Streams that FFmpeg calls video and that are covers or chapters' pictures.
_STILLS = (
  av.stream.Disposition.attached_pic | av.stream.Disposition.timed_thumbnails
)


@dataclasses.dataclass(frozen=True)
class Media:
  """A file that can be opened; made by `probe`."""

  path: str
  kind: str  # "image" or "video"
  coding: str  # format for people, like "PNG RGBA" or "h264 yuv420p"
  frame_rate: fractions.Fraction | None  # frames per second; None: an image

  @property
  def video_rate(self) -> fractions.Fraction:
    """Frames per second; ValueError for an image."""
    if self.frame_rate is None:
      raise ValueError(f"{self.path} is an image, not a video")
    return self.frame_rate

  def frames(self) -> Iterator[np.ndarray]:
    """Yields frames as they are decoded, uint8 (H, W, 3), all of one size.

    Raises:
      ValueError: a file that is damaged, at this frame or altogether, or that
        holds no frames or frames of several sizes.
    """
    with readable(self.path):
      decode = _video_frames if is_ffmpegs(self.path) else pillow_frames
      shape = None
      for index, frame_HWC in enumerate(decode(self.path)):
        shape = shape or frame_HWC.shape
        if frame_HWC.shape != shape:
          raise ValueError(
            f"frame {index} is {_size(frame_HWC.shape)}, the first is"
            f" {_size(shape)}; scale all to one size"
          )
        yield frame_HWC
      if shape is None:
        raise ValueError("it holds no frames")


def probe(path: str) -> Media:
  """Opens a file without decoding it; the contents count, not the name.

  Raises:
    ValueError: neither an image nor a video, or one that cannot be opened.
  """
  with readable(path):
    return _probe_video(path) if is_ffmpegs(path) else _probe_pillow(path)


def find(folder: str) -> tuple[list[str], list[str]]:
  """(images and videos, other files) in a folder and below, told by suffix.

  Paths are relative to the folder and in natural order; `storage/listing.py`
  says which files count.

  Raises:
    OSError: a folder that cannot be listed.
  """
  paths = listing.walk(folder)
  media = [path for path in paths if is_named_as_media(path)]
  others = [path for path in paths if not is_named_as_media(path)]
  return media, others


def is_named_as_media(path: str) -> bool:
  """Whether a name ends as those of images and videos do."""
  return path.lower().endswith(IMAGE_SUFFIXES + VIDEO_SUFFIXES)


@contextlib.contextmanager
def readable(path: str):
  """Turns every failure inside into a ValueError that names the file."""
  try:
    yield
  except Exception as error:  # decoders raise nearly anything on damaged files
    reason = getattr(error, "strerror", None) or error
    raise ValueError(f"cannot read {listing.text(path)}: {reason}") from error


def is_ffmpegs(file: str | bytes) -> bool:
  """Whether FFmpeg has to read a file, because Pillow does not know it."""
  try:
    with _open_image(file):
      return False
  except Image.UnidentifiedImageError:
    return True


def _open_image(file: str | bytes) -> Image.Image:
  limits.check_regular(file)
  opened = io.BytesIO(file) if isinstance(file, bytes) else file
  with _pillows_limit():
    return Image.open(opened, formats=_IMAGE_FORMATS)


@contextlib.contextmanager
def _pillows_limit():
  """Gives Pillow's refusal of a picture, which is above ours, our words."""
  try:
    yield
  except (Image.DecompressionBombError, Image.DecompressionBombWarning) as e:
    raise ValueError(
      "a picture has more than MAX_PICTURE_PIXELS="
      f"{limits.MAX_PICTURE_PIXELS:,} pixels: make it smaller"
    ) from e


def _probe_pillow(path: str) -> Media:
  with _open_image(path) as image:
    coding = f"{image.format} {image.mode}"
    if count_pages(image) == 1:
      limits.check_picture(image.height, image.width)
      return Media(path, "image", coding, None)
    milliseconds = []
    for page in _pages(image):
      page.load()  # only then WebP says how long a page is shown
      milliseconds.append(page.info.get("duration", 0))
    total = fractions.Fraction(sum(milliseconds))
    if total <= 0:
      return Media(path, "video", coding, _DEFAULT_RATE)
    rate = 1000 * len(milliseconds) / total
    return Media(path, "video", coding, _sane_rate(_simple(rate)))


def _simple(rate: fractions.Fraction) -> fractions.Fraction:
  """A rate near by with small numbers, below and above one a second alike."""
  if rate < 1:
    return 1 / (1 / rate).limit_denominator(1001)
  return rate.limit_denominator(1001)


def _sane_rate(*rates: fractions.Fraction | None) -> fractions.Fraction:
  """The first rate that a film can have; else that of files without one.

  PyAV 19 has rationals of its own, which cannot be rounded and print otherwise.
  """
  for rate in rates:
    if rate is not None and _SLOWEST <= rate <= _FASTEST:
      return fractions.Fraction(rate.numerator, rate.denominator)
  return _DEFAULT_RATE


def pillow_frames(
  file: str | bytes, chosen: Container[int] | None = None
) -> Iterator[np.ndarray]:
  """Yields the pictures in a file that Pillow reads, or in the file's bytes.

  Args:
    file: path or contents.
    chosen: numbers of the pictures to yield; None: all. The others are neither
      converted nor kept.

  Raises:
    ValueError: more or larger pictures than `limits` allows, or fewer pictures
      than the file says it holds.
  """
  with _open_image(file) as image:
    for number, page in enumerate(_pages(image)):
      if chosen is None or number in chosen:
        yield _rgb(_oriented(page))


def count_pages(image: str | bytes | Image.Image) -> int:
  """Number of pictures in a file that Pillow reads; none is decoded.

  Raises:
    ValueError: more pictures than `limits` allows.
  """
  if not isinstance(image, Image.Image):
    with _open_image(image) as opened:
      return count_pages(opened)
  if image.format not in _SEQUENCES:
    return 1
  if image.format != "TIFF":
    count = getattr(image, "n_frames", 1)
    limits.check_pages(count, image.height, image.width)
    return count
  # TIFF's n_frames compares each page with all before, without an end.
  count = 0
  with contextlib.suppress(EOFError):
    while count <= limits.MAX_PAGES:
      image.seek(count)
      count += 1
  image.seek(0)
  limits.check_pages(count, image.height, image.width)
  return count


def _pages(image: Image.Image) -> Iterator[Image.Image]:
  """The pictures in turn, each one measured before it is decoded."""
  count = count_pages(image)
  if count == 1:
    limits.check_picture(image.height, image.width)
    yield image
    return
  pixels = 0
  for number in range(count):
    try:
      with _pillows_limit():  # a picture of a GIF may enlarge the others
        image.seek(number)
    except EOFError as error:
      raise ValueError(
        f"it says that it holds {count} pictures and ends after {number}"
      ) from error
    limits.check_frame(image.height, image.width)
    pixels += image.height * image.width  # pages of a TIFF differ in size
    limits.check_pages(1, pixels, 1)
    yield image


def _oriented(image: Image.Image) -> Image.Image:
  """Applies EXIF's orientation; without one it spares Pillow's copy."""
  turned = image.getexif().get(_ORIENTATION, 1) != 1
  return ImageOps.exif_transpose(image) if turned else image


def _rgb(image: Image.Image) -> np.ndarray:
  """Converts any image to uint8 (H, W, 3)."""
  if image.mode.startswith("I;16"):  # Pillow's conversion would cut at 255
    # No quotient lies half way between two numbers, for 257 is odd.
    grey_HW = ((np.asarray(image, np.uint32) + 128) // 257).astype(np.uint8)
    return np.repeat(grey_HW[..., None], 3, axis=2)
  if image.mode in ("I", "F"):
    raise ValueError(
      f"pixels of mode {image.mode!r} (32 bits) have no known range; save it"
      " with 8 or 16 bits"
    )
  if image.has_transparency_data:
    return _on_white(image)
  return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _on_white(image: Image.Image) -> np.ndarray:
  """Lays a picture on white, in bands: whole, it would take five copies."""
  picture_HWC = np.empty((image.height, image.width, 3), np.uint8)
  rows = max(1, _BAND_PIXELS // image.width)
  for top in range(0, image.height, rows):
    bottom = min(top + rows, image.height)
    band = image.crop((0, top, image.width, bottom)).convert("RGBA")
    paper = Image.new("RGBA", band.size, "white")
    laid = Image.alpha_composite(paper, band).convert("RGB")
    picture_HWC[top:bottom] = np.asarray(laid)
  return picture_HWC


def _opener() -> Callable[..., av.container.InputContainer]:
  """PyAV's function that opens a video whose titles are in any coding.

  Frames do not depend on titles. From version 19 on PyAV keeps each title as it
  is by itself, and has no argument for it.
  """
  if int(av.__version__.partition(".")[0]) < 19:
    return functools.partial(av.open, metadata_errors="replace")
  return av.open


def open_video(file: str | bytes) -> av.container.InputContainer:
  """Opens a file, or the file's bytes, with FFmpeg; see `video_stream`.

  Raises:
    ValueError: what FFmpeg does not read; a file without a video stream (a
      cover is none), or whose frames are larger than `limits` allows.
  """
  limits.check_regular(file)
  largest = {"max_pixels": str(limits.MAX_PIXELS)}
  options = {"format_whitelist": _VIDEO_FORMATS, "protocol_whitelist": "file"}
  # The path is absolute, for FFmpeg takes "name:" at the start for a protocol.
  opened = (
    io.BytesIO(file) if isinstance(file, bytes) else os.path.abspath(file)
  )
  try:
    container = _opener()(opened, "r", options={**options, **largest})
  except av.error.FFmpegError as error:
    raise ValueError(
      "it is neither an image that Pillow reads nor a video that FFmpeg"
      f" reads ({error.strerror}); give a whole file of a common format"
    ) from error
  try:
    context = video_stream(container).codec_context
    limits.check_frame(context.height, context.width)
    if not context.height * context.width:
      raise ValueError(
        "its frames have no known size, or more than MAX_PIXELS="
        f"{limits.MAX_PIXELS:,} pixels: give a whole file, or make it smaller"
      )
  except ValueError:
    container.close()
    raise
  context.options = largest
  # A thread for each frame would be faster, but hides where a file breaks off.
  context.thread_type = "SLICE"
  return container


def video_stream(container: av.container.InputContainer) -> av.VideoStream:
  """The first stream that is a video; ValueError without one."""
  for stream in container.streams.video:
    if not stream.disposition & _STILLS and stream.codec_context is not None:
      return stream
  raise ValueError(
    "it holds no video stream that FFmpeg decodes (a cover is none): give a"
    " video or an image"
  )


def _probe_video(path: str) -> Media:
  with open_video(path) as container:
    stream = video_stream(container)
    codec = stream.codec_context
    rate = _sane_rate(stream.average_rate, stream.guessed_rate)
    return Media(path, "video", f"{codec.name} {codec.pix_fmt}", rate)


def _video_frames(path: str) -> Iterator[np.ndarray]:
  with open_video(path) as container:
    stream = video_stream(container)
    for frame in streams.decoded(container, stream):
      yield display.shown(frame, stream.sample_aspect_ratio)


def _size(shape: tuple[int, ...]) -> str:
  return f"{shape[0]} x {shape[1]}"
