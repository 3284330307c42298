"""Layers of the MAGVIT-v2 tokenizer (arXiv 2310.05737, section 3.2).

The formulas follow Google's code of the v2 tokenizer (google/praxis,
`praxis/layers/video`), the only public one. Everything here is strictly
causal: output frame t depends on input frames up to t and on no later one, so
an image is encoded exactly as the first frame of any clip that starts with it.

Array names end in their dimensions, everywhere in the project:
  B batch, T frames, H height, W width, C channels (I in, O out), K bits of a
  token, N tokens of a clip, D model width, F factors of a token, V vocabulary,
  A attention heads; t h w are T H W on the latent grid.
"""

from collections.abc import Sequence

from flax import nnx
import jax
from jax import lax
import jax.numpy as jnp

_GROUP_NORM_EPSILON = 1e-6


class CausalConv(nnx.Module):
  """Convolution over (time, height, width) that never looks ahead."""

  def __init__(
    self,
    in_channels: int,
    out_channels: int,
    kernel_size: Sequence[int],
    strides: Sequence[int] = (1, 1, 1),
    *,
    use_bias: bool,
    rngs: nnx.Rngs,
  ):
    """`kernel_size` and `strides` are (time, height, width)."""
    self.strides = tuple(strides)
    init = jax.nn.initializers.lecun_normal()
    shape = (*kernel_size, in_channels, out_channels)
    self.kernel = nnx.Param(init(rngs.params(), shape, jnp.float32))
    self.bias = nnx.Param(jnp.zeros(out_channels)) if use_bias else None

  def __call__(self, x_BTHWI: jax.Array) -> jax.Array:
    y_BTHWO = causal_conv(x_BTHWI, self.kernel[...], self.strides)
    return y_BTHWO if self.bias is None else y_BTHWO + self.bias[...]


def causal_conv(
  x_BTHWI: jax.Array, kernel: jax.Array, strides: Sequence[int]
) -> jax.Array:
  """Causal convolution of a clip; `kernel` is (kt, kh, kw, I, O).

  All of the time padding, kt - 1 frames, goes in front; space gets
  ((k - 1) // 2, k // 2). Both repeat the edge: with zeros, a still clip would
  not have constant latents, and an image would not be the first frame of one.
  A stride s in time takes 1 + s * n frames to 1 + n.
  """
  kt, kh, kw = kernel.shape[:3]
  padding = ((kt - 1, 0), ((kh - 1) // 2, kh // 2), ((kw - 1) // 2, kw // 2))
  return valid_conv(pad_with_edge(x_BTHWI, padding), kernel, strides)


def pad_with_edge(
  x_BTHWC: jax.Array, padding: Sequence[tuple[int, int]]
) -> jax.Array:
  """Repeats the edges, (before, after) points along time, height and width.

  `jnp.pad` does the same with a gradient that is twice as slow on CPU.
  """
  for axis, (before, after) in reversed(list(enumerate(padding, start=1))):
    first = lax.slice_in_dim(x_BTHWC, 0, 1, axis=axis)
    last = lax.slice_in_dim(x_BTHWC, -1, None, axis=axis)
    parts = [first] * before + [x_BTHWC] + [last] * after
    x_BTHWC = jnp.concatenate(parts, axis=axis)
  return x_BTHWC


def valid_conv(
  x_BTHWI: jax.Array, kernel: jax.Array, strides: Sequence[int]
) -> jax.Array:
  """Unpadded 3-D convolution, lowered as each platform runs it fastest."""
  if kernel.shape[0] == 1:
    return conv_as_taps(x_BTHWI, kernel, strides)
  # Taps of 2-D win on CPU (measured: benchmarks/convolution.py) and, by
  # ahead-of-time estimate, on TPU. On GPUs it has not been measured; cuDNN
  # has native 3-D kernels, so those are taken.
  return lax.platform_dependent(
    x_BTHWI,
    kernel,
    cuda=lambda x, k: conv_native(x, k, strides),
    rocm=lambda x, k: conv_native(x, k, strides),
    default=lambda x, k: conv_as_taps(x, k, strides),
  )


def conv_native(
  x_BTHWI: jax.Array, kernel: jax.Array, strides: Sequence[int]
) -> jax.Array:
  """`valid_conv` as one 3-D convolution."""
  return lax.conv_general_dilated(
    x_BTHWI,
    kernel,
    strides,
    "VALID",
    dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
  )


def conv_as_taps(
  x_BTHWI: jax.Array, kernel: jax.Array, strides: Sequence[int]
) -> jax.Array:
  """`valid_conv` as a sum of 2-D convolutions, one per temporal tap."""
  batch, frames, height, width, channels = x_BTHWI.shape
  kt, stride = kernel.shape[0], strides[0]
  out_frames = (frames - kt) // stride + 1
  span = (out_frames - 1) * stride + 1
  y = 0.0
  for tap in range(kt):
    x_tap = lax.slice_in_dim(x_BTHWI, tap, tap + span, stride, axis=1)
    y = y + lax.conv_general_dilated(
      x_tap.reshape(batch * out_frames, height, width, channels),
      kernel[tap],
      strides[1:],
      "VALID",
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
  return y.reshape(batch, out_frames, *y.shape[1:])


def normalize_frames(x_BTHWC: jax.Array, groups: int) -> jax.Array:
  """Group normalisation of each frame by itself, statistics in float32.

  Statistics over time would carry the future into the past.
  """
  x = x_BTHWC.astype(jnp.float32)
  batch, frames, _, _, channels = x.shape

  def group_mean(y_BTHWC):
    # Over space first: short rows of channels per group do not vectorise.
    mean_BTC = y_BTHWC.mean((2, 3))
    mean_BTG1 = mean_BTC.reshape(batch, frames, groups, -1).mean(
      -1, keepdims=True
    )
    size = channels // groups
    return jnp.repeat(mean_BTG1, size, -1).reshape(batch, frames, 1, 1, -1)

  x = x - group_mean(x)
  x = x * lax.rsqrt(group_mean(jnp.square(x)) + _GROUP_NORM_EPSILON)
  return x.astype(x_BTHWC.dtype)


class GroupNorm(nnx.Module):
  """Per-frame group normalisation with a learned scale (1 + g) and bias."""

  def __init__(self, channels: int, groups: int, *, rngs: nnx.Rngs):
    del rngs  # starts at the identity
    check_groups(channels, groups)
    self.groups = groups
    self.scale = nnx.Param(jnp.zeros(channels))
    self.bias = nnx.Param(jnp.zeros(channels))

  def __call__(self, x_BTHWC: jax.Array) -> jax.Array:
    x_BTHWC = normalize_frames(x_BTHWC, self.groups)
    return x_BTHWC * (1.0 + self.scale[...]) + self.bias[...]


class AdaptiveGroupNorm(nnx.Module):
  """Per-frame group norm scaled and shifted per position by the latent.

  x * (1 + scale(z)) + bias(z) with two linear maps of the quantized latent at
  the same position (praxis; the paper's figure only names it).
  """

  def __init__(
    self, channels: int, latent_channels: int, groups: int, *, rngs: nnx.Rngs
  ):
    check_groups(channels, groups)
    self.groups = groups
    self.scale = nnx.Linear(latent_channels, channels, rngs=rngs)
    self.bias = nnx.Linear(latent_channels, channels, rngs=rngs)

  def __call__(self, x_BTHWC: jax.Array, z_BTHWK: jax.Array) -> jax.Array:
    x_BTHWC = normalize_frames(x_BTHWC, self.groups)
    return x_BTHWC * (1.0 + self.scale(z_BTHWK)) + self.bias(z_BTHWK)


def check_groups(channels: int, groups: int) -> None:
  """Raises ValueError unless the groups divide the channels."""
  if channels % groups:
    raise ValueError(
      f"norm_groups={groups} must divide every level's width, and"
      f" {channels} is one: choose norm_groups so that it divides"
      " base_channels times each channel multiplier"
    )


class ResidualBlock(nnx.Module):
  """Norm, swish, conv, twice; a 1x1x1 shortcut where the width changes."""

  def __init__(
    self,
    in_channels: int,
    out_channels: int,
    kernel_size: Sequence[int],
    groups: int,
    *,
    rngs: nnx.Rngs,
  ):
    conv = lambda cin, cout, kernel: CausalConv(
      cin, cout, kernel, use_bias=False, rngs=rngs
    )
    self.norm1 = GroupNorm(in_channels, groups, rngs=rngs)
    self.conv1 = conv(in_channels, out_channels, kernel_size)
    self.norm2 = GroupNorm(out_channels, groups, rngs=rngs)
    self.conv2 = conv(out_channels, out_channels, kernel_size)
    widths_differ = in_channels != out_channels
    self.shortcut = (
      conv(in_channels, out_channels, (1, 1, 1)) if widths_differ else None
    )

  def __call__(self, x_BTHWC: jax.Array) -> jax.Array:
    h_BTHWC = self.conv1(jax.nn.silu(self.norm1(x_BTHWC)))
    h_BTHWC = self.conv2(jax.nn.silu(self.norm2(h_BTHWC)))
    # The shortcut acts on the block's input, unlike in MaskGIT's code.
    if self.shortcut is not None:
      x_BTHWC = self.shortcut(x_BTHWC)
    return h_BTHWC + x_BTHWC


def depth_to_space(x_BTHWC: jax.Array, factors: Sequence[int]) -> jax.Array:
  """Moves channels into time and space: C = (ft, fh, fw, C'), ft slowest.

  (B, T, H, W, ft*fh*fw*C') -> (B, T*ft, H*fh, W*fw, C'). Inflation of the
  image tokenizer relies on this channel order (`magvit/inflation.py`).
  """
  batch, frames, height, width, channels = x_BTHWC.shape
  ft, fh, fw = factors
  out_channels = channels // (ft * fh * fw)
  x = x_BTHWC.reshape(batch, frames, height, width, ft, fh, fw, out_channels)
  x = x.transpose(0, 1, 4, 2, 5, 3, 6, 7)
  return x.reshape(batch, frames * ft, height * fh, width * fw, out_channels)


def repeat(x_BTHWC: jax.Array, factors: Sequence[int]) -> jax.Array:
  """Nearest-neighbour enlargement by whole factors (time, height, width)."""
  for axis, factor in enumerate(factors, start=1):
    x_BTHWC = jnp.repeat(x_BTHWC, factor, axis=axis)
  return x_BTHWC


def drop_leading_frames(x_BTHWC: jax.Array, factor: int) -> jax.Array:
  """The first-frame rule after doubling time: n frames become 1 + 2(n - 1).

  Latent 0 stands for one frame, every later one for `factor` of them, so the
  first factor - 1 frames of an enlarged clip have no counterpart.
  """
  return x_BTHWC[:, factor - 1 :]


def blur_pool(x_BTHWC: jax.Array) -> jax.Array:
  """Anti-aliased halving: separable [1, 2, 1] / 4, stride 2, zero SAME padding.

  Halves height and width, and time unless the clip is a single frame. n points
  become ceil(n / 2). Sums of strided slices: XLA's depthwise convolution is
  many times slower on CPU.
  """
  axes = (2, 3) if x_BTHWC.shape[1] == 1 else (1, 2, 3)
  for axis in axes:
    size = x_BTHWC.shape[axis]
    out = -(-size // 2)
    total = max((out - 1) * 2 + 3 - size, 0)
    padding = [(0, 0)] * 5
    padding[axis] = (total // 2, total - total // 2)
    x = jnp.pad(x_BTHWC, padding)
    span = (out - 1) * 2 + 1
    left, centre, right = (
      lax.slice_in_dim(x, k, k + span, 2, axis=axis) for k in range(3)
    )
    x_BTHWC = 0.25 * left + 0.5 * centre + 0.25 * right
  return x_BTHWC
