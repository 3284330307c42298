"""Reads some frames of an encoded video or image, as a full decode gives them.

Decoding a whole video for one clip is waste, and a seek alone is wrong by a few
frames. So the packets are listed first, without decoding: their times, sorted,
number the frames. Decoding then starts at the last keyframe before the clip
and ends with the clip's last frame.

That is right only where a packet is a frame and its time is stored, not made
up: in the containers _TIMED and the codecs _FRAME_A_PACKET, without edit lists
that hide frames, from a first frame that is a keyframe. (AVI stores no times,
and FFmpeg's guesses are wrong with B-frames; XviD packs two frames into a
packet; VP8 has packets without a frame.) After a seek the decoder has to start
at a known keyframe, and to give that frame and all after it, at their times.
Whatever differs is decoded from the start, and counted.
"""

import bisect
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
import itertools
import typing

import av
import av.container
import av.error
import numpy as np

from input_pipeline.decoding import display
from input_pipeline.decoding import limits
from input_pipeline.decoding import media
from input_pipeline.decoding import streams

# Function from the number of frames to the numbers of those to read, in rising
# order; numbers may repeat.
Choice = Callable[[int], Sequence[int]]

# FFmpeg's names of containers that store the time at which a frame is shown,
# and of codecs of which each packet there is one frame that is shown.
_TIMED = ("matroska,webm", "mov,mp4,m4a,3gp,3g2,mj2")
_FRAME_A_PACKET = ("av1", "ffv1", "h264", "hevc", "mjpeg", "prores", "vp9")


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

  `choose` must be a pure function: it may be called twice. Only the frames that
  it selects are kept in memory.

  Raises:
    ValueError: a damaged file, one that is larger than `limits` allows, or what
      `choose` raises; names the example.
  """
  with media.readable(encoded.name):
    first, *others = encoded.parts
    if others:
      chosen = choose(len(encoded.parts))
      kept = _keep(_pictures(encoded.parts, sorted(set(chosen))))
    elif not media.is_ffmpegs(first):
      chosen = choose(media.count_pages(first))
      kept = _keep(_pages(first, sorted(set(chosen))))
    else:
      chosen, kept = _read_video(first, choose)
    frames = [kept[number] for number in chosen]
    sizes = {frame_HWC.shape[:2] for frame_HWC in frames}
    if len(sizes) != 1:
      raise ValueError(f"its frames have several sizes: {sorted(sizes)}")
    return frames


def every_frame(encoded: Encoded) -> Iterator[np.ndarray]:
  """Yields all frames, uint8 (H, W, 3), of one size, and keeps none of them.

  Args:
    encoded: an example whose parts are paths.

  Raises:
    ValueError: a damaged file, or one that is larger than `limits` allows;
      names the example.
  """
  first, *others = typing.cast(tuple[str, ...], encoded.parts)
  if not others:
    yield from media.probe(first).frames()
    return
  size = None
  with media.readable(encoded.name):
    for number, frame_HWC in _pictures(encoded.parts, range(1 + len(others))):
      size = size or frame_HWC.shape[:2]
      if frame_HWC.shape[:2] != size:
        raise ValueError(
          f"its frames have several sizes: frame 0 has {size}, frame {number}"
          f" {frame_HWC.shape[:2]}"
        )
      yield frame_HWC


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
      return media.count_pages(part)
    index = _index(part)
    return len(index.times) if index else _count_by_decoding(part)


def _keep(numbered: Iterable[tuple[int, np.ndarray]]) -> dict[int, np.ndarray]:
  """Collects (number, frame), and refuses what is too large to be kept."""
  kept, pixels = {}, 0
  for number, frame_HWC in numbered:
    kept[number] = frame_HWC
    pixels += frame_HWC.shape[0] * frame_HWC.shape[1]
    limits.check_clip(pixels)
  return kept


def _pictures(
  parts: Sequence[str | bytes], numbers: Iterable[int]
) -> Iterator[tuple[int, np.ndarray]]:
  for number in numbers:
    yield number, next(media.pillow_frames(parts[number]))


def _pages(
  part: str | bytes, numbers: list[int]
) -> Iterator[tuple[int, np.ndarray]]:
  # The numbers come first in `zip`: they end the reading at the last one.
  return zip(numbers, media.pillow_frames(part, set(numbers)), strict=False)


@dataclasses.dataclass(frozen=True)
class _Index:
  """Times at which frames are shown, in the stream's units, rising."""

  times: list[int]  # times of all frames
  keyframes: list[int]  # times of frames at which decoding can start
  decoded: list[int | None]  # times at which those are decoded, if known


def _index(part: str | bytes) -> _Index | None:
  """The stream's index; None where packets do not number the frames."""
  with media.open_video(part) as container:
    stream = media.video_stream(container)
    codec = stream.codec_context.codec.canonical_name
    if container.format.name not in _TIMED or codec not in _FRAME_A_PACKET:
      return None
    packets = [
      (p.pts, p.dts, p.is_keyframe, p.is_discard or p.is_corrupt)
      for p in streams.packets(container, stream)
      if p.size
    ]
  times = [time for time, *_ in packets if time is not None]
  if any(odd for *_, odd in packets) or len(times) != len(packets):
    return None
  keys = [
    (time, dts)
    for time, (_, dts, key, _) in zip(times, packets, strict=True)
    if key
  ]
  keyframes, decoded = [time for time, _ in keys], [dts for _, dts in keys]
  in_order = sorted(set(times))
  if (
    len(in_order) != len(times)
    or keyframes != sorted(keyframes)
    or not keyframes[:1] == times[:1] == in_order[:1]
  ):
    return None
  return _Index(in_order, keyframes, decoded)


def _read_video(
  part: str | bytes, choose: Choice
) -> tuple[Sequence[int], dict[int, np.ndarray]]:
  """(numbers of the chosen frames, the frames by number)."""
  index = _index(part)
  if index is not None:
    chosen = choose(len(index.times))
    kept = _keep_by_time(part, index, chosen)
    if kept is not None:
      return chosen, kept
  chosen = choose(_count_by_decoding(part))
  return chosen, _keep(_from_the_start(part, chosen))


def _keep_by_time(
  part: str | bytes, index: _Index, chosen: Sequence[int]
) -> dict[int, np.ndarray] | None:
  """The chosen frames; None unless decoding gives the times of the index."""
  times, wanted, last = [], set(chosen), chosen[-1]
  place = bisect.bisect_right(index.keyframes, index.times[chosen[0]]) - 1

  def numbered():
    with media.open_video(part) as container:
      stream = media.video_stream(container)
      packets = _packets(container, stream, index, place)
      for frame in _until(packets, index.times[last]):
        times.append(typing.cast(int, frame.pts))
        number = bisect.bisect_left(index.times, times[-1])
        if number in wanted:
          yield number, display.shown(frame, stream.sample_aspect_ratio)

  kept = _keep(numbered())
  # Without a gap from a keyframe at or before the first one to the last one.
  whole = times == index.times[last + 1 - len(times) : last + 1]
  return kept if whole and kept.keys() == wanted else None


def _packets(
  container: av.container.InputContainer,
  stream: av.VideoStream,
  index: _Index,
  place: int,
) -> Iterator[av.Packet]:
  """Packets from a keyframe of the index, the one at `place` or one before it.

  Containers are sought by the time of showing or of decoding, and some land
  elsewhere. There is no packet if none of both leads to such a keyframe.
  """
  known = set(index.keyframes[: place + 1])
  for target in (index.keyframes[place], index.decoded[place]):
    try:
      if place and target is not None:
        container.seek(target, stream=stream)
    except av.error.FFmpegError:
      continue
    packets = streams.packets(container, stream)
    first = next(packets)
    if first.is_keyframe and first.pts in known:
      return itertools.chain([first], packets)
  return iter(())


def _until(packets: Iterator[av.Packet], last: int) -> Iterator[av.VideoFrame]:
  """Frames from the first packet's to the one shown at `last`.

  Ends before, at the first sign that they may not be those of a full decode.
  """
  start = None
  for packet in packets:
    start = packet.pts if start is None else start
    for frame in () if streams.is_empty(packet) else packet.decode():
      if frame.pts is None or frame.pts > last:
        return
      if frame.pts < start:  # it needs frames before the keyframe
        continue
      if frame.is_corrupt or (frame.pts == start and not frame.key_frame):
        return
      yield frame
      if frame.pts == last:
        return


def _from_the_start(
  part: str | bytes, chosen: Sequence[int]
) -> Iterator[tuple[int, np.ndarray]]:
  """(number, frame) of the chosen frames, counted as they are decoded."""
  wanted = set(chosen)
  with media.open_video(part) as container:
    stream = media.video_stream(container)
    frames = streams.decoded(container, stream)
    decoded = itertools.islice(frames, max(wanted) + 1)
    for number, frame in enumerate(decoded):
      if number in wanted:
        yield number, display.shown(frame, stream.sample_aspect_ratio)


def _count_by_decoding(part: str | bytes) -> int:
  with media.open_video(part) as container:
    stream = media.video_stream(container)
    return sum(1 for _ in streams.decoded(container, stream))
