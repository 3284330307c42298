"""MP4 files that any player shows (H.264, through PyAV's FFmpeg)."""

import contextlib
import fractions
import os

import av
import av.container
import av.error
import numpy as np

from storage import files

_QUALITY = "12"  # x264's constant rate factor: no visible loss; 0 is lossless
# x264's machine code for weighing blocks by how far they are referred to reads
# memory that nothing has written, and the bytes of a film would change by it.
_SAME_BYTES = "mbtree=0"
_BT709 = 1  # number in FFmpeg's tables of matrices, primaries, transfer curves
_LIMITED_RANGE = 1  # FFmpeg's number for luma in 16..235


class Writer:
  """Writes frames one by one; the file appears when the `with` block ends.

    with Writer(path, frame_rate) as writer:
      writer.add(frame_HWC)

  An exception inside leaves no file. Missing folders are made. Every player
  shows yuv420p, which halves the resolution of colour and therefore needs even
  sizes; frames of an odd size are written as yuv444p, which some browsers do
  not play. Pixels are square.

  Failures of the encoder, like frames that are too wide for it, are ValueErrors
  that name the file.
  """

  def __init__(
    self, path: str | os.PathLike, frame_rate: fractions.Fraction | int
  ) -> None:
    self._path = path
    self._file = contextlib.ExitStack()  # the file, from the first frame on
    self._rate = fractions.Fraction(frame_rate)
    self._container: av.container.OutputContainer | None = None
    self._stream: av.VideoStream | None = None

  def __enter__(self) -> "Writer":
    return self

  def add(self, frame_HWC: np.ndarray) -> None:
    """Appends a frame, uint8 (H, W, 3) RGB; all have the size of the first.

    Raises:
      ValueError: another type or shape, or a frame that cannot be encoded.
    """
    if frame_HWC.dtype != np.uint8 or frame_HWC.shape[2:] != (3,):
      raise ValueError(
        f"frame of shape {frame_HWC.shape} and type {frame_HWC.dtype} must be"
        " uint8 (height, width, 3)"
      )
    if self._stream is None:
      with self._writable():
        self._stream = self._start(*frame_HWC.shape[:2])
    size = (self._stream.height, self._stream.width)
    if frame_HWC.shape[:2] != size:
      raise ValueError(
        f"frame of {frame_HWC.shape[:2]} must have the size of the first,"
        f" {size}"
      )
    frame = av.VideoFrame.from_ndarray(frame_HWC, format="rgb24").reformat(
      format=self._stream.pix_fmt,
      dst_colorspace=_BT709,
      dst_color_range=_LIMITED_RANGE,
    )
    self._write(frame)

  def _write(self, frame: av.VideoFrame | None) -> None:
    """Encodes a frame; None: what the encoder still holds."""
    if self._container is not None and self._stream is not None:
      with self._writable():
        self._container.mux(self._stream.encode(frame))

  @contextlib.contextmanager
  def _writable(self):
    """Turns a failure of the encoder inside into a ValueError with the file."""
    try:
      yield
    except (av.error.FFmpegError, OverflowError) as error:
      size = ""
      if self._stream is not None:
        size = f" of {self._stream.height} x {self._stream.width} pixels"
      reason = getattr(error, "strerror", None) or error
      raise ValueError(
        f"cannot write {self._path}: {reason}, for frames{size} at"
        f" {self._rate} frames per second; H.264 takes up to 16384 pixels a"
        " side: make the frames smaller if they are larger, and see that the"
        " disk is not full"
      ) from error

  def _start(self, height: int, width: int) -> av.VideoStream:
    temporary = self._file.enter_context(files.published(self._path))
    self._file.push(self._end)
    self._container = av.open(
      str(temporary),
      "w",
      format="mp4",
      options={"movflags": "+faststart"},
    )
    stream = self._container.add_stream(
      "libx264",
      rate=self._rate,
      options={"crf": _QUALITY, "x264-params": _SAME_BYTES},
    )
    stream.height, stream.width = height, width
    even = height % 2 == 0 and width % 2 == 0
    stream.pix_fmt = "yuv420p" if even else "yuv444p"
    # The file says which colours it has; otherwise players guess.
    context = stream.codec_context
    context.sample_aspect_ratio = fractions.Fraction(1)
    context.colorspace = context.color_primaries = context.color_trc = _BT709
    context.color_range = _LIMITED_RANGE
    return stream

  def _end(self, error_type, *unused) -> None:
    """Writes what the encoder still holds, unless there was an error."""
    if self._container is None:
      return
    try:
      if error_type is None:
        self._write(None)
        with self._writable():
          self._container.close()
    finally:
      # After a failure, which counts more than what closing says of it.
      with contextlib.suppress(Exception):
        self._container.close()

  def __exit__(self, *error) -> None:
    self._file.__exit__(*error)
