"""Layers of the MAGVIT-v2 tokenizer (arXiv 2310.05737, section 3.2).

The formulas follow Google's code of the v2 tokenizer (google/praxis,
`praxis/layers/video`), the only public one. By default everything here is
strictly causal: output frame t depends on input frames up to t and on no later
one, so an image is encoded exactly as the first frame of any clip that starts
with it. MAGVIT v1 and Open-MAGVIT2 treat borders, time and statistics
differently; `Convention` holds those differences.

Array names end in their dimensions, everywhere in the project:
  B batch, T frames, H height, W width, C channels (I in, O out), K bits of a
  token, N tokens of a clip, D model width, F factors of a token, V vocabulary,
  A attention heads, L layers, S positions of a sequence; t h w are T H W on
  the latent grid.
"""

from collections.abc import Sequence
import dataclasses
import math

from flax import nnx
import jax
from jax import lax
from jax.ad_checkpoint import checkpoint_name
import jax.numpy as jnp

from models import remat as remat_lib
from models.tokenizer import convolution
from models.tokenizer import stream_cache

_GROUP_NORM_EPSILON = 1e-6


@dataclasses.dataclass(frozen=True)
class Convention:
  """How layers treat time, borders and statistics; the default is MAGVIT-v2's.

  temporal: kernels span frames; False for an image tokenizer.
  causal: all of the padding in time goes in front; False (MAGVIT v1): half of
    it, as in space.
  padding: what surrounds a clip in time and space, "edge" or "zero".
  norm_groups: number of groups of group normalisation.
  norm_statistics: what group normalisation averages over: a "frame", or the
    whole "clip", which is not causal.

  Raises:
    ValueError: `padding` or `norm_statistics` has another value.
  """

  temporal: bool = True
  causal: bool = True
  padding: str = "edge"
  norm_groups: int = 32
  norm_statistics: str = "frame"

  def __post_init__(self):
    check_choice("padding", self.padding, ("edge", "zero"))
    check_choice("norm_statistics", self.norm_statistics, ("frame", "clip"))

  def kernel(self, size: int) -> tuple[int, int, int]:
    """Shape of a cubic kernel; one frame long if kernels do not span frames."""
    return (size if self.temporal else 1, size, size)


def check_choice(field: str, value: str, choices: Sequence[str]) -> None:
  """Raises ValueError, naming the config field, unless a choice is allowed."""
  if value not in choices:
    raise ValueError(f"tokenizer.{field}={value!r} must be one of {choices}")


class Conv(nnx.Module):
  """Convolution over (time, height, width), padded by a convention."""

  def __init__(
    self,
    in_channels: int,
    out_channels: int,
    kernel_size: Sequence[int],
    strides: Sequence[int] = (1, 1, 1),
    *,
    convention: Convention,
    use_bias: bool,
    rngs: nnx.Rngs,
  ):
    """`kernel_size` and `strides` are (time, height, width)."""
    self.strides = tuple(strides)
    self.convention = convention
    init = jax.nn.initializers.lecun_normal()
    shape = (*kernel_size, in_channels, out_channels)
    self.kernel = nnx.Param(init(rngs.params(), shape, jnp.float32))
    self.bias = nnx.Param(jnp.zeros(out_channels)) if use_bias else None

  def __call__(
    self, x_BTHWI: jax.Array, past: stream_cache.Past | None = None
  ) -> jax.Array:
    # Parameters are float32; the input's type is the type of the computation.
    kernel = self.kernel[...].astype(x_BTHWI.dtype)
    y_BTHWO = conv(x_BTHWI, kernel, self.strides, self.convention, past)
    if self.bias is not None:
      bias_O = self.bias[...].astype(x_BTHWI.dtype)
      y_BTHWO += lax.broadcast_to_rank(bias_O, y_BTHWO.ndim)
    return checkpoint_name(y_BTHWO, remat_lib.KEPT)


def conv(
  x_BTHWI: jax.Array,
  kernel: jax.Array,
  strides: Sequence[int],
  convention: Convention = Convention(),
  past: stream_cache.Past | None = None,
) -> jax.Array:
  """Padded convolution of a clip; `kernel` is (kt, kh, kw, I, O).

  If causal, all of the time padding, kt - 1 frames, goes in front; space gets
  ((k - 1) // 2, k // 2). The default repeats the edge: with zeros, a still
  clip would not have constant latents. A causal stride s in time takes
  1 + s * n frames to 1 + n. With a `past` the input is a chunk of a clip, with
  1 + s * n frames at the start of the clip and s * n later.
  """
  kt, *spatial = kernel.shape[:3]
  same = lambda k: ((k - 1) // 2, k // 2)
  padding = (
    (kt - 1, 0) if convention.causal else same(kt),
    *map(same, spatial),
  )
  edge = convention.padding == "edge"
  pad = convolution.pad_with_edge if edge else convolution.pad_with_zeros
  if past is not None and kt > 1:
    before = [padding[0], (0, 0), (0, 0)]
    x_BTHWI = past.extend(x_BTHWI, lambda x: pad(x, before), kt - strides[0])
    padding = ((0, 0), *padding[1:])
  return convolution.valid_conv(pad(x_BTHWI, padding), kernel, strides)


def normalize(
  x_BTHWC: jax.Array, groups: int, statistics: str = "frame"
) -> jax.Array:
  """Group normalisation in float32, of each "frame" or of the whole "clip".

  Statistics over time carry the future into the past.
  """
  x = x_BTHWC.astype(jnp.float32)
  batch, _, _, _, channels = x.shape

  def group_mean(y_BTHWC):
    # Averages over space first: a group's few channels do not vectorise.
    mean_BTC = y_BTHWC.mean((2, 3))
    if statistics == "clip":
      mean_BTC = mean_BTC.mean(1, keepdims=True)
    mean_BTG1 = mean_BTC.reshape(batch, mean_BTC.shape[1], groups, -1).mean(
      -1, keepdims=True
    )
    mean_BTC = jnp.repeat(mean_BTG1, channels // groups, -1)
    return mean_BTC.reshape(batch, -1, 1, 1, channels)

  x = x - group_mean(x)
  return x * lax.rsqrt(group_mean(jnp.square(x)) + _GROUP_NORM_EPSILON)


class GroupNorm(nnx.Module):
  """Group normalisation with a learned scale (1 + g) and bias."""

  def __init__(self, channels: int, convention: Convention, *, rngs: nnx.Rngs):
    del rngs  # nothing is drawn: it starts at the identity
    check_groups(channels, convention.norm_groups)
    self.convention = convention
    self.scale = nnx.Param(jnp.zeros(channels))
    self.bias = nnx.Param(jnp.zeros(channels))

  def __call__(self, x_BTHWC: jax.Array) -> jax.Array:
    c = self.convention
    y = normalize(x_BTHWC, c.norm_groups, c.norm_statistics)
    scale, bias = (
      lax.broadcast_to_rank(x_C, y.ndim)
      for x_C in (1.0 + self.scale[...], self.bias[...])
    )
    y = y * scale + bias
    return y.astype(x_BTHWC.dtype)


class AdaptiveGroupNorm(nnx.Module):
  """Group norm, scaled and shifted by the quantized latent.

  x * (1 + scale(z)) + bias(z) with two linear maps. In the form "position" both
  read the latent at the same position (praxis; the paper's figure only names
  it). In the form "global" scale reads its standard deviation over all
  positions, and bias its mean (Open-MAGVIT2), which is not causal if
  norm_statistics is "clip".
  """

  def __init__(
    self,
    channels: int,
    latent_channels: int,
    form: str,
    convention: Convention,
    *,
    rngs: nnx.Rngs,
  ):
    check_groups(channels, convention.norm_groups)
    self.form, self.convention = form, convention
    self.scale = nnx.Linear(latent_channels, channels, rngs=rngs)
    self.bias = nnx.Linear(latent_channels, channels, rngs=rngs)

  def __call__(self, x_BTHWC: jax.Array, z_BthwK: jax.Array) -> jax.Array:
    """`z_BthwK` is the latent grid; "position" enlarges it to x's size."""
    c = self.convention
    y = normalize(x_BTHWC, c.norm_groups, c.norm_statistics)
    z = z_BthwK.astype(jnp.float32)
    if self.form == "position":
      scale, bias = self.scale(z), self.bias(z)
    else:
      axes = (1, 2, 3) if c.norm_statistics == "clip" else (2, 3)
      # The variance is unbiased and epsilon is under the root, as the weights
      # of Open-MAGVIT2 expect. That of a single position is 0; theirs is NaN.
      single = math.prod(z.shape[a] for a in axes) == 1
      variance = z.var(axes, keepdims=True, ddof=0 if single else 1)
      scale = self.scale(jnp.sqrt(variance + _GROUP_NORM_EPSILON))
      bias = self.bias(z.mean(axes, keepdims=True))
    return (y * (1.0 + scale) + bias).astype(x_BTHWC.dtype)


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
    convention: Convention,
    *,
    rngs: nnx.Rngs,
  ):
    biasless = lambda cin, cout, kernel: Conv(
      cin, cout, kernel, convention=convention, use_bias=False, rngs=rngs
    )
    kernel = convention.kernel(3)
    self.norm1 = GroupNorm(in_channels, convention, rngs=rngs)
    self.conv1 = biasless(in_channels, out_channels, kernel)
    self.norm2 = GroupNorm(out_channels, convention, rngs=rngs)
    self.conv2 = biasless(out_channels, out_channels, kernel)
    widths_differ = in_channels != out_channels
    self.shortcut = (
      biasless(in_channels, out_channels, (1, 1, 1)) if widths_differ else None
    )

  def __call__(
    self, x_BTHWC: jax.Array, past: stream_cache.Past | None = None
  ) -> jax.Array:
    h_BTHWC = self.conv1(jax.nn.silu(self.norm1(x_BTHWC)), past)
    h_BTHWC = self.conv2(jax.nn.silu(self.norm2(h_BTHWC)), past)
    # The shortcut acts on the block's input, unlike in MaskGIT's code.
    if self.shortcut is not None:
      x_BTHWC = self.shortcut(x_BTHWC)
    return h_BTHWC + x_BTHWC


def depth_to_space(x_BTHWC: jax.Array, factors: Sequence[int]) -> jax.Array:
  """Moves channels into time and space: C = (ft, fh, fw, C'), ft slowest.

  (B, T, H, W, ft*fh*fw*C') -> (B, T*ft, H*fh, W*fw, C'). Inflation of the
  image tokenizer relies on this channel order (magvit/tokenizer/inflation.py).
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


def drop_frames(x_BTHWC: jax.Array, factor: int, keep: str) -> jax.Array:
  """Applies the first-frame rule: f * n frames become 1 + f * (n - 1).

  Latent 0 stands for one frame, every later one for f = `factor` of them. From
  the f frames made of latent 0 the "last" is kept (praxis), or the "first"
  (Open-MAGVIT2).
  """
  if keep == "last":
    return x_BTHWC[:, factor - 1 :]
  return jnp.concatenate([x_BTHWC[:, :1], x_BTHWC[:, factor:]], axis=1)


def average_pool(x_BTHWC: jax.Array, factors: Sequence[int]) -> jax.Array:
  """Mean of blocks (ft, fh, fw), which divide the sizes (MAGVIT v1)."""
  batch, frames, height, width, channels = x_BTHWC.shape
  ft, fh, fw = factors
  x = x_BTHWC.reshape(
    batch, frames // ft, ft, height // fh, fh, width // fw, fw, channels
  )
  return x.mean((2, 4, 6))


def mean_pool(x_BTHWC: jax.Array) -> jax.Array:
  """Halving as in MAGVIT v1's discriminator: means of 2 x 2 x 2, SAME.

  Halves height and width, and time unless the clip is a single frame. A block
  that overhangs the end is the mean of the points it has.
  """
  for axis in (2, 3) if x_BTHWC.shape[1] == 1 else (1, 2, 3):
    if x_BTHWC.shape[axis] % 2:
      last = lax.slice_in_dim(x_BTHWC, -1, None, axis=axis)
      x_BTHWC = jnp.concatenate([x_BTHWC, last], axis=axis)
    size = x_BTHWC.shape[axis]
    pair = [lax.slice_in_dim(x_BTHWC, k, size, 2, axis=axis) for k in (0, 1)]
    x_BTHWC = 0.5 * (pair[0] + pair[1])
  return x_BTHWC


def blur_pool(x_BTHWC: jax.Array) -> jax.Array:
  """Anti-aliased halving: separable [1, 2, 1] / 4, stride 2, zero SAME padding.

  Halves height and width, and time unless the clip is a single frame. n points
  become ceil(n / 2). It adds strided slices, because XLA's depthwise
  convolution is many times slower on CPU.
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
