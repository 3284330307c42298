"""Encoder and decoder of the MAGVIT-v2 tokenizers, image and video.

One parameterised network (arXiv 2310.05737, section 3.2 and appendix figure;
praxis `layers/video/vqvae.py`). The video tokenizer has causal kernels of
three frames; the image tokenizer is the same network with kernels of one
frame and no change of the clip length, with the same parameter names, so that
its weights inflate into the video tokenizer's leaf by leaf.
"""

from collections.abc import Sequence

from flax import nnx
import jax

from models import layers


class Encoder(nnx.Module):
  """Pixels (B, T, H, W, 3) to latents (B, t, h, w, latent_channels)."""

  def __init__(
    self,
    base_channels: int,
    channel_multipliers: Sequence[int],
    temporal_downsample: Sequence[bool],
    num_res_blocks: int,
    latent_channels: int,
    norm_groups: int,
    temporal: bool,
    *,
    rngs: nnx.Rngs,
  ):
    """See configs/base.py, section `tokenizer`, for the arguments."""
    widths = [base_channels * m for m in channel_multipliers]
    res = lambda cin, cout: layers.ResidualBlock(
      cin, cout, _kernel(3, temporal), norm_groups, rngs=rngs
    )
    self.conv_in = layers.CausalConv(
      3, base_channels, _kernel(3, temporal), use_bias=False, rngs=rngs
    )
    levels, downs, channels = [], [], base_channels
    for level, width in enumerate(widths):
      blocks = [res(channels, width)]
      blocks += [res(width, width) for _ in range(num_res_blocks - 1)]
      levels.append(nnx.List(blocks))
      channels = width
      if level < len(widths) - 1:
        stride = 2 if temporal_downsample[level] else 1
        downs.append(
          layers.CausalConv(
            width,
            width,
            _kernel(4, temporal),  # the paper's figure prints 3; praxis 4
            (stride, 2, 2),
            use_bias=True,
            rngs=rngs,
          )
        )
    self.levels, self.downs = nnx.List(levels), nnx.List(downs)
    self.mid = nnx.List(
      [res(channels, channels) for _ in range(num_res_blocks)]
    )
    self.norm_out = layers.GroupNorm(channels, norm_groups, rngs=rngs)
    self.conv_out = layers.CausalConv(
      channels, latent_channels, (1, 1, 1), use_bias=True, rngs=rngs
    )

  def __call__(self, video_BTHWC: jax.Array) -> jax.Array:
    x = self.conv_in(video_BTHWC)
    for level, blocks in enumerate(self.levels):
      with jax.named_scope(f"encoder_level_{level}"):
        for block in blocks:
          x = block(x)
        if level < len(self.downs):
          x = self.downs[level](x)
    for block in self.mid:
      x = block(x)
    return self.conv_out(jax.nn.silu(self.norm_out(x)))


class Decoder(nnx.Module):
  """Quantized latents (B, t, h, w, latent_channels) to pixels (B, T, H, W, 3).

  The output is linear: clip it to [0, 1] to show or score it.
  """

  def __init__(
    self,
    base_channels: int,
    channel_multipliers: Sequence[int],
    temporal_downsample: Sequence[bool],
    num_res_blocks: int,
    latent_channels: int,
    norm_groups: int,
    temporal: bool,
    adaptive_norm: bool,
    *,
    rngs: nnx.Rngs,
  ):
    """See configs/base.py, section `tokenizer`, for the arguments."""
    widths = [base_channels * m for m in channel_multipliers]
    kernel = _kernel(3, temporal)
    res = lambda cin, cout: layers.ResidualBlock(
      cin, cout, kernel, norm_groups, rngs=rngs
    )
    channels = widths[-1]
    self.conv_in = layers.CausalConv(
      latent_channels, channels, kernel, use_bias=True, rngs=rngs
    )
    self.mid = nnx.List(
      [res(channels, channels) for _ in range(num_res_blocks)]
    )
    self.up_factors = tuple(
      (2 if halved else 1, 2, 2) for halved in temporal_downsample[::-1]
    )
    levels, norms, ups = [], [], []
    for step, width in enumerate(widths[::-1]):  # coarse to fine
      if adaptive_norm:
        norms.append(
          layers.AdaptiveGroupNorm(
            channels, latent_channels, norm_groups, rngs=rngs
          )
        )
      blocks = [res(channels, width)]
      blocks += [res(width, width) for _ in range(num_res_blocks - 1)]
      levels.append(nnx.List(blocks))
      channels = width
      if step < len(self.up_factors):
        ft, fh, fw = self.up_factors[step]
        ups.append(
          layers.CausalConv(
            width, ft * fh * fw * width, kernel, use_bias=True, rngs=rngs
          )
        )
    self.levels, self.ups = nnx.List(levels), nnx.List(ups)
    self.adaptive_norms = nnx.List(norms) if adaptive_norm else None
    self.norm_out = layers.GroupNorm(channels, norm_groups, rngs=rngs)
    self.conv_out = layers.CausalConv(
      channels, 3, kernel, use_bias=True, rngs=rngs
    )

  def __call__(self, z_BthwK: jax.Array) -> jax.Array:
    x, condition = self.conv_in(z_BthwK), z_BthwK
    for block in self.mid:
      x = block(x)
    for step, blocks in enumerate(self.levels):
      with jax.named_scope(f"decoder_level_{len(self.levels) - 1 - step}"):
        if self.adaptive_norms is not None:
          x = self.adaptive_norms[step](x, condition)
        for block in blocks:
          x = block(x)
        if step < len(self.ups):
          factors = self.up_factors[step]
          x = layers.depth_to_space(self.ups[step](x), factors)
          x = layers.drop_leading_frames(x, factors[0])
          condition = layers.repeat(condition, factors)
          condition = layers.drop_leading_frames(condition, factors[0])
    return self.conv_out(jax.nn.silu(self.norm_out(x)))


def _kernel(size: int, temporal: bool) -> tuple[int, int, int]:
  return (size if temporal else 1, size, size)
