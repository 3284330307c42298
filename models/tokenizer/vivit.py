"""The two transformer baselines of MAGVIT-v2's table of joint tokenizers.

C-ViViT (Phenaki, arXiv 2210.02399), "90M", and the hybrid "C-ViViT
+ MAGVIT", "67M": a 3-D CNN on blocks of frames, then a causal transformer over
the blocks (MAGVIT-v2, arXiv 2310.05737, section 3.2, table of joint image-video
architectures). Approximations: no source gives their settings, so they are
built from the parts that are known and sized to the printed counts. For clips
17 x 128 x 128, with 18 bits, encoder and decoder together:

  C-ViViT, 89.5M: width 512, MLP 2048, 8 heads, 7 spatial and 7 temporal layers
    in the encoder and as many in the decoder.
  Hybrid, 66.8M: CNN of base 64, multipliers (1, 2, 2, 4), 2 residual blocks,
    time halved at the first two transitions (MAGVIT-B); width 256, MLP 1024, 8
    heads, 8 temporal layers on each side.

Both are strictly causal between latent frames. Latent 0 stands for the first
frame alone, every later one for a block of `block_frames`, whose pixels share
their latent: a whole block is needed to encode any of its frames.

Positions are learned and absolute, in both transformers. Clips can have fewer
latent frames than `max_latent_frames`, down to an image.
"""

from collections.abc import Sequence
import math

from flax import nnx
import jax
import jax.numpy as jnp

from models.tokenizer import cnn
from models.tokenizer import geometry
from models.tokenizer import layers
from models.transformers import attention


class VivitEncoder(nnx.Module):
  """Pixels (B, T, H, W, 3) to latents (B, t, h, w, latent_channels)."""

  def __init__(
    self,
    latent_channels: int,
    width: int,
    mlp_width: int,
    num_heads: int,
    spatial_layers: int,
    temporal_layers: int,
    patch_size: int,
    block_frames: int,
    latent_size: Sequence[int],
    max_latent_frames: int,
    remat: str,
    *,
    rngs: nnx.Rngs,
  ):
    """`latent_size` is (h, w), the only one that the network accepts."""
    stack = dict(
      width=width,
      mlp_width=mlp_width,
      num_heads=num_heads,
      remat=remat,
      rngs=rngs,
    )
    image_patch = (1, patch_size, patch_size)
    block_patch = (block_frames, patch_size, patch_size)
    self.sizes = geometry.Sizes(block_frames, patch_size)
    self.embed_first = PatchEmbedding(image_patch, width, rngs=rngs)
    self.embed_later = PatchEmbedding(block_patch, width, rngs=rngs)
    self.space = SpatialTransformer(latent_size, spatial_layers, **stack)
    self.time = TemporalTransformer(max_latent_frames, temporal_layers, **stack)
    self.out = nnx.Linear(width, latent_channels, rngs=rngs)

  def __call__(self, video_BTHWC: jax.Array) -> jax.Array:
    """Raises ValueError for a clip that the patches or positions do not fit."""
    self.sizes.latent(video_BTHWC.shape[1:4])
    # An image has no later frames: an array of none takes it from there.
    x_BthwD = jnp.concatenate(
      [
        self.embed_first(video_BTHWC[:, :1]),
        self.embed_later(video_BTHWC[:, 1:]),
      ],
      axis=1,
    )
    return self.out(self.time(self.space(x_BthwD)))


class VivitDecoder(nnx.Module):
  """Quantized latents (B, t, h, w, latent_channels) to pixels (B, T, H, W, 3).

  The encoder mirrored. The output is linear: clip it to [0, 1] to show it.
  """

  def __init__(
    self,
    latent_channels: int,
    width: int,
    mlp_width: int,
    num_heads: int,
    spatial_layers: int,
    temporal_layers: int,
    patch_size: int,
    block_frames: int,
    latent_size: Sequence[int],
    max_latent_frames: int,
    remat: str,
    *,
    rngs: nnx.Rngs,
  ):
    """The arguments of `VivitEncoder`."""
    stack = dict(
      width=width,
      mlp_width=mlp_width,
      num_heads=num_heads,
      remat=remat,
      rngs=rngs,
    )
    self.image_patch = (1, patch_size, patch_size)
    self.block_patch = (block_frames, patch_size, patch_size)
    linear = lambda cin, cout: nnx.Linear(cin, cout, rngs=rngs)
    self.embed = linear(latent_channels, width)
    self.time = TemporalTransformer(max_latent_frames, temporal_layers, **stack)
    self.space = SpatialTransformer(latent_size, spatial_layers, **stack)
    self.first = linear(width, 3 * math.prod(self.image_patch))
    self.later = linear(width, 3 * math.prod(self.block_patch))

  def __call__(self, z_BthwK: jax.Array) -> jax.Array:
    """Raises ValueError for latents that the positions do not fit."""
    x_BthwD = self.space(self.time(self.embed(z_BthwK)))
    first_BTHWC = layers.depth_to_space(
      self.first(x_BthwD[:, :1]), self.image_patch
    )
    later_BTHWC = layers.depth_to_space(
      self.later(x_BthwD[:, 1:]), self.block_patch
    )
    return jnp.concatenate([first_BTHWC, later_BTHWC], axis=1)


class HybridEncoder(nnx.Module):
  """Pixels (B, T, H, W, 3) to latents (B, t, h, w, latent_channels)."""

  def __init__(
    self,
    base_channels: int,
    channel_multipliers: Sequence[int],
    temporal_downsample: Sequence[bool],
    num_res_blocks: int,
    latent_channels: int,
    norm_groups: int,
    width: int,
    mlp_width: int,
    num_heads: int,
    temporal_layers: int,
    max_latent_frames: int,
    remat: str,
    *,
    rngs: nnx.Rngs,
  ):
    """The CNN's arguments are those of `cnn.Encoder`; then the transformer's.

    Every True in `temporal_downsample` doubles the frames of a block.
    """
    self.sizes = geometry.Sizes(
      2 ** sum(temporal_downsample), 2 ** len(temporal_downsample)
    )
    self.cnn = cnn.Encoder(
      base_channels=base_channels,
      channel_multipliers=channel_multipliers,
      temporal_downsample=temporal_downsample,
      num_res_blocks=num_res_blocks,
      latent_channels=width,
      downsample="conv4",
      remat=remat,
      convention=layers.Convention(norm_groups=norm_groups),
      rngs=rngs,
    )
    self.time = TemporalTransformer(
      max_latent_frames,
      temporal_layers,
      width=width,
      mlp_width=mlp_width,
      num_heads=num_heads,
      remat=remat,
      rngs=rngs,
    )
    self.out = nnx.Linear(width, latent_channels, rngs=rngs)

  def __call__(self, video_BTHWC: jax.Array) -> jax.Array:
    """Raises ValueError for a clip that blocks or positions do not fit."""
    self.sizes.latent(video_BTHWC.shape[1:4])
    batch, block_frames = video_BTHWC.shape[0], self.sizes.time
    first_BTHWC = layers.repeat(video_BTHWC[:, :1], (block_frames, 1, 1))
    x = jnp.concatenate([first_BTHWC, video_BTHWC[:, 1:]], axis=1)
    x = x.reshape(-1, block_frames, *x.shape[2:])  # each block by itself
    # The CNN's latent n ends at frame n * block_frames, so the latent of all of
    # a block is the second one of the block behind a copy of its first frame.
    x = self.cnn(jnp.concatenate([x[:, :1], x], axis=1))[:, -1]
    return self.out(self.time(x.reshape(batch, -1, *x.shape[1:])))


class HybridDecoder(nnx.Module):
  """Quantized latents (B, t, h, w, latent_channels) to pixels (B, T, H, W, 3).

  The encoder mirrored. The output is linear: clip it to [0, 1] to show it.
  """

  def __init__(
    self,
    base_channels: int,
    channel_multipliers: Sequence[int],
    temporal_downsample: Sequence[bool],
    num_res_blocks: int,
    latent_channels: int,
    norm_groups: int,
    width: int,
    mlp_width: int,
    num_heads: int,
    temporal_layers: int,
    max_latent_frames: int,
    remat: str,
    *,
    rngs: nnx.Rngs,
  ):
    """The arguments of `HybridEncoder`."""
    self.block_frames = 2 ** sum(temporal_downsample)
    self.embed = nnx.Linear(latent_channels, width, rngs=rngs)
    self.time = TemporalTransformer(
      max_latent_frames,
      temporal_layers,
      width=width,
      mlp_width=mlp_width,
      num_heads=num_heads,
      remat=remat,
      rngs=rngs,
    )
    self.cnn = cnn.Decoder(
      base_channels=base_channels,
      channel_multipliers=channel_multipliers,
      temporal_downsample=temporal_downsample,
      num_res_blocks=num_res_blocks,
      latent_channels=width,
      upsample="depth_to_space",
      adaptive_norm="off",  # MAGVIT has none
      kept_frame="last",
      remat=remat,
      convention=layers.Convention(norm_groups=norm_groups),
      rngs=rngs,
    )

  def __call__(self, z_BthwK: jax.Array) -> jax.Array:
    """Raises ValueError for more latents than positions."""
    x = self.time(self.embed(z_BthwK))
    batch = x.shape[0]
    x = x.reshape(-1, 1, *x.shape[2:])  # each block by itself
    # As in the encoder: the block is behind one frame of the CNN's own.
    x = self.cnn(layers.repeat(x, (2, 1, 1)))[:, 1:]
    video_BTHWC = x.reshape(batch, -1, *x.shape[2:])
    return layers.drop_frames(video_BTHWC, self.block_frames, "last")


class PatchEmbedding(nnx.Module):
  """Pixels of each patch (frames, height, width) to one normalised token."""

  def __init__(self, patch: Sequence[int], width: int, *, rngs: nnx.Rngs):
    self.patch = tuple(patch)
    self.linear = nnx.Linear(3 * math.prod(self.patch), width, rngs=rngs)
    self.norm = attention.layer_norm(width, rngs)

  def __call__(self, video_BTHWC: jax.Array) -> jax.Array:
    return self.norm(self.linear(space_to_depth(video_BTHWC, self.patch)))


class SpatialTransformer(nnx.Module):
  """Attention among the positions of each latent frame."""

  def __init__(
    self,
    latent_size: Sequence[int],
    num_layers: int,
    width: int,
    mlp_width: int,
    num_heads: int,
    remat: str,
    *,
    rngs: nnx.Rngs,
  ):
    self.positions = _positions((*latent_size, width), rngs)
    self.stack = attention.Stack(
      num_layers, width, mlp_width, num_heads, remat, rngs=rngs
    )

  def __call__(self, x_BthwD: jax.Array) -> jax.Array:
    """Raises ValueError for a size other than that of the positions."""
    batch, frames, height, width = x_BthwD.shape[:4]
    trained = self.positions.shape[:2]
    if (height, width) != trained:
      raise ValueError(
        f"latent frames of {height} x {width} do not fit the learned positions"
        f" of latent_size={trained}: resize or crop the clip, or build the"
        f" tokenizer with latent_size={(height, width)}"
      )
    with jax.named_scope("spatial_transformer"):
      x = x_BthwD + self.positions[...]
      x = self.stack(x.reshape(batch * frames, height * width, -1))
    return x.reshape(x_BthwD.shape)


class TemporalTransformer(nnx.Module):
  """Causal attention among the latent frames at each position."""

  def __init__(
    self,
    max_latent_frames: int,
    num_layers: int,
    width: int,
    mlp_width: int,
    num_heads: int,
    remat: str,
    *,
    rngs: nnx.Rngs,
  ):
    self.positions = _positions((max_latent_frames, width), rngs)
    self.stack = attention.Stack(
      num_layers, width, mlp_width, num_heads, remat, rngs=rngs
    )

  def __call__(self, x_BthwD: jax.Array) -> jax.Array:
    """Raises ValueError for more latent frames than positions."""
    batch, frames, height, width, channels = x_BthwD.shape
    most = self.positions.shape[0]
    if frames > most:
      raise ValueError(
        f"{frames} latent frames are more than the learned positions of"
        f" max_latent_frames={most}: cut the clip, or build the tokenizer with"
        f" max_latent_frames={frames}"
      )
    with jax.named_scope("temporal_transformer"):
      x = x_BthwD.transpose(0, 2, 3, 1, 4)
      x = x.reshape(batch * height * width, frames, channels)
      x = x + self.positions[:frames]
      x = self.stack(x, attention.causal_mask(frames))
      x = x.reshape(batch, height, width, frames, channels)
    return x.transpose(0, 3, 1, 2, 4)


def space_to_depth(x_BTHWC: jax.Array, factors: Sequence[int]) -> jax.Array:
  """Inverse of `layers.depth_to_space`: patches become channels."""
  batch, frames, height, width, channels = x_BTHWC.shape
  ft, fh, fw = factors
  t, h, w = frames // ft, height // fh, width // fw
  x = x_BTHWC.reshape(batch, t, ft, h, fh, w, fw, channels)
  x = x.transpose(0, 1, 3, 5, 2, 4, 6, 7)
  return x.reshape(batch, t, h, w, ft * fh * fw * channels)


def _positions(shape: Sequence[int], rngs: nnx.Rngs) -> nnx.Param:
  # Small beside the tokens, which a norm made of size one (ViT).
  init = jax.nn.initializers.normal(stddev=0.02)
  return nnx.Param(init(rngs.params(), shape, jnp.float32))
