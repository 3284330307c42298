"""LPIPS of clips, by weights that models/weights/convert.py wrote."""

import functools

import jax
import numpy as np

from evaluation.show import pictures
from models.features import perceptual
from models.weights import readers


class Lpips:
  """LPIPS v0.1 of VGG16, mean over the frames of a clip.

  Attributes:
    weights_sha256: checksum of the weights' file, in hexadecimal; results
      record it.
  """

  def __init__(self, weights: str):
    """Loads the weights.

    Raises:
      ValueError: no file, or another network's weights.
    """
    distance, params = perceptual.load("lpips_vgg", weights)
    self.weights_sha256 = readers.sha256(weights)
    self._distance = functools.partial(jax.jit(distance), params)

  def __call__(
    self, video_BTHWC: np.ndarray, output_BTHWC: np.ndarray
  ) -> np.ndarray:
    """Distances of two videos' clips, float32 (B, 1); one clip at a time.

    Pixels are uint8, or float in [0, 1] and then rounded to uint8.
    """
    values = []
    videos = (pictures.to_uint8(x) for x in (video_BTHWC, output_BTHWC))
    for pair in zip(*videos, strict=True):
      frames = (np.float32(x) / np.float32(255.0) for x in pair)
      values.append(np.asarray(self._distance(*frames)).mean())
    return np.asarray(values, np.float32)[:, None]
