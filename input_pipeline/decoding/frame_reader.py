"""Reads some frames of an encoded video or image, as a full decode gives them.

Decoding a whole video for one clip is waste, and a seek alone is wrong by a few
frames. So the packets are listed first, without decoding: their times, sorted,
number the frames. Decoding then starts at the last keyframe before the clip
and ends with the clip's last frame. Where times cannot be trusted (AVI keeps
none; edit lists hide frames; a stream starts with frames that miss their
reference) frames are counted by decoding, from the start.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
import itertools

import av
import av.container
import numpy as np

from input_pipeline.decoding import media

# Function from the number of frames to the numbers of those to read, in rising
# order; numbers may repeat.
Choice = Callable[[int], Sequence[int]]


@dataclasses.dataclass(frozen=True)
class Encoded:
  """One example as it is stored."""

  name: str  # name in messages: a path, or a place in a data set
  label: int
  # One image or video, or several images, which are the frames of a video; each
  # is a path or the contents of a file.
  parts: tuple[str | bytes, ...]


def read(encoded: Encoded, choose: Choice) -> list[np.ndarray]:
  """The frames that `choose` selects, each uint8 (H, W, 3), all of one size.

  `choose` must be a pure function: it may be called twice.

  Raises:
    ValueError: a damaged file, or what `choose` raises; names the example.
  """
  with media.readable(encoded.name):
    first, *others = encoded.parts
    if others:
      chosen = [encoded.parts[i] for i in choose(len(encoded.parts))]
      frames = [_only_frame(part) for part in chosen]
    elif media.is_ffmpegs(first):
      frames = _read_video(first, choose)
    else:
      frames = _read_pillow(first, choose)
    sizes = {frame_HWC.shape[:2] for frame_HWC in frames}
    if len(sizes) != 1:
      raise ValueError(f"its frames have several sizes: {sorted(sizes)}")
    return frames


def count_frames(encoded: Encoded) -> int:
  """Number of frames; decodes them only where the packets do not tell.

  Raises:
    ValueError: a file that cannot be opened.
  """
  with media.readable(encoded.name):
    part, *others = encoded.parts
    if others:
      return len(encoded.parts)
    if not media.is_ffmpegs(part):
      return sum(1 for _ in media.pillow_frames(part))
    index = _index(part)
    return len(index.times) if index else _count_by_decoding(part)


def _only_frame(part: str | bytes) -> np.ndarray:
  return next(media.pillow_frames(part))


def _read_pillow(part: str | bytes, choose: Choice) -> list[np.ndarray]:
  frames = list(media.pillow_frames(part))
  return [frames[i] for i in choose(len(frames))]


@dataclasses.dataclass(frozen=True)
class _Index:
  """Times at which frames are shown, in the stream's units, rising."""

  times: list[int]  # times of all frames
  keyframes: list[int]  # times of frames at which decoding can start


def _index(part: str | bytes) -> _Index | None:
  """The stream's index; None where packets do not number the frames."""
  with media.open_video(part) as container:
    packets = [
      (packet.pts, packet.is_keyframe, packet.is_discard, packet.is_corrupt)
      for packet in container.demux(video=0)
      if packet.size
    ]
  times = sorted({time for time, *_ in packets if time is not None})
  keyframes = sorted(
    time for time, key, *_ in packets if key and time is not None
  )
  odd = any(discard or corrupt for *_, discard, corrupt in packets)
  if odd or len(times) != len(packets) or keyframes[:1] != times[:1]:
    return None
  return _Index(times, keyframes)


def _read_video(part: str | bytes, choose: Choice) -> list[np.ndarray]:
  index = _index(part)
  if index is not None:
    wanted = [index.times[i] for i in choose(len(index.times))]
    frames = _frames_at(part, wanted, index)
    if frames is not None:
      return frames
  chosen = choose(_count_by_decoding(part))
  with media.open_video(part) as container:
    decoded = itertools.islice(container.decode(video=0), chosen[-1] + 1)
    frames = {
      i: media.video_frame(frame)
      for i, frame in enumerate(decoded)
      if i in chosen
    }
  return [frames[i] for i in chosen]


def _frames_at(
  part: str | bytes, wanted: list[int], index: _Index
) -> list[np.ndarray] | None:
  """Frames shown at these times; None if decoding gives other times."""
  start = max(time for time in index.keyframes if time <= wanted[0])
  decoded = {}
  with media.open_video(part) as container:
    if start != index.keyframes[0]:
      container.seek(start, stream=container.streams.video[0])
    for frame in _until(container, wanted[-1]):
      if frame.pts in wanted:
        decoded[frame.pts] = media.video_frame(frame)
  if set(decoded) != set(wanted):
    return None
  return [decoded[time] for time in wanted]


def _until(
  container: av.container.InputContainer, last: int
) -> Iterator[av.VideoFrame]:
  for frame in container.decode(video=0):
    if frame.pts is None or frame.pts > last:
      return
    yield frame
    if frame.pts == last:
      return


def _count_by_decoding(part: str | bytes) -> int:
  with media.open_video(part) as container:
    return sum(1 for _ in container.decode(video=0))
