"""Frames of any size and number through a tokenizer.

They are padded to what the strides allow (the edge pixels repeated at the
bottom and on the right, the last frame repeated at the end) and the output is
cropped back: as many frames of the same size come out as went in. The padding
is the smallest that fits, because frames are normalised as a whole.

A tokenizer of images codes each frame as an image, in groups, and a causal CNN
a video in chunks that remember their past, so that any number of frames takes
the same memory. Any other tokenizer of videos codes the whole clip at once,
because windows of it would leave seams. Memory grows with the clip then, and
more than MAX_FRAMES frames or MAX_PIXELS pixels are refused. Frames, ids and
frames again go through as iterators; what needs them together collects them.
"""

import collections
from collections.abc import Iterable
from collections.abc import Iterator
import contextlib
import itertools

import jax
import ml_collections
import numpy as np

from evaluation.show import pictures
from magvit.tokenizer import describe
from magvit.tokenizer import loaded

MAX_FRAMES = 1024  # length of the longest clip that is coded at once
MAX_PIXELS = 2**28  # pixels of all frames of such a clip: 0.75 GiB as RGB
_PIXELS_AT_ONCE = 2**20  # size of a group of frames that are coded as images


def reconstruct_frames(
  tokenizer: loaded.LoadedTokenizer, frames: Iterable[np.ndarray]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """(original, reconstruction) of each frame, all uint8 (H, W, 3).

  Raises:
    ValueError: as `encode_frames`.
  """
  waiting = collections.deque()  # originals whose output is not there yet

  def remembered():
    for frame_HWC in frames:
      waiting.append(frame_HWC)
      yield frame_HWC

  ids = encode_frames(tokenizer, remembered())
  for output_HWC in _decode(tokenizer, ids):
    if waiting:  # else the output is padding
      height, width = waiting[0].shape[:2]
      yield waiting.popleft(), output_HWC[:height, :width]


def encode_frames(
  tokenizer: loaded.LoadedTokenizer, frames: Iterable[np.ndarray]
) -> Iterator[np.ndarray]:
  """Encodes frames, uint8 (H, W, 3), to ids, int32 (n, h, w), as they come.

  Raises:
    ValueError: no frames; more than MAX_FRAMES frames or MAX_PIXELS pixels for
      a tokenizer that needs whole clips; too much for the memory of the device.
  """
  config, frames = tokenizer.config, _some(frames)
  with _within_memory():
    if describe.codes_images(config):
      for first_HWC in frames:
        rest = _group_size(first_HWC.shape[:2]) - 1
        group = [first_HWC, *itertools.islice(frames, rest)]
        yield _encode(tokenizer, np.stack(group)[:, None])[:, 0]
    elif describe.streams(config):
      for ids_1thw in tokenizer.encode_stream(_padded_frames(config, frames)):
        yield ids_1thw[0]
    else:
      clip = []
      for frame_HWC in frames:
        clip.append(frame_HWC)
        _check_whole(len(clip), *frame_HWC.shape[:2])
      yield _encode(tokenizer, np.stack(clip)[None])[0]


def decode_frames(
  tokenizer: loaded.LoadedTokenizer,
  ids: Iterable[np.ndarray],
  shape: tuple[int, int, int],
) -> Iterator[np.ndarray]:
  """Decodes ids (n, h, w) of `encode_frames` to frames, uint8 (H, W, 3).

  Args:
    tokenizer: the one that encoded.
    ids: in pieces of any number; a tokenizer that needs whole clips needs all
      in one.
    shape: (T, H, W) of the video that was encoded.

  Raises:
    ValueError: more than MAX_FRAMES frames or MAX_PIXELS pixels for a tokenizer
      that needs whole clips, or too much for the memory of the device.
  """
  config = tokenizer.config
  frames, height, width = shape
  chunks = describe.codes_images(config) or describe.streams(config)
  if not chunks:
    _check_whole(frames, height, width)
  decoded = _decode(tokenizer, ids)
  for frame_HWC in itertools.islice(decoded, frames):
    yield frame_HWC[:height, :width]


def _encode(tokenizer, video_BTHWC: np.ndarray) -> np.ndarray:
  """Pads and encodes: uint8 (B, T, H, W, 3) to int32 (B, t, h, w)."""
  padded_BTHWC = _pad(video_BTHWC, tokenizer.config)
  return np.asarray(tokenizer.encode(padded_BTHWC))


def _decode(tokenizer, ids) -> Iterator[np.ndarray]:
  """Decodes ids (n, h, w) to uint8 (H, W, 3), without cutting the padding."""
  config = tokenizer.config
  with _within_memory():
    if describe.codes_images(config):
      stride = describe.sizes(config).space
      videos = (
        tokenizer.decode(group_N1hw).swapaxes(0, 1)
        for ids_Nhw in ids
        for group_N1hw in _groups(ids_Nhw[:, None], stride)
      )
    elif describe.streams(config):
      videos = tokenizer.decode_stream(ids_thw[None] for ids_thw in ids)
    else:
      videos = (tokenizer.decode(ids_thw[None]) for ids_thw in ids)
    for video_1THWC in videos:
      yield from pictures.to_uint8(np.asarray(video_1THWC)[0])


def _groups(ids_N1hw: np.ndarray, stride: int) -> Iterator[np.ndarray]:
  """Cuts ids (N, 1, h, w) into groups that are decoded at a time."""
  height, width = ids_N1hw.shape[2:4]
  size = _group_size((height * stride, width * stride))
  for i in range(0, len(ids_N1hw), size):
    yield ids_N1hw[i : i + size]


def _padded_frames(config, frames) -> Iterator[np.ndarray]:
  """Chunks (1, 1, H, W, 3), padded at the end to a length the strides allow."""
  count = 0
  for frame_HWC in frames:
    count += 1
    chunk_11HWC = _pad(frame_HWC[None, None], config)
    yield chunk_11HWC
  total, _, _ = describe.padded_shape(config, (count, *frame_HWC.shape[:2]))
  for _ in range(total - count):
    yield chunk_11HWC


def _pad(
  video_BTHWC: np.ndarray, config: ml_collections.ConfigDict
) -> np.ndarray:
  shape = video_BTHWC.shape[1:4]
  padded = describe.padded_shape(config, shape)
  after = [(0, p - s) for p, s in zip(padded, shape, strict=True)]
  return np.pad(video_BTHWC, [(0, 0), *after, (0, 0)], mode="edge")


def _group_size(shape: tuple[int, int]) -> int:
  """Number of frames that are coded as images at a time."""
  return max(1, _PIXELS_AT_ONCE // (shape[0] * shape[1]))


def _some(frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
  """The frames; ValueError if there are none."""
  frames = iter(frames)
  first_HWC = next(frames, None)
  if first_HWC is None:
    raise ValueError("there are no frames to encode: give one or more")
  yield first_HWC
  yield from frames


def _check_whole(frames: int, height: int, width: int) -> None:
  """Raises ValueError for a clip that is too large to be coded at once."""
  if frames > MAX_FRAMES:
    limit = f"{MAX_FRAMES} frames"
  elif frames * height * width > MAX_PIXELS:
    limit = f"{MAX_PIXELS:,} pixels"
  else:
    return
  raise ValueError(
    f"the video has more than the {limit} that this tokenizer codes at once:"
    " cut it into shorter videos, best at changes of scene, or use a tokenizer"
    " of images or a causal CNN"
  )


@contextlib.contextmanager
def _within_memory():
  try:
    yield
  except jax.errors.JaxRuntimeError as error:
    if "RESOURCE_EXHAUSTED" not in str(error):
      raise
    raise ValueError(
      "the frames do not fit into the memory of the device: make them fewer or"
      " smaller"
    ) from error
