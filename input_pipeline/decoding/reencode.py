"""Smaller copies of images and videos, which training decodes faster."""

import contextlib
import dataclasses
import fractions
import io
import math
import typing

import av
import av.container
import av.error
import numpy as np
from PIL import Image

from input_pipeline.decoding import frame_reader
from input_pipeline.decoding import limits
from input_pipeline.decoding import media


@dataclasses.dataclass(frozen=True)
class Encoding:
  """Videos become H.264 in MP4, images and folders of frames JPEG."""

  short_side: int  # pixels at most, reduced by antialiased bicubic; 0: no limit
  fps: float  # frames per second; 0: every frame, at the file's rate
  crf: int  # x264's constant rate factor: 0 is lossless, 18 hard to tell
  keyframes: (
    int  # frames from a keyframe to the next; a seek decodes up to these
  )
  quality: int  # quality of JPEG, up to 95

  def __post_init__(self):
    """Raises ValueError for settings that cannot work."""
    for field, low, high in (
      ("short_side", 0, 2**15),
      ("fps", 0, 1000),
      ("crf", 0, 51),
      ("keyframes", 1, 2**15),
      ("quality", 1, 95),
    ):
      if not low <= getattr(self, field) <= high:
        raise ValueError(
          f"--{field}={getattr(self, field)} must be in {low}..{high}"
        )


def reencode(
  encoded: frame_reader.Encoded, encoding: Encoding
) -> tuple[frame_reader.Encoded, int]:
  """(the example, encoded again; its number of frames).

  Raises:
    ValueError: a damaged file, or frames that the encoder does not take; names
      the file.
  """
  # What is encoded anew lies in files, so a part is a path.
  path = typing.cast(str, encoded.parts[0])
  if len(encoded.parts) > 1:
    frames = frame_reader.every_frame(encoded)
    parts = tuple(_jpeg(path, frame_HWC, encoding) for frame_HWC in frames)
    return dataclasses.replace(encoded, parts=parts), len(parts)
  opened = media.probe(path)
  if opened.kind == "image":
    (frame_HWC,) = opened.frames()
    parts = (_jpeg(path, frame_HWC, encoding),)
    return dataclasses.replace(encoded, parts=parts), 1
  data, length = mp4(opened, encoding)
  return dataclasses.replace(encoded, parts=(data,)), length


@contextlib.contextmanager
def _encodable(path: str):
  """Turns a failure of an encoder inside into a ValueError with the file."""
  try:
    yield
  # Pillow raises OSError for pictures that JPEG cannot hold.
  except (av.error.FFmpegError, OSError, OverflowError) as error:
    reason = getattr(error, "strerror", None) or error
    raise ValueError(
      f"cannot encode {path} again: {reason}; H.264 and JPEG have their largest"
      " sizes (about 16,384 and 65,500 pixels a side): use a smaller"
      " --short_side, or leave the file out"
    ) from error


def _jpeg(path: str, frame_HWC: np.ndarray, encoding: Encoding) -> bytes:
  file = io.BytesIO()
  image = Image.fromarray(_shrink(frame_HWC, encoding.short_side, even=False))
  with _encodable(path):
    image.save(file, "JPEG", quality=encoding.quality, subsampling=0)
  return file.getvalue()


def mp4(
  opened: media.Media, encoding: Encoding, exact: bool = False
) -> tuple[bytes, int]:
  """(MP4 with H.264 4:2:0, BT.601 as by FFmpeg's default; number of frames).

  Args:
    opened: the video.
    encoding: how it is encoded.
    exact: whether equal frames always give equal bytes. That takes x264 three
      times as long: its assembly for AVX-512 gave other bytes in 4 of 700 runs.

  Raises:
    ValueError: a damaged video, or one that the encoder does not take.
  """
  rate = original_rate = opened.video_rate
  if encoding.fps:
    rate = fractions.Fraction(encoding.fps).limit_denominator(1001)
  file, stream, count = io.BytesIO(), None, 0
  with _encodable(opened.path), av.open(file, "w", format="mp4") as container:
    for number, frame_HWC in enumerate(opened.frames()):
      # Frame k of the copy is the one shown at its time, k / rate.
      due = math.ceil((number + 1) * rate / original_rate)
      if due == count:
        continue
      if due - count > limits.MAX_REPEATS:
        raise ValueError(
          f"{opened.path} has {float(original_rate):g} frames per second, and"
          f" --fps={encoding.fps:g} would repeat each more than MAX_REPEATS="
          f"{limits.MAX_REPEATS} times: use --fps=0"
        )
      frame_HWC = _shrink(frame_HWC, encoding.short_side, even=True)
      if stream is None:
        stream = _start(container, rate, encoding, exact, frame_HWC)
      for _ in range(due - count):
        frame = av.VideoFrame.from_ndarray(frame_HWC, format="rgb24")
        container.mux(stream.encode(frame))
      count = due
    if stream is None:
      raise ValueError(f"{opened.path} holds no frames")
    container.mux(stream.encode())
  return file.getvalue(), count


def _start(
  container: av.container.OutputContainer,
  rate: fractions.Fraction,
  encoding: Encoding,
  exact: bool,
  frame_HWC: np.ndarray,
) -> av.VideoStream:
  options = {"crf": str(encoding.crf)}
  if exact:
    options["x264-params"] = "asm=0"
  stream = container.add_stream("libx264", rate=rate, options=options)
  stream.height, stream.width = frame_HWC.shape[:2]
  stream.pix_fmt = "yuv420p"
  stream.gop_size = encoding.keyframes
  context = stream.codec_context
  context.sample_aspect_ratio = fractions.Fraction(1)  # pixels are square
  context.thread_count = 1  # examples are made in parallel
  return stream


def _shrink(frame_HWC: np.ndarray, short_side: int, even: bool) -> np.ndarray:
  """Reduces the short side; with `even` both sizes are, as 4:2:0 needs it."""
  height, width = frame_HWC.shape[:2]
  scale = min(short_side / min(height, width), 1) if short_side else 1
  unit = 2 if even else 1
  sizes = [max(round(n * scale / unit), 1) * unit for n in (width, height)]
  if sizes == [width, height]:
    return np.ascontiguousarray(frame_HWC)
  image = Image.fromarray(frame_HWC)
  return np.asarray(image.resize(sizes, Image.Resampling.BICUBIC))
