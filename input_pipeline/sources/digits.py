"""`digits`: class-labelled moving handwritten digits, made from an index.

The digits are real: the 1,797 8x8 scans of the UCI set that scikit-learn
bundles (`load_digits`), split once into training and held-out scans.
Each is enlarged to three quarters of the frame and moves on a straight line: at
any speed up to a 64th of the frame per frame and axis, bouncing off the borders
("bounce"), within the clip from one border to the opposite one ("cross"), or
from the middle to one side ("drift"). Clip i is a pure function of (seed,
split, motion, i), so the set is endless, deterministic, and can be resumed
anywhere.

A label is the class of the digit, or its direction and class ("motion"), which
no single frame of "drift" tells: digits start at the same places, whichever way
they go. Those of "cross" start at the border that they leave.
"""

import functools
import typing

import numpy as np

if typing.TYPE_CHECKING:
  from sklearn import utils

CLASSES = 10
_HELD_OUT = 297  # held-out scans among the 1,797
_MAX_SPEED = 1.0 / 64.0  # frame sizes per frame and axis
ENDLESS = 2**40  # number of clips; far more than any run reads

_SPLITS = ("train", "held_out")
_DIRECTED = ("cross", "drift")  # motions that have one direction
_DIRECTIONS = ("up", "down", "left", "right")


class Digits:
  """Random-access source of clips, in the form grain reads."""

  CLASS_NAMES = (
    *("zero", "one", "two", "three", "four"),
    *("five", "six", "seven", "eight", "nine"),
  )

  def __init__(
    self,
    split: str,
    frames: int,
    size: int,
    seed: int,
    motion: str = "bounce",
    length: int = ENDLESS,
    labels: str = "class",
  ):
    """Clips of `frames` frames of `size` x `size` pixels.

    Raises:
      ValueError: an unknown split, motion or kind of labels, labels that the
        motion does not have, or a size that is not a multiple of 8.
    """
    if split not in _SPLITS:
      raise ValueError(f"split={split!r} must be one of {_SPLITS}")
    if motion not in _PATHS:
      raise ValueError(
        f"dataset.motion={motion!r} must be one of {sorted(_PATHS)}"
      )
    if labels not in _NAMES:
      raise ValueError(
        f"dataset.labels={labels!r} must be one of {sorted(_NAMES)}"
      )
    if labels == "motion" and (motion not in _DIRECTED or frames < 2):
      raise ValueError(
        "dataset.labels='motion' needs digits that move in one direction, and"
        f" dataset.motion={motion!r} with dataset.frames={frames} has none: set"
        " dataset.motion='drift' or 'cross', and two frames or more"
      )
    if size % 8 or size < 16:
      raise ValueError(
        f"dataset.size={size} must be a multiple of 8, at least 16: digits"
        " are 8x8 scans enlarged to three quarters of the frame"
      )
    if frames < 1:
      raise ValueError(f"dataset.frames={frames} must be at least 1")
    self._split, self._frames, self._size = split, frames, size
    self._seed, self._motion, self._length = seed, motion, length
    self._labels = labels

  def __len__(self) -> int:
    return self._length

  def __getitem__(self, index: int) -> dict[str, np.ndarray | np.int32]:
    """{"video": uint8 (T, H, W, 3), "label": int32 ()}."""
    images, labels = _enlarged(self._split, self._size * 3 // 4)
    rng = np.random.default_rng(
      (self._seed, _SPLITS.index(self._split), int(index))
    )
    sample = rng.integers(len(images))
    travel = self._size - images.shape[1]  # pixels that the corner can move
    corners = _PATHS[self._motion](rng, travel, self._frames, self._size)
    video = _render(images[sample], corners, self._size)
    video = np.repeat(video[..., None], 3, axis=-1)
    label = labels[sample]
    if self._labels == "motion":
      label += CLASSES * _direction(corners)
    return {"video": video, "label": np.int32(label)}


def _bounce(rng, travel: int, frames: int, size: int) -> np.ndarray:
  """Corners (T, 2) within [0, travel], reflected at both ends."""
  start = rng.uniform(0, travel, 2)
  speed = rng.uniform(-1, 1, 2) * _MAX_SPEED * size
  path = start + speed * np.arange(frames)[:, None]
  return travel - np.abs(travel - np.mod(path, 2 * travel))


def _cross(rng, travel: int, frames: int, size: int) -> np.ndarray:
  """Corners (T, 2): all the way on one axis, part of the way on the other."""
  del size
  ends = rng.uniform(0, travel, (2, 2))
  axis = rng.integers(2)
  ends[:, axis] = rng.permutation([0.0, travel])
  return np.linspace(ends[0], ends[1], frames)


def _drift(rng, travel: int, frames: int, size: int) -> np.ndarray:
  """Corners (T, 2): from the middle half three quarters of the way to a side.

  They leave [0, travel] by up to a half of it; the other axis changes by up to
  a quarter. Where a path starts does not depend on where it leads.
  """
  del size
  start = rng.uniform(travel / 4, 3 * travel / 4, 2)
  change = rng.uniform(-travel / 4, travel / 4, 2)
  change[rng.integers(2)] = rng.permutation([-1, 1])[0] * 3 * travel / 4
  return np.linspace(start, start + change, frames)


def _direction(corners_T2: np.ndarray) -> int:
  """Place in `_DIRECTIONS` of the longer way that corners go."""
  change = corners_T2[-1] - corners_T2[0]
  axis = int(np.abs(change).argmax())  # rows, then columns
  return 2 * axis + int(change[axis] > 0)


_PATHS = {"bounce": _bounce, "cross": _cross, "drift": _drift}
_NAMES = {  # kind of labels -> names of the classes
  "class": Digits.CLASS_NAMES,
  "motion": tuple(
    f"{name} going {direction}"
    for direction in _DIRECTIONS
    for name in Digits.CLASS_NAMES
  ),
}


def class_names(labels: str) -> tuple[str, ...]:
  """Names of the classes of a kind of labels; () for an unknown kind."""
  return _NAMES.get(labels, ())


@functools.cache
def _enlarged(split: str, size: int) -> tuple[np.ndarray, np.ndarray]:
  """Scans of a split: float32 (n, size, size) in [0, 1], labels int (n,)."""
  # Both take long to import, and other data sets do without.
  from scipy import ndimage
  from sklearn import datasets

  # A tuple is returned with return_X_y alone.
  data = typing.cast("utils.Bunch", datasets.load_digits())
  order = np.random.default_rng(0).permutation(len(data.images))
  chosen = order[:_HELD_OUT] if split == "held_out" else order[_HELD_OUT:]
  images = ndimage.zoom(
    data.images[chosen] / 16.0,
    (1, size / 8, size / 8),
    order=1,
    grid_mode=True,
    mode="grid-constant",
  )
  images = typing.cast(np.ndarray, images)  # as the input is
  return images.clip(0, 1).astype(np.float32), data.target[chosen]


def _render(image_HW, corners_T2, size: int) -> np.ndarray:
  """Clip of the image at fractional corners on black, uint8 (T, size, size).

  Corners may lie outside the frame by up to an eighth of it.
  """
  n, margin = image_HW.shape[0], size // 8
  wide = size + 2 * margin + 1
  video = np.zeros((len(corners_T2), wide, wide), np.float32)
  whole = np.floor(corners_T2).astype(int)
  for frame, (y, x), (fy, fx) in zip(
    video, whole, corners_T2 - whole, strict=True
  ):
    y, x = y + margin, x + margin
    for dy, wy in ((0, 1 - fy), (1, fy)):
      for dx, wx in ((0, 1 - fx), (1, fx)):
        frame[y + dy : y + dy + n, x + dx : x + dx + n] += wy * wx * image_HW
  shown = slice(margin, margin + size)
  return np.rint(255 * video[:, shown, shown]).astype(np.uint8)
