"""Encoder and decoder of the convolutional tokenizers, image and video.

One parameterised network (arXiv 2310.05737, section 3.2 and appendix figure;
praxis `layers/video/vqvae.py`). The video tokenizer has causal kernels of
three frames; the image tokenizer is the same network with kernels of one
frame and no change of the clip length, with the same parameter names, so that
its weights inflate into the video tokenizer's leaf by leaf. MAGVIT v1
(`enc_dec_3dcnn.py`) and Open-MAGVIT2 differ in how they resize and in the
`layers.Convention`, not in the order of layers.
"""

from collections.abc import Sequence
import dataclasses
import functools
import math

from flax import nnx
import jax

from models import remat as remat_lib
from models.tokenizer import layers
from models.tokenizer import stream_cache

DOWNSAMPLE = ("conv4", "conv3", "average")
UPSAMPLE = ("depth_to_space", "nearest")
ADAPTIVE_NORM = ("off", "position", "global")


@dataclasses.dataclass(frozen=True)
class CnnSize:
  """Size of a convolutional encoder, and of the decoder that mirrors it.

  base_channels: width of level 0.
  channel_multipliers: width of each level, in multiples of `base_channels`.
  temporal_downsample: whether each change of resolution halves time, too.
  num_res_blocks: number of residual blocks per level, and at the bottom.
  remat: what a backward pass keeps of each block (models/remat.py), the same at
    each level or not.

  Raises:
    ValueError: `temporal_downsample` or `remat` does not fit the number of
      levels.
  """

  base_channels: int
  channel_multipliers: Sequence[int]
  temporal_downsample: Sequence[bool]
  num_res_blocks: int
  remat: str = "off"

  def __post_init__(self):
    if len(self.temporal_downsample) != len(self.channel_multipliers) - 1:
      raise ValueError(
        f"temporal_downsample={tuple(self.temporal_downsample)} needs one entry"
        " per change of resolution: one fewer than channel_multipliers="
        f"{tuple(self.channel_multipliers)}"
      )
    remat_lib.by_level(self.remat, len(self.channel_multipliers))

  @property
  def widths(self) -> list[int]:
    """Channels of each level, from fine to coarse."""
    return [self.base_channels * m for m in self.channel_multipliers]

  @property
  def factors(self) -> tuple[tuple[int, int, int], ...]:
    """(time, height, width) of each change of resolution, fine to coarse."""
    return tuple(
      (2 if halved else 1, 2, 2) for halved in self.temporal_downsample
    )

  @property
  def kept(self) -> tuple[str, ...]:
    """What a backward pass keeps of each level's layers, fine to coarse."""
    return remat_lib.by_level(self.remat, len(self.channel_multipliers))


class Encoder(nnx.Module):
  """Encodes pixels (B, T, H, W, 3) as latents (B, t, h, w, latent_channels)."""

  def __init__(
    self,
    size: CnnSize,
    latent_channels: int,
    downsample: str,
    convention: layers.Convention,
    *,
    rngs: nnx.Rngs,
  ):
    """See configs/base.py, section `tokenizer`, for the arguments."""
    layers.check_choice("downsample", downsample, DOWNSAMPLE)
    self.kept = size.kept
    res = lambda cin, cout: layers.ResidualBlock(
      cin, cout, convention, rngs=rngs
    )
    conv = functools.partial(layers.Conv, convention=convention, rngs=rngs)
    channels = size.base_channels
    self.conv_in = conv(3, channels, convention.kernel(3), use_bias=False)
    self.down_factors = size.factors
    levels, downs = [], []
    for level, width in enumerate(size.widths):
      blocks = [res(channels, width)]
      blocks += [res(width, width) for _ in range(size.num_res_blocks - 1)]
      levels.append(nnx.List(blocks))
      channels = width
      if level < len(self.down_factors) and downsample != "average":
        # The paper's figure prints 3; praxis has 4, as the paper's counts of
        # parameters need.
        kernel = convention.kernel(4 if downsample == "conv4" else 3)
        strides = self.down_factors[level]
        downs.append(conv(width, width, kernel, strides, use_bias=True))
    self.levels = nnx.List(levels)
    self.downs = nnx.List(downs) if downs else None
    self.mid = nnx.List(
      [res(channels, channels) for _ in range(size.num_res_blocks)]
    )
    self.norm_out = layers.GroupNorm(channels, convention, rngs=rngs)
    self.conv_out = conv(channels, latent_channels, (1, 1, 1), use_bias=True)

  def __call__(
    self, video_BTHWC: jax.Array, past: stream_cache.Past | None = None
  ) -> jax.Array:
    """Encodes a clip, or with a `past` its next chunk."""
    x = self.conv_in(video_BTHWC, past)
    for level, blocks in enumerate(self.levels):
      with jax.named_scope(f"encoder_level_{level}"):
        for block in blocks:
          x = _run(block, x, self.kept[level], past)
        if level == len(self.down_factors):
          break
        if self.downs is None:
          x = layers.average_pool(x, self.down_factors[level])
        else:
          x = self.downs[level](x, past)
    for block in self.mid:
      x = _run(block, x, self.kept[-1], past)
    return self.conv_out(jax.nn.silu(self.norm_out(x)))


class Decoder(nnx.Module):
  """Decodes latents (B, t, h, w, latent_channels) to pixels (B, T, H, W, 3).

  Latents are quantized. The output is linear: clip it to [0, 1] to show or
  score it.
  """

  def __init__(
    self,
    size: CnnSize,
    latent_channels: int,
    upsample: str,
    adaptive_norm: str,
    kept_frame: str,
    convention: layers.Convention,
    *,
    rngs: nnx.Rngs,
  ):
    """See configs/base.py, section `tokenizer`, for the arguments."""
    layers.check_choice("upsample", upsample, UPSAMPLE)
    layers.check_choice("adaptive_norm", adaptive_norm, ADAPTIVE_NORM)
    layers.check_choice("kept_frame", kept_frame, ("last", "first"))
    per_frame = convention.temporal and convention.norm_statistics == "frame"
    if adaptive_norm == "global" and per_frame:
      raise ValueError(
        "tokenizer.adaptive_norm='global' reads whole clips, so it needs"
        " tokenizer.norm_statistics='clip', not 'frame'; or set"
        " tokenizer.adaptive_norm='position'"
      )
    self.upsample, self.adaptive_norm = upsample, adaptive_norm
    self.kept_frame, self.kept = kept_frame, size.kept
    self.causal = convention.causal
    kernel = convention.kernel(3)
    res = lambda cin, cout: layers.ResidualBlock(
      cin, cout, convention, rngs=rngs
    )
    conv = functools.partial(
      layers.Conv, convention=convention, use_bias=True, rngs=rngs
    )
    channels = size.widths[-1]
    self.conv_in = conv(latent_channels, channels, kernel)
    self.mid = nnx.List(
      [res(channels, channels) for _ in range(size.num_res_blocks)]
    )
    self.up_factors = size.factors[::-1]
    levels, norms, ups = [], [], []
    for step, width in enumerate(size.widths[::-1]):  # coarse to fine
      if adaptive_norm != "off":
        norms.append(
          layers.AdaptiveGroupNorm(
            channels, latent_channels, adaptive_norm, convention, rngs=rngs
          )
        )
      blocks = [res(channels, width)]
      blocks += [res(width, width) for _ in range(size.num_res_blocks - 1)]
      levels.append(nnx.List(blocks))
      channels = width
      if step < len(self.up_factors):
        pixels = math.prod(self.up_factors[step])
        enlarged = pixels * width if upsample == "depth_to_space" else width
        ups.append(conv(width, enlarged, kernel))
    self.levels, self.ups = nnx.List(levels), nnx.List(ups)
    self.adaptive_norms = nnx.List(norms) if norms else None
    self.norm_out = layers.GroupNorm(channels, convention, rngs=rngs)
    self.conv_out = conv(channels, 3, kernel)

  def __call__(
    self, z_BthwK: jax.Array, past: stream_cache.Past | None = None
  ) -> jax.Array:
    """Decodes a clip, or with a `past` its next chunk."""
    at_start = past is None or past.at_start
    x, condition = self.conv_in(z_BthwK, past), z_BthwK
    for block in self.mid:
      x = _run(block, x, self.kept[-1], past)
    for step, blocks in enumerate(self.levels):
      level = len(self.levels) - 1 - step
      with jax.named_scope(f"decoder_level_{level}"):
        if self.adaptive_norms is not None:
          norm = _cheap(self.adaptive_norms[step], self.kept[level])
          x = norm(x, condition)
        for block in blocks:
          x = _run(block, x, self.kept[level], past)
        if step < len(self.ups):
          factors = self.up_factors[step]
          if self.upsample == "depth_to_space":
            x = layers.depth_to_space(self.ups[step](x, past), factors)
          else:
            x = self.ups[step](layers.repeat(x, factors), past)
          if self.adaptive_norm == "position":
            condition = layers.repeat(condition, factors)
          if at_start:
            x = self._drop(x, factors[0])
            if self.adaptive_norm == "position":
              condition = self._drop(condition, factors[0])
    x = _cheap(self.norm_out, self.kept[0])(x)
    return self.conv_out(jax.nn.silu(x), past)

  def _drop(self, x_BTHWC: jax.Array, factor: int) -> jax.Array:
    """Drops the surplus frames of latent 0, which stands for one frame."""
    if not self.causal:
      return x_BTHWC
    return layers.drop_frames(x_BTHWC, factor, self.kept_frame)


def _run(block, x_BTHWC, remat: str, past: stream_cache.Past | None):
  if past is not None:  # chunks are coded without a backward pass
    return block(x_BTHWC, past)
  return remat_lib.apply(block, remat)(x_BTHWC)


def _cheap(norm, kept: str):
  """A norm, whose small products are not worth keeping."""
  return remat_lib.apply(norm, "off" if kept == "off" else "all")
