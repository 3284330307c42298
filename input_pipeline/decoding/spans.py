"""Some consecutive frames of a video, as if they were a video of their own."""

from collections.abc import Iterator
import dataclasses

import numpy as np

from input_pipeline.decoding import frame_reader
from input_pipeline.decoding import limits
from input_pipeline.decoding import media


@dataclasses.dataclass(frozen=True)
class Span(media.Media):
  """The frames of a file from `start` up to `stop`."""

  start: int
  stop: int
  at_once: int  # number of frames that are read and kept together

  def frames(self) -> Iterator[np.ndarray]:
    """Yields the frames, uint8 (H, W, 3), all of one size.

    Raises:
      ValueError: a file that is damaged, or has fewer frames.
    """
    for number in range(self.start, self.stop):
      yield _frame(self.path, number, self.at_once)


def probe(path: str, start: int, stop: int) -> Span:
  """Opens frames of a video; ValueError for a file that is none."""
  opened = media.probe(path)
  with media.readable(path), media.open_video(path) as container:
    context = media.video_stream(container).codec_context
    pixels = context.height * context.width
  # A quarter of the limit: pixels that are not square are enlarged.
  at_once = max(limits.MAX_CLIP_PIXELS // (4 * pixels), 1)
  return Span(**vars(opened), start=start, stop=stop, at_once=at_once)


@dataclasses.dataclass(frozen=True)
class _Block:
  path: str
  first: int
  frames: list[np.ndarray]


# The frames that were read last. To decode one takes those since a keyframe,
# and the spans of a video are read in turn.
_last = _Block("", 0, [])


def _frame(path: str, number: int, at_once: int) -> np.ndarray:
  global _last
  place = number - _last.first
  if _last.path != path or not 0 <= place < len(_last.frames):

    def choose(length: int) -> range:
      if number >= length:
        raise ValueError(f"it has {length} frames, and none of number {number}")
      return range(number, min(number + at_once, length))

    _last = _Block("", 0, [])  # frees its memory before the next one takes it
    encoded = frame_reader.Encoded(path, 0, (path,))
    _last = _Block(path, number, frame_reader.read(encoded, choose))
    place = 0
  return _last.frames[place]
