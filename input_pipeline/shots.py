"""Shots of a video: where it is cut, and which pieces of a shot show motion.

All is decided on thumbnails. Two of them differ by the mean of their pixels'
differences and by their histograms of colours, which camera and actors hardly
change. A cut is a frame that differs far more from the one before than both do
from their neighbours, and so do the frames around them: a flash of one frame is
none, and fast motion and fades, which last, are none either. Dissolves are not
found: their frames stay with the shots that they join.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 18, 32  # pixels of a thumbnail
_LEVELS = 4  # levels that a histogram tells apart, a colour
_PIXELS = 64.0  # difference of pixels that counts as 1, like half a histogram
# A frame is a cut that differs so much from the one before, and so many times
# as much as its neighbours do: one that is clear, or one that has hardly
# anything in common with it, in the midst of motion.
_CUTS = ((0.35, 2.0), (1.4, 1.25))
_NOISE = 0.02  # difference of equal pictures that were compressed
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_DARK = 24.0  # luma, of 255, that only a twentieth of a black frame exceeds
_STILL = 0.5  # mean change of luma, of 255, that no frame of a still exceeds
_BLOCK = 4096  # frames that are compared at a time

Span = tuple[int, int]  # the first frame, and the one after the last


def thumbnail(frame_HWC: np.ndarray) -> np.ndarray:
  """A frame, averaged to uint8 (18, 32, 3)."""
  image = Image.fromarray(np.ascontiguousarray(frame_HWC))
  return np.asarray(image.resize((WIDTH, HEIGHT), Image.Resampling.BOX))


def find(
  thumbs_THWC: np.ndarray, frames: int, left_out: Sequence[Span] = ()
) -> list[Span]:
  """Shots of at least `frames` frames, in order.

  Black frames and those of `left_out` belong to none. The first and the last
  frame of a shot may blend with what is beside it, and are left out.

  Args:
    thumbs_THWC: thumbnails of all frames of a video, uint8.
    frames: number of frames of the shortest shot.
    left_out: frames to leave out, like those of credits.
  """
  count = len(thumbs_THWC)
  bounds = np.zeros(count + 1, bool)
  bounds[[0, count, *cuts(thumbs_THWC)]] = True
  outside = np.array([_is_black(thumb) for thumb in thumbs_THWC], bool)
  for start, stop in left_out:
    outside[start:stop] = True
  # A run of frames ends where the next one is outside, or the other way round.
  bounds[1:count] |= outside[1:] != outside[:-1]
  places = np.flatnonzero(bounds).tolist()
  runs = zip(places, places[1:], strict=False)
  return [
    (start + 1, stop - 1)
    for start, stop in runs
    if not outside[start] and stop - start - 2 >= frames
  ]


def cuts(thumbs_THWC: np.ndarray) -> list[int]:
  """Numbers of the frames with which a shot begins, but for the first.

  `thumbs_THWC` are thumbnails of all frames of a video, uint8.
  """
  near, far = _differences(thumbs_THWC, 1), _differences(thumbs_THWC, 3)
  if len(far) < 1:
    return []
  # Place k is frame k + 2, from the third to the last but one.
  across = np.minimum(near[1 : len(far) + 1], far)
  within = np.maximum(near[: len(far)], near[2 : len(far) + 2])
  is_cut = np.zeros(len(far), bool)
  for least, times in _CUTS:
    is_cut |= (across > least) & (across > times * (within + _NOISE))
  return (np.flatnonzero(is_cut) + 2).tolist()


def moving_pieces(
  thumbs_THWC: np.ndarray, shot: Span, frames: int
) -> list[Span]:
  """Cuts a shot into pieces of `frames` frames or up to twice as many.

  Pieces follow each other, and differ in length by one frame at most. Stills,
  in which nothing moves, are left out.
  """
  start, stop = shot
  count = (stop - start) // frames
  places = [
    start + (stop - start) * k // count for k in range(count + 1) if count
  ]
  pieces = zip(places, places[1:], strict=False)
  return [piece for piece in pieces if not _is_still(thumbs_THWC, piece)]


def _differences(thumbs_THWC: np.ndarray, distance: int) -> np.ndarray:
  """Difference of each frame and the one `distance` later, float32 (T - d,)."""
  count = max(len(thumbs_THWC) - distance, 0)
  differences = np.zeros(count, np.float32)
  for start in range(0, count, _BLOCK):
    stop = min(start + _BLOCK, count)
    block = thumbs_THWC[start : stop + distance]
    pixels = block.astype(np.float32)
    histograms = np.stack([_histogram(thumb) for thumb in block])
    differences[start:stop] = np.abs(
      pixels[distance:] - pixels[:-distance]
    ).mean((1, 2, 3)) / _PIXELS + np.abs(
      histograms[distance:] - histograms[:-distance]
    ).sum(1)
  return differences


def _histogram(thumb_HWC: np.ndarray) -> np.ndarray:
  """Share of the pixels of each of 64 colours."""
  levels = thumb_HWC.astype(np.int32) * _LEVELS // 256
  colours = levels @ np.array([_LEVELS**2, _LEVELS, 1])
  counts = np.bincount(colours.ravel(), minlength=_LEVELS**3)
  return counts.astype(np.float32) / colours.size


def _is_black(thumb_HWC: np.ndarray) -> bool:
  return bool(np.quantile(thumb_HWC.astype(np.float32) @ _LUMA, 0.95) < _DARK)


def _is_still(thumbs_THWC: np.ndarray, piece: Span) -> bool:
  luma_THW = thumbs_THWC[slice(*piece)].astype(np.float32) @ _LUMA
  return bool(np.abs(luma_THW - luma_THW[0]).mean((1, 2)).max() < _STILL)
