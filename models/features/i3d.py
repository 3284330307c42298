"""I3D on Kinetics-400, whose logits FVD compares.

Carreira and Zisserman 2017 (arXiv 1705.07750), as in TensorFlow Hub's
deepmind/i3d-kinetics-400/1: every convolution and pool pads as TensorFlow's
SAME does, batch norms have an epsilon of 1e-3 and no scale. Layers have the
names of the state dict i3d_pretrained_400.pt.
"""

from collections.abc import Sequence
import re
import typing

from flax import nnx
import jax
from jax import lax
import jax.numpy as jnp

from models.features import feature_network
from models.features import resize
from models.tokenizer import convolution

DIMS = {"logits": 400}
MIN_FRAMES = 9  # fewest that leave two steps in time for the last pool
_SIZE = 224  # pixels of the network's input
_BATCH_NORM_EPSILON = 1e-3

# Layers and pools in their order. A block is given by the widths of the
# convolutions in its four branches: 1x1x1; 1x1x1 then 3x3x3; the same again;
# and 1x1x1 after a max pool. Its output joins those of the branches.
STEM = {  # input channels, width, kernel, stride
  "Conv3d_1a_7x7": (3, 64, (7, 7, 7), (2, 2, 2)),
  "Conv3d_2b_1x1": (64, 64, (1, 1, 1), (1, 1, 1)),
  "Conv3d_2c_3x3": (64, 192, (3, 3, 3), (1, 1, 1)),
}
BLOCKS = {  # input channels, widths
  "Mixed_3b": (192, (64, 96, 128, 16, 32, 32)),
  "Mixed_3c": (256, (128, 128, 192, 32, 96, 64)),
  "Mixed_4b": (480, (192, 96, 208, 16, 48, 64)),
  "Mixed_4c": (512, (160, 112, 224, 24, 64, 64)),
  "Mixed_4d": (512, (128, 128, 256, 24, 64, 64)),
  "Mixed_4e": (512, (112, 144, 288, 32, 64, 64)),
  "Mixed_4f": (528, (256, 160, 320, 32, 128, 128)),
  "Mixed_5b": (832, (256, 160, 320, 32, 128, 128)),
  "Mixed_5c": (832, (384, 192, 384, 48, 128, 128)),
}
_POOLED_AFTER = {  # window, stride
  "Conv3d_1a_7x7": ((1, 3, 3), (1, 2, 2)),
  "Conv3d_2c_3x3": ((1, 3, 3), (1, 2, 2)),
  "Mixed_3c": ((3, 3, 3), (2, 2, 2)),
  "Mixed_4f": ((2, 2, 2), (2, 2, 2)),
}


class I3D(nnx.Module):
  """I3D on clips (B, T, H, W, 3) in [0, 255], uint8 or float, of any size.

  The clips are resized as TensorFlow's version 1 does; `half_pixel` resizes as
  torch does.
  """

  def __init__(self, *, rngs: nnx.Rngs):
    for name, layer in STEM.items():
      setattr(self, name, _Unit(*layer))
    for name, (channels, widths) in BLOCKS.items():
      setattr(self, name, _Block(channels, widths))
    self.logits = nnx.Conv(1024, 400, (1, 1, 1), rngs=rngs)

  def __call__(self, video_BTHWC: jax.Array) -> dict[str, jax.Array]:
    """Computes `logits` (B, 400), the mean over time of each step's logits.

    Raises:
      ValueError: the clips have fewer than 9 frames.
    """
    return self._logits(resize.tf1_bilinear(video_BTHWC, _SIZE, _SIZE))

  def half_pixel(self, video_BTHWC: jax.Array) -> dict[str, jax.Array]:
    """Computes `logits` as StyleGAN-V does, whose port resizes in torch."""
    return self._logits(resize.half_pixel_bilinear(video_BTHWC, _SIZE, _SIZE))

  def _logits(self, video_BTHWC: jax.Array) -> dict[str, jax.Array]:
    frames = video_BTHWC.shape[1]
    if frames < MIN_FRAMES:
      raise ValueError(
        f"a clip of {frames} frames is too short for I3D, which needs"
        f" {MIN_FRAMES}: evaluate longer clips"
      )
    with jax.default_matmul_precision("highest"):
      x = 2.0 * video_BTHWC / 255.0 - 1.0
      for name in (*STEM, *BLOCKS):
        x = getattr(self, name)(x)
        if name in _POOLED_AFTER:
          x = max_pool(x, *_POOLED_AFTER[name])
      # Average pool over two steps in time and 7 x 7 pixels, then logits of
      # each step, averaged; they are linear, so the bias may come last.
      pairs_BtC = (x[:, :-1] + x[:, 1:]).mean((2, 3)) / 2.0
      logits_BtV = pairs_BtC @ self.logits.kernel[0, 0, 0]
      bias_V = typing.cast(nnx.Param, self.logits.bias)[...]
      return {"logits": logits_BtV.mean(1) + bias_V[None]}


class _Block(nnx.Module):
  def __init__(self, channels: int, widths: Sequence[int]):
    b0, b1a, b1b, b2a, b2b, b3b = widths
    self.b0 = _Unit(channels, b0)
    self.b1a = _Unit(channels, b1a)
    self.b1b = _Unit(b1a, b1b, (3, 3, 3))
    self.b2a = _Unit(channels, b2a)
    self.b2b = _Unit(b2a, b2b, (3, 3, 3))
    self.b3b = _Unit(channels, b3b)

  def __call__(self, x_BTHWC: jax.Array) -> jax.Array:
    pooled_BTHWC = max_pool(x_BTHWC, (3, 3, 3), (1, 1, 1))
    branches = [
      self.b0(x_BTHWC),
      self.b1b(self.b1a(x_BTHWC)),
      self.b2b(self.b2a(x_BTHWC)),
      self.b3b(pooled_BTHWC),
    ]
    return jnp.concatenate(branches, -1)


class _Unit(nnx.Module):
  """Convolution, frozen batch norm without a scale, ReLU.

  It computes nothing useful until weights are loaded.
  """

  def __init__(self, channels, width, kernel=(1, 1, 1), strides=(1, 1, 1)):
    self.strides = strides
    self.kernel = nnx.Param(jnp.zeros((*kernel, channels, width)))
    self.bias = nnx.Param(jnp.zeros(width))
    self.mean = nnx.Param(jnp.zeros(width))
    self.variance = nnx.Param(jnp.ones(width))

  def __call__(self, x_BTHWC: jax.Array) -> jax.Array:
    kernel = self.kernel[...]
    x_BTHWC = convolution.pad_with_zeros(
      x_BTHWC, same_padding(x_BTHWC.shape[1:4], kernel.shape, self.strides)
    )
    x_BTHWC = convolution.valid_conv(x_BTHWC, kernel, self.strides)
    gain_C = lax.rsqrt(self.variance[...] + _BATCH_NORM_EPSILON)
    mean, gain, bias = (
      lax.broadcast_to_rank(x_C, x_BTHWC.ndim)
      for x_C in (self.mean[...], gain_C, self.bias[...])
    )
    return jax.nn.relu((x_BTHWC - mean) * gain + bias)


def same_padding(
  sizes: Sequence[int], window: Sequence[int], strides: Sequence[int]
) -> list[tuple[int, int]]:
  """TensorFlow's SAME padding, (before, after) in time, height and width.

  The output has ceil(size / stride) points. If the number of padded points is
  odd, the extra one comes after.
  """
  padding = []
  for size, points, stride in zip(sizes, window[:3], strides, strict=True):
    total = max((-(-size // stride) - 1) * stride + points - size, 0)
    padding.append((total // 2, total - total // 2))
  return padding


def max_pool(
  x_BTHWC: jax.Array, window: Sequence[int], strides: Sequence[int]
) -> jax.Array:
  """Max pool with SAME padding, along each axis in turn.

  The maximum of a box is that of its maxima along each axis: 9 comparisons
  instead of 27, and XLA's pools in three dimensions are slow on CPUs.
  """
  padding = same_padding(x_BTHWC.shape[1:4], window, strides)
  for axis, (points, stride, pad) in enumerate(
    zip(window, strides, padding, strict=True), start=1
  ):
    if points == 1:
      continue
    pads = [(0, 0)] * x_BTHWC.ndim
    pads[axis] = pad
    x_BTHWC = jnp.pad(x_BTHWC, pads, constant_values=-jnp.inf)
    span = x_BTHWC.shape[axis] - points + 1
    taps = [
      lax.slice_in_dim(x_BTHWC, i, i + span, stride, axis=axis)
      for i in range(points)
    ]
    x_BTHWC = taps[0]
    for tap in taps[1:]:
      x_BTHWC = jnp.maximum(x_BTHWC, tap)
  return x_BTHWC


# Branches of I3D's blocks as TensorFlow and as hassony2's port names them.
_BRANCHES = {
  "b0": ("Branch_0/Conv3d_0a_1x1", "branch_0"),
  "b1a": ("Branch_1/Conv3d_0a_1x1", "branch_1.0"),
  "b1b": ("Branch_1/Conv3d_0b_3x3", "branch_1.1"),
  "b2a": ("Branch_2/Conv3d_0a_1x1", "branch_2.0"),
  "b2b": ("Branch_2/Conv3d_0b_3x3", "branch_2.1"),
  "b3b": ("Branch_3/Conv3d_0b_1x1", "branch_3.1"),
}


def _torch_name(ours: str) -> str:
  if ours.startswith("logits."):
    return f"logits.conv3d.{_WEIGHT_OR_BIAS[ours.split('.')[1]]}"
  return feature_network.rename(
    ours, lambda x: x, feature_network.torch_leaves(".conv3d", ".bn")
  )


def _i3dpt_name(ours: str) -> str:
  if ours.startswith("logits."):
    return f"conv3d_0c_1x1.conv3d.{_WEIGHT_OR_BIAS[ours.split('.')[1]]}"

  def unit(layer):
    block, *branch = layer.split(".")
    return ".".join([block.lower(), *(_BRANCHES[x][1] for x in branch)])

  return feature_network.rename(
    ours, unit, feature_network.torch_leaves(".conv3d", ".batch3d")
  )


def _tensorflow_hub_name(ours: str) -> str:
  name = _tensorflow_name(ours)
  # The original misnames this one layer.
  name = name.replace(
    "Mixed_5b/Branch_2/Conv3d_0b_3x3", "Mixed_5b/Branch_2/Conv3d_0a_3x3"
  )
  return f"RGB/inception_i3d/{name}"


def _magvit_name(ours: str) -> str:
  name = _tensorflow_name(ours)
  name = re.sub(r"(Branch_\d|Logits)/", r"\1.", name)
  return re.sub(r"/w$", "/kernel", re.sub(r"/b$", "/bias", name))


def _tensorflow_name(ours: str) -> str:
  if ours.startswith("logits."):
    leaf = {"kernel": "w", "bias": "b"}[ours.split(".")[1]]
    return f"Logits/Conv3d_0c_1x1/conv_3d/{leaf}"

  def unit(layer):
    block, *branch = layer.split(".")
    return "/".join([block, *(_BRANCHES[x][0] for x in branch)])

  leaves = {
    "kernel": "/conv_3d/w",
    "bias": "/batch_norm/beta",
    "mean": "/batch_norm/moving_mean",
    "variance": "/batch_norm/moving_variance",
  }
  return feature_network.rename(ours, unit, leaves)


_WEIGHT_OR_BIAS = {"kernel": "weight", "bias": "bias"}

NETWORK = feature_network.FeatureNetwork(
  make=I3D,
  dims=DIMS,
  ndim=5,
  clips_at_once=8,
  pixels="TF1 bilinear to 224, 2 x / 255 - 1",
  variants={
    "half_pixel": "half-pixel bilinear to 224 without antialiasing, as torch,"
    " 2 x / 255 - 1"
  },
  where_to_get="i3d_pretrained_400.pt (of"
  " https://github.com/wilson1yan/VideoGPT) or the variables of"
  " https://tfhub.dev/deepmind/i3d-kinetics-400/1",
  sources={
    "torch": feature_network.Source(
      _torch_name, torch_layout=True, unit_scales=True
    ),
    # The names are inferred, because no such file has been seen; a file with
    # other names is refused.
    "i3dpt": feature_network.Source(
      _i3dpt_name, torch_layout=True, unit_scales=True
    ),
    "tensorflow_hub": feature_network.Source(
      _tensorflow_hub_name, wide_norms=True
    ),
    "magvit": feature_network.Source(_magvit_name),
  },
  statistics={"": "logits"},
)
