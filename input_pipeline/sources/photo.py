"""`photo`: one clip of a natural scene, to overfit.

The clip pans slowly over the photograph of a tower by a lake that scikit-learn
bundles (`load_sample_images`), from the tower to the trees. Reduced to a
quarter and enlarged again (bicubic), 64 x 64 pixels of it score 24 dB. Every
index of either split is this clip: a tokenizer that cannot learn it by heart
will learn nothing.
"""

import numpy as np
from PIL import Image

ENDLESS = 2**40  # number of clips; far more than any run reads

_SHARE = 0.6  # share of the photograph's height that a frame shows


class Photo:
  """Random-access source of clips, in the form grain reads."""

  def __init__(
    self, split: str, frames: int, size: int, seed: int, length: int = ENDLESS
  ):
    """One clip of `frames` frames of `size` x `size` pixels.

    `split` and `seed` change nothing: there is one clip.

    Raises:
      ValueError: frames or size below 1.
    """
    del split, seed
    if frames < 1 or size < 1:
      raise ValueError(
        f"dataset.frames={frames} and dataset.size={size} must be at least 1"
      )
    from sklearn import datasets  # It takes long, and few data sets need it.

    self._length = length
    self._clip = _pan(datasets.load_sample_images().images[0], frames, size)

  def __len__(self) -> int:
    return self._length

  def __getitem__(self, index: int) -> dict[str, np.ndarray | np.int32]:
    """{"video": uint8 (T, H, W, 3), "label": int32 ()}."""
    del index
    return {"video": self._clip, "label": np.int32(0)}


def _pan(photo_HWC: np.ndarray, frames: int, size: int) -> np.ndarray:
  """Clip of a window that moves to the right, uint8 (T, size, size, 3)."""
  image = Image.fromarray(photo_HWC)
  side = _SHARE * image.height
  top = (image.height - side) / 2
  left = np.linspace(0.65, 0.85, frames) * (image.width - side)
  resized = [
    image.resize(
      (size, size),
      Image.Resampling.BOX,
      box=(x, top, x + side, top + side),
    )
    for x in left
  ]
  return np.stack([np.asarray(frame) for frame in resized])
