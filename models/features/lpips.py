"""LPIPS v0.1 with VGG-16: a distance of images, fitted to people's answers.

Zhang et al. 2018 (arXiv 1801.03924, eq. 1), with the constants of the authors'
`lpips` package, release 0.1.4.
"""

from flax import nnx
import jax
from jax import lax
import jax.numpy as jnp

from models.features import taps

# Stages of VGG-16 as (number of convolutions, width), with a pool between two
# stages. LPIPS compares the last activation of each.
STAGES = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))
_MIN_SIZE = 2 ** (len(STAGES) - 1)  # pixels that the pools reduce to one
# ImageNet's mean and standard deviation, rounded, for pixels in [-1, 1].
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)


class LpipsVgg(nnx.Module):
  """Distance of two images, at least 16 x 16, with pixels in [0, 1]."""

  def __init__(self, *, rngs: nnx.Rngs):
    stages, heads, channels = [], [], 3
    for num_convs, width in STAGES:
      convs = []
      for _ in range(num_convs):
        convs.append(nnx.Conv(channels, width, (3, 3), rngs=rngs))
        channels = width
      stages.append(nnx.List(convs))
      heads.append(nnx.Conv(width, 1, (1, 1), use_bias=False, rngs=rngs))
    self.stages = nnx.List(stages)
    self.heads = nnx.List(heads)

  def distance(
    self, target_BHWC: jax.Array, output_BHWC: jax.Array
  ) -> jax.Array:
    """LPIPS of each pair of images (B, H, W, 3) in [0, 1]: (B,), 0 if equal.

    Raises:
      ValueError: images smaller than 16 x 16.
    """
    total_B = jnp.zeros(len(target_BHWC))
    for head, target, output in zip(
      self.heads,
      self._features(target_BHWC),
      self._features(output_BHWC),
      strict=True,
    ):
      difference = jnp.square(
        taps.unit_length(target) - taps.unit_length(output)
      )
      total_B += head(difference).mean((1, 2, 3))
    return total_B

  def _features(self, images_BHWC: jax.Array) -> list[jax.Array]:
    """Activations (B, h, w, C) after relu1_2, 2_2, 3_3, 4_3 and 5_3."""
    if min(images_BHWC.shape[1:3]) < _MIN_SIZE:
      raise ValueError(
        f"images of {images_BHWC.shape[1:3]} pixels are too small for LPIPS,"
        f" which needs {_MIN_SIZE} x {_MIN_SIZE}: use larger clips, or"
        " loss.perceptual_network=resnet50 or off"
      )
    shift, scale = (
      lax.broadcast_to_rank(jnp.array(x), images_BHWC.ndim)
      for x in (_SHIFT, _SCALE)
    )
    x = (2.0 * images_BHWC - 1.0 - shift) / scale
    features = []
    for convs in self.stages:
      if features:
        x = nnx.max_pool(x, (2, 2), (2, 2))
      for conv in convs:
        x = jax.nn.relu(conv(x))
      features.append(x)
    return features
