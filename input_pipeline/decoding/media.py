"""Images and videos of any common format, frame by frame: Pillow and FFmpeg.

Frames come out in turn, uint8 RGB, as a viewer shows them:

- Transparency is laid on white; 16 bits a channel become 8. A video's
  transparency is dropped.
- EXIF orientation and a video's quarter turns are applied.
- Files of Pillow's formats that hold several pictures (GIF, animated PNG and
  WebP, TIFF) are videos, at 10 frames per second where they name no rate.
- A variable frame rate counts as its average: every frame is kept.

A file that breaks off is an error where its format tells (MP4, MOV, FLV, PNG,
JPEG); others, like Matroska and most AVI, end sooner without a word.
"""

from collections.abc import Iterator
import contextlib
import dataclasses
import fractions
import io
import os

import av
import av.container
import av.error
import numpy as np
from PIL import Image
from PIL import ImageOps
from PIL import ImageSequence

from storage import listing

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
_VIDEO_FORMATS = "asf,avi,flv,matroska,mov,mpeg,mpegts,mpegvideo,ogg"
_DEFAULT_RATE = fractions.Fraction(10)  # frames per second


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
    raise ValueError(f"cannot read {path}: {reason}") from error


def is_ffmpegs(file: str | bytes) -> bool:
  """Whether FFmpeg has to read a file, because Pillow does not know it."""
  try:
    with _open_image(file):
      return False
  except Image.UnidentifiedImageError:
    return True


def _open_image(file: str | bytes) -> Image.Image:
  opened = io.BytesIO(file) if isinstance(file, bytes) else file
  return Image.open(opened, formats=_IMAGE_FORMATS)


def _probe_pillow(path: str) -> Media:
  with _open_image(path) as image:
    coding = f"{image.format} {image.mode}"
    if not _is_sequence(image):
      return Media(path, "image", coding, None)
    milliseconds = []
    for page in ImageSequence.Iterator(image):
      page.load()  # only then WebP says how long a page is shown
      milliseconds.append(page.info.get("duration", 0))
    rate = _DEFAULT_RATE
    if sum(milliseconds) > 0:
      mean = fractions.Fraction(sum(milliseconds)) / len(milliseconds)
      rate = (1000 / mean).limit_denominator(1001)
    return Media(path, "video", coding, rate)


def pillow_frames(file: str | bytes) -> Iterator[np.ndarray]:
  """Yields the pictures in a file that Pillow reads, or in the file's bytes."""
  with _open_image(file) as image:
    pages = ImageSequence.Iterator(image) if _is_sequence(image) else [image]
    for page in pages:
      yield _rgb(ImageOps.exif_transpose(page))


def _is_sequence(image: Image.Image) -> bool:
  return image.format in _SEQUENCES and getattr(image, "n_frames", 1) > 1


def _rgb(image: Image.Image) -> np.ndarray:
  """Converts any image to uint8 (H, W, 3)."""
  if image.mode.startswith("I;16"):  # Pillow's conversion would cut at 255
    grey_HW = np.rint(np.asarray(image) / 257).astype(np.uint8)
    return np.repeat(grey_HW[..., None], 3, axis=2)
  if image.mode in ("I", "F"):
    raise ValueError(
      f"pixels of mode {image.mode!r} (32 bits) have no known range; save it"
      " with 8 or 16 bits"
    )
  if image.has_transparency_data:
    image = image.convert("RGBA")
    paper = Image.new("RGBA", image.size, "white")
    image = Image.alpha_composite(paper, image)
  return np.asarray(image.convert("RGB"))


def open_video(file: str | bytes) -> av.container.InputContainer:
  """Opens a file, or the file's bytes, with FFmpeg; see `video_frame`."""
  options = {"format_whitelist": _VIDEO_FORMATS, "protocol_whitelist": "file"}
  # The path is absolute, for FFmpeg takes "name:" at the start for a protocol.
  opened = (
    io.BytesIO(file) if isinstance(file, bytes) else os.path.abspath(file)
  )
  try:
    container = av.open(opened, mode="r", options=options)
  except av.error.FFmpegError as error:
    raise ValueError(
      "it is neither an image that Pillow reads nor a video that FFmpeg"
      f" reads ({error.strerror}); give a whole file of a common format"
    ) from error
  if not container.streams.video:
    container.close()
    raise ValueError("it holds no video stream")
  # A thread for each frame would be faster, but hides where a file breaks off.
  container.streams.video[0].thread_type = "SLICE"
  return container


def video_frame(frame: av.VideoFrame) -> np.ndarray:
  """Pixels of a frame, uint8 (H, W, 3), upright."""
  frame_HWC = frame.to_ndarray(format="rgb24")
  # Both the rotation and the quarter turns of rot90 are counter-clockwise.
  return np.rot90(frame_HWC, round(frame.rotation / 90))


def _probe_video(path: str) -> Media:
  with open_video(path) as container:
    stream = container.streams.video[0]
    codec = stream.codec_context
    rate = stream.average_rate or stream.guessed_rate or _DEFAULT_RATE
    coding = f"{codec.name} {codec.pix_fmt}"
    return Media(path, "video", coding, fractions.Fraction(rate))


def _video_frames(path: str) -> Iterator[np.ndarray]:
  with open_video(path) as container:
    for frame in container.decode(container.streams.video[0]):
      yield video_frame(frame)


def _size(shape: tuple[int, ...]) -> str:
  return f"{shape[0]} x {shape[1]}"
