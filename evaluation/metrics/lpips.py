"""LPIPS of clips, by weights that models/weights/convert.py wrote."""

from collections.abc import Callable

import jax
import numpy as np

from evaluation import values
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
    self._distance = load_distance(weights)
    self.weights_sha256 = readers.sha256(weights)

  def __call__(
    self, video_BTHWC: np.ndarray, output_BTHWC: np.ndarray
  ) -> np.ndarray:
    """Distances of two videos' clips, float32 (B, 1); one clip at a time.

    Pixels are uint8, or float in [0, 1] and then rounded to uint8.

    Raises:
      ValueError: videos of different shapes, pixels that cannot be, or a
        distance that is not finite.
    """
    shapes = np.shape(video_BTHWC), np.shape(output_BTHWC)
    if shapes[0] != shapes[1] or len(shapes[0]) != 5 or shapes[0][-1] != 3:
      raise ValueError(
        "two videos (B, T, H, W, 3) of the same shape are needed, got"
        f" {shapes[0]} and {shapes[1]}"
      )
    distances = []
    videos = (
      pictures.to_uint8(x, name=name)
      for name, x in (("video", video_BTHWC), ("output", output_BTHWC))
    )
    for pair in zip(*videos, strict=True):
      frames = (np.float32(x) / np.float32(255.0) for x in pair)
      distances.append(np.asarray(self._distance(*frames)).mean())
    values.check_range("LPIPS", distances, 0.0)
    return np.asarray(distances, np.float32)[:, None]


def load_distance(weights: str) -> Callable[..., jax.Array]:
  """LPIPS of frames, float32 (B, H, W, 3) in [0, 1]: float32 (B,).

  Products have the highest precision, as in the other feature networks:
  accelerators round them to 8 or 11 bits by default, which is enough for the
  loss of training, and moves a score.

  Raises:
    ValueError: no file, or another network's weights.
  """
  distance, params = perceptual.load("lpips_vgg", weights)

  def precise(params, target_BHWC, output_BHWC):
    with jax.default_matmul_precision("highest"):
      return distance(params, target_BHWC, output_BHWC)

  compiled = jax.jit(precise)
  return lambda target, output: compiled(params, target, output)
