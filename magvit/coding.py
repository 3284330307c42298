"""Frames of any size and number through a tokenizer.

They are padded to what the strides allow (the edge pixels repeated at the
bottom and on the right, the last frame repeated at the end) and the output is
cropped back: as many frames of the same size come out as went in. The padding
is the smallest that fits, because frames are normalised as a whole.

A tokenizer of images codes each frame as an image, in groups, and a causal CNN
a video in chunks that remember their past, so that any number of frames takes
the same memory. Any other tokenizer of videos codes the whole clip at once,
because windows of it would leave seams. Memory grows with the clip then, and
more than MAX_FRAMES frames are refused.
"""

import collections
from collections.abc import Iterator
import contextlib
import itertools

import jax
import ml_collections
import numpy as np

from evaluation import pictures
from magvit import load
from magvit import tokenizer as tokenizer_lib
from models import tokenizer as tokenizer_models

MAX_FRAMES = 1024  # of a clip that is coded at once
_PIXELS_AT_ONCE = 2**20  # of frames that are coded as images


def reconstruct_frames(
  tokenizer: load.LoadedTokenizer, frames: Iterator[np.ndarray]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """(original, reconstruction) of each frame, all uint8 (H, W, 3).

  Raises:
    ValueError: more than MAX_FRAMES frames for a tokenizer that needs whole
      clips, or too much for the memory of the device.
  """
  if codes_images(tokenizer.config):
    first_HWC = next(frames)
    frames = itertools.chain([first_HWC], frames)
    group_size = _group_size(first_HWC.shape[:2])
    while group := list(itertools.islice(frames, group_size)):
      outputs_BTHWC = reconstruct(tokenizer, np.stack(group)[:, None])
      yield from zip(group, outputs_BTHWC[:, 0], strict=True)
    return
  if streams(tokenizer.config):
    yield from _reconstruct_stream(tokenizer, frames)
    return
  clip = list(itertools.islice(frames, MAX_FRAMES + 1))
  if len(clip) > MAX_FRAMES:
    raise ValueError(_too_long())
  outputs_BTHWC = reconstruct(tokenizer, np.stack(clip)[None])
  yield from zip(clip, outputs_BTHWC[0], strict=True)


def codes_images(config: ml_collections.ConfigDict) -> bool:
  """Whether a tokenizer is of images and so codes frame by frame."""
  return not config.tokenizer.temporal


def streams(config: ml_collections.ConfigDict) -> bool:
  """Whether a tokenizer codes videos in chunks."""
  t = config.tokenizer
  return tokenizer_models.streams(t.architecture, t.causal, t.norm_statistics)


def padded_shape(
  config: ml_collections.ConfigDict, shape: tuple[int, int, int]
) -> tuple[int, int, int]:
  """(T, H, W) of all that is encoded for a video of this (T, H, W)."""
  return tokenizer_lib.sizes(config).padded(shape)


def reconstruct(
  tokenizer: load.LoadedTokenizer, video_BTHWC: np.ndarray
) -> np.ndarray:
  """Pads, encodes, decodes and crops: uint8 (B, T, H, W, 3) to the same.

  Raises:
    ValueError: too large for the memory of the device.
  """
  ids_Bthw = encode(tokenizer, video_BTHWC)
  return decode(tokenizer, ids_Bthw, video_BTHWC.shape[1:4])


def encode(
  tokenizer: load.LoadedTokenizer, video_BTHWC: np.ndarray
) -> np.ndarray:
  """Pads and encodes: uint8 (B, T, H, W, 3) to int32 (B, t, h, w).

  Raises:
    ValueError: too large for the memory of the device.
  """
  padded_BTHWC = _pad(video_BTHWC, tokenizer.config)
  with _within_memory(video_BTHWC.shape[1:4]):
    return np.asarray(tokenizer.encode(padded_BTHWC))


def decode(
  tokenizer: load.LoadedTokenizer,
  ids_Bthw: np.ndarray,
  shape: tuple[int, int, int],
) -> np.ndarray:
  """Decodes and crops to the (T, H, W) encoded: uint8 (B, T, H, W, 3).

  Raises:
    ValueError: too large for the memory of the device.
  """
  with _within_memory(shape):
    output_BTHWC = np.asarray(tokenizer.decode(ids_Bthw))
  frames, height, width = shape
  return pictures.to_uint8(output_BTHWC[:, :frames, :height, :width])


def _reconstruct_stream(tokenizer, frames):
  first_HWC = next(frames)
  height, width = first_HWC.shape[:2]
  waiting = collections.deque()  # originals whose output is not there yet

  def padded():
    count = 0
    for frame_HWC in itertools.chain([first_HWC], frames):
      count += 1
      waiting.append(frame_HWC)
      chunk_BTHWC = _pad(frame_HWC[None, None], tokenizer.config)
      yield chunk_BTHWC
    total, _, _ = padded_shape(tokenizer.config, (count, height, width))
    for _ in range(total - count):
      yield chunk_BTHWC

  with _within_memory((1, height, width)):
    ids = tokenizer.encode_stream(padded())
    for video_BTHWC in tokenizer.decode_stream(ids):
      for output_HWC in pictures.to_uint8(video_BTHWC[0]):
        if waiting:  # else it is of the padding
          yield waiting.popleft(), output_HWC[:height, :width]


def encode_clip(
  tokenizer: load.LoadedTokenizer, video_THWC: np.ndarray
) -> np.ndarray:
  """One uint8 video (T, H, W, 3) to int32 (t, h, w), frame by frame or whole.

  Raises:
    ValueError: too many frames, or too large for the memory of the device.
  """
  if codes_images(tokenizer.config):
    size = _group_size(video_THWC.shape[1:3])
    groups = [
      encode(tokenizer, video_THWC[i : i + size, None])
      for i in range(0, len(video_THWC), size)
    ]
    return np.concatenate(groups)[:, 0]
  if len(video_THWC) > MAX_FRAMES:
    raise ValueError(_too_long())
  return encode(tokenizer, video_THWC[None])[0]


def decode_clip(
  tokenizer: load.LoadedTokenizer,
  ids_thw: np.ndarray,
  shape: tuple[int, int, int],
) -> np.ndarray:
  """Ids of `encode_clip` to uint8 (T, H, W, 3), of that (T, H, W)."""
  if codes_images(tokenizer.config):
    size = _group_size(shape[1:])
    groups = []
    for i in range(0, len(ids_thw), size):
      ids_B1hw = ids_thw[i : i + size, None]
      groups.append(decode(tokenizer, ids_B1hw, (1, *shape[1:])))
    return np.concatenate(groups)[:, 0]
  return decode(tokenizer, ids_thw[None], shape)[0]


def _pad(
  video_BTHWC: np.ndarray, config: ml_collections.ConfigDict
) -> np.ndarray:
  shape = video_BTHWC.shape[1:4]
  padded = padded_shape(config, shape)
  after = [(0, p - s) for p, s in zip(padded, shape, strict=True)]
  return np.pad(video_BTHWC, [(0, 0), *after, (0, 0)], mode="edge")


def _group_size(shape: tuple[int, int]) -> int:
  """Frames that are coded as images at a time."""
  return max(1, _PIXELS_AT_ONCE // (shape[0] * shape[1]))


def _too_long() -> str:
  return (
    f"more than the {MAX_FRAMES} frames that this tokenizer codes at once: cut"
    " it into shorter videos, best at changes of scene, or use a tokenizer of"
    " images or a causal CNN"
  )


@contextlib.contextmanager
def _within_memory(shape: tuple[int, int, int]):
  try:
    yield
  except jax.errors.JaxRuntimeError as error:
    if "RESOURCE_EXHAUSTED" not in str(error):
      raise
    raise ValueError(
      f"{shape[0]} frames of {shape[1]} x {shape[2]} pixels do not fit into"
      " the memory of the device: make them fewer or smaller"
    ) from error
