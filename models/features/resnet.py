"""ResNet-50, whose 1000 logits are the perceptual network of the papers.

He et al. 2015 in the layout of torchvision's `resnet50` (v1.5: the stride is
on the 3x3 convolution). MAGVIT feeds frames in [0, 1], resized bilinearly to
224 x 224, without subtracting a mean (google-research/magvit
`pretrained_model_utils.py`).
"""

from flax import nnx
import jax
from jax import lax
import jax.numpy as jnp

from models.features import frozen_batch_norm

# Stages as (number of blocks, inner width).
_STAGES = ((3, 64), (4, 128), (6, 256), (3, 512))
_BATCH_NORM_EPSILON = 1e-5


class ResNet50(nnx.Module):
  """Maps frames (B, H, W, 3) in [0, 1] of any size to logits (B, 1000)."""

  def __init__(self, *, rngs: nnx.Rngs):
    self.conv_in = _Conv(3, 64, 7, 2, rngs=rngs)
    self.norm_in = _FrozenBatchNorm(64)
    stages, channels = [], 64
    for stage, (num_blocks, width) in enumerate(_STAGES):
      blocks = []
      for block in range(num_blocks):
        stride = 2 if stage > 0 and block == 0 else 1
        blocks.append(_Bottleneck(channels, width, stride, rngs=rngs))
        channels = 4 * width
      stages.append(nnx.List(blocks))
    self.stages = nnx.List(stages)
    self.head = nnx.Linear(channels, 1000, rngs=rngs)

  def __call__(self, frames_BHWC: jax.Array) -> jax.Array:
    x = jax.image.resize(
      frames_BHWC, (frames_BHWC.shape[0], 224, 224, 3), "bilinear"
    )
    x = jax.nn.relu(self.norm_in(self.conv_in(x)))
    x = lax.reduce_window(
      x,
      -jnp.inf,
      lax.max,
      (1, 3, 3, 1),
      (1, 2, 2, 1),
      ((0, 0), (1, 1), (1, 1), (0, 0)),
    )
    for blocks in self.stages:
      for block in blocks:
        x = block(x)
    return self.head(x.mean((1, 2)))

  def distance(
    self, target_BHWC: jax.Array, output_BHWC: jax.Array
  ) -> jax.Array:
    """Mean squared difference of the logits of two frames, per pair, (B,)."""
    return jnp.square(self(target_BHWC) - self(output_BHWC)).mean(-1)


class _Bottleneck(nnx.Module):
  def __init__(self, channels: int, width: int, stride: int, *, rngs):
    out = 4 * width
    self.conv1 = _Conv(channels, width, 1, 1, rngs=rngs)
    self.norm1 = _FrozenBatchNorm(width)
    self.conv2 = _Conv(width, width, 3, stride, rngs=rngs)
    self.norm2 = _FrozenBatchNorm(width)
    self.conv3 = _Conv(width, out, 1, 1, rngs=rngs)
    self.norm3 = _FrozenBatchNorm(out)
    project = channels != out or stride != 1
    self.shortcut = (
      _Conv(channels, out, 1, stride, rngs=rngs) if project else None
    )
    self.shortcut_norm = _FrozenBatchNorm(out) if project else None

  def __call__(self, x_BHWC: jax.Array) -> jax.Array:
    h = jax.nn.relu(self.norm1(self.conv1(x_BHWC)))
    h = jax.nn.relu(self.norm2(self.conv2(h)))
    h = self.norm3(self.conv3(h))
    if self.shortcut is not None and self.shortcut_norm is not None:
      x_BHWC = self.shortcut_norm(self.shortcut(x_BHWC))
    return jax.nn.relu(h + x_BHWC)


class _Conv(nnx.Module):
  def __init__(
    self, cin: int, cout: int, size: int, stride: int, *, rngs: nnx.Rngs
  ):
    self.size, self.stride = size, stride
    init = jax.nn.initializers.he_normal()
    self.kernel = nnx.Param(
      init(rngs.params(), (size, size, cin, cout), jnp.float32)
    )

  def __call__(self, x_BHWC: jax.Array) -> jax.Array:
    half = self.size // 2
    return lax.conv_general_dilated(
      x_BHWC,
      self.kernel[...],
      (self.stride, self.stride),
      ((half, half), (half, half)),
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


class _FrozenBatchNorm(frozen_batch_norm.FrozenBatchNorm):
  def __init__(self, channels: int):
    super().__init__(channels, _BATCH_NORM_EPSILON)

  def __call__(self, x_BHWC: jax.Array) -> jax.Array:
    return self.normalize(x_BHWC)
