"""Rules, by name, that resize and crop frames of any size to squares.

  centre          a square in the middle of the frame; its side is `size` /
                  `short_side` of the frame's short side
  random          a square of that side, anywhere in the frame
  random_resized  a square of that side times a random factor in `scale`,
                  anywhere: 0.8 to 1 is the papers' augmentation of images
  three           squares of that side at both ends of the long side and in its
                  middle: three clips of each (Kinetics-600's evaluation)
  squash          the whole frame, out of proportion
  adm             as guided-diffusion: halved by 2 x 2 means while the short
                  side is at least twice `size`, bicubic to it, then the middle
                  in whole pixels; for the reference statistics of ImageNet

All but adm resample once, straight from the part that is kept, by Pillow with
antialiasing (`resize` with `box`), without rounding to whole pixels in between.
`filter` is one of Pillow's. All frames of a clip are cut alike.
"""

from collections.abc import Sequence
import dataclasses

import numpy as np
from PIL import Image

RULES = ("centre", "random", "random_resized", "three", "squash", "adm")
FILTERS = ("box", "bilinear", "hamming", "bicubic", "lanczos")


@dataclasses.dataclass(frozen=True)
class Crop:
  """How every frame becomes `size` x `size` pixels."""

  rule: str
  size: int
  short_side: int  # pixels of the frame's short side, scaled; at least size
  scale: tuple[float, float]  # range of the factors of random_resized, up to 1
  flip: bool  # whether half of the clips swap left and right
  filter: str

  def __post_init__(self):
    """Raises ValueError for settings that cannot work."""
    for field, value, known in (
      ("train_crop or eval_crop", self.rule, RULES),
      ("filter", self.filter, FILTERS),
    ):
      if value not in known:
        raise ValueError(f"dataset.{field}={value!r} must be one of {known}")
    if self.size < 1:
      raise ValueError(f"dataset.size={self.size} must be at least 1")
    if self.short_side < self.size:
      raise ValueError(
        f"dataset.short_side={self.short_side} must be at least"
        f" dataset.size={self.size}, or 0 to be the same"
      )
    low, high = self.scale
    if not 0 < low <= high <= 1:
      raise ValueError(
        f"dataset.scale={self.scale} must be two factors in (0, 1], the"
        " smaller one first"
      )

  @property
  def count(self) -> int:
    """Number of crops of each clip."""
    return 3 if self.rule == "three" else 1

  def __call__(
    self, frames: Sequence[np.ndarray], number: int, rng: np.random.Generator
  ) -> np.ndarray:
    """Crops uint8 frames (H, W, 3) of one size to a clip (T, size, size, 3).

    Args:
      frames: frames of one clip.
      number: number of the crop, below `count`.
      rng: source of the random draws, which do not depend on the frames.
    """
    place, factor = rng.random(2), rng.uniform(*self.scale)
    flipped = self.flip and rng.random() < 0.5
    if self.rule == "adm":
      clip = np.stack([_adm(frame_HWC, self.size) for frame_HWC in frames])
    else:
      height, width = frames[0].shape[:2]
      box = self._box(height, width, number, place, factor)
      clip = np.stack([self._resize(frame_HWC, box) for frame_HWC in frames])
    return clip[:, :, ::-1] if flipped else clip

  def _box(self, height, width, number, place, factor) -> tuple[float, ...]:
    """(left, top, right, bottom) in pixels of the frame."""
    if self.rule == "squash":
      return (0, 0, width, height)
    side = min(height, width) * self.size / self.short_side
    y = x = 0.5
    if self.rule in ("random", "random_resized"):
      y, x = place
      side *= factor if self.rule == "random_resized" else 1
    elif self.rule == "three":
      y, x = (0.5, number / 2) if width >= height else (number / 2, 0.5)
    left, top = x * (width - side), y * (height - side)
    # Pillow refuses a box that rounding has led out of the frame.
    return (left, top, min(left + side, width), min(top + side, height))

  def _resize(self, frame_HWC: np.ndarray, box) -> np.ndarray:
    if box == (0, 0, self.size, self.size) == (0, 0, *frame_HWC.shape[1::-1]):
      return frame_HWC
    resample = Image.Resampling[self.filter.upper()]
    image = Image.fromarray(frame_HWC)
    return np.asarray(image.resize((self.size, self.size), resample, box=box))


def _adm(frame_HWC: np.ndarray, size: int) -> np.ndarray:
  image = Image.fromarray(frame_HWC)
  while min(image.size) >= 2 * size:
    half = (image.width // 2, image.height // 2)
    image = image.resize(half, Image.Resampling.BOX)
  scale = size / min(image.size)
  image = image.resize(
    (round(image.width * scale), round(image.height * scale)),
    Image.Resampling.BICUBIC,
  )
  left, top = (image.width - size) // 2, (image.height - size) // 2
  return np.asarray(image.crop((left, top, left + size, top + size)))
