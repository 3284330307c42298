"""LPIPS of clips, by weights that models/weights/convert.py wrote."""

import functools

import jax
import numpy as np

from models.features import perceptual
from models.weights import readers


class Lpips:
  """LPIPS v0.1 of VGG16, mean over the frames of a clip.

  Attributes:
    weights_sha256: of the file, in hexadecimal; results record it.
  """

  def __init__(self, weights: str):
    """Raises ValueError: no file, or another network's weights."""
    distance, params = perceptual.load("lpips_vgg", weights)
    self.weights_sha256 = readers.sha256(weights)
    self._distance = functools.partial(jax.jit(distance), params)

  def __call__(
    self, video_BTHWC: np.ndarray, output_BTHWC: np.ndarray
  ) -> np.ndarray:
    """float32 (B, 1) of two uint8 videos; frames of one clip at a time."""
    values = []
    for pair in zip(video_BTHWC, output_BTHWC, strict=True):
      frames = (np.float32(x) / np.float32(255.0) for x in pair)
      values.append(np.asarray(self._distance(*frames)).mean())
    return np.asarray(values, np.float32)[:, None]
