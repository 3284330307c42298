"""`digits`: class-labelled moving handwritten digits, made from an index.

The digits are real: the 1,797 8x8 scans of the UCI set that scikit-learn
bundles (`load_digits`), split once into training and held-out scans.
Each is enlarged to three quarters of the frame and moves on a straight line: at
any speed up to a 64th of the frame per frame and axis, bouncing off the borders
("bounce"), or within the clip from one border to the opposite one ("cross").
Clip i is a pure function of (seed, split, motion, i), so the set is endless,
deterministic, and can be resumed anywhere.
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
  ):
    """Clips of `frames` frames of `size` x `size` pixels.

    Raises:
      ValueError: an unknown split or motion, or a size that is not a multiple
        of 8.
    """
    if split not in _SPLITS:
      raise ValueError(f"split={split!r} must be one of {_SPLITS}")
    if motion not in _PATHS:
      raise ValueError(
        f"dataset.motion={motion!r} must be one of {sorted(_PATHS)}"
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
    return {"video": video, "label": np.int32(labels[sample])}


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


_PATHS = {"bounce": _bounce, "cross": _cross}


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
  """Clip of the image at fractional corners on black, uint8 (T, size, size)."""
  n = image_HW.shape[0]
  video = np.zeros((len(corners_T2), size + 1, size + 1), np.float32)
  whole = np.floor(corners_T2).astype(int)
  for frame, (y, x), (fy, fx) in zip(
    video, whole, corners_T2 - whole, strict=True
  ):
    for dy, wy in ((0, 1 - fy), (1, fy)):
      for dx, wx in ((0, 1 - fx), (1, fx)):
        frame[y + dy : y + dy + n, x + dx : x + dx + n] += wy * wx * image_HW
  return np.rint(255 * video[:, :size, :size]).astype(np.uint8)
