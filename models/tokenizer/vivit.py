"""The two transformer baselines of MAGVIT-v2's table of joint tokenizers.

They are C-ViViT (Phenaki, arXiv 2210.02399), "90M", and the hybrid "C-ViViT
+ MAGVIT", "67M": a 3-D CNN on blocks of frames, then a causal transformer over
the blocks (MAGVIT-v2, arXiv 2310.05737, section 3.2, table of joint image-video
architectures). Both are approximations: no source gives their settings, so they
are built from the parts that are known and sized to the printed counts. Sizes
for clips 17 x 128 x 128, with 18 bits, encoder and decoder together:

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
from models.transformers import attend
from models.transformers import attention


class VivitEncoder(nnx.Module):
  """Encodes pixels (B, T, H, W, 3) as latents (B, t, h, w, latent_channels)."""

  def __init__(
    self,
    latent_channels: int,
    block: Sequence[int],
    latent_shape: Sequence[int],
    space: attention.TransformerSize,
    time: attention.TransformerSize,
    *,
    rngs: nnx.Rngs,
  ):
    """Sizes the patches and latents, and two transformers of equal width.

    Args:
      latent_channels: K.
      block: (frames, height, width) of the pixels that become a token.
      latent_shape: (t, h, w), the largest number of latent frames, and the only
        height and width of one that the network accepts.
      space: the transformer within a latent frame.
      time: the transformer over latent frames.
      rngs: draws the parameters.
    """
    frames, *patch = block
    self.sizes = geometry.Sizes(frames, patch[0])
    self.embed_first = PatchEmbedding((1, *patch), space.width, rngs=rngs)
    self.embed_later = PatchEmbedding(block, space.width, rngs=rngs)
    self.space = SpatialTransformer(latent_shape[1:], space, rngs=rngs)
    self.time = TemporalTransformer(latent_shape[0], time, rngs=rngs)
    self.out = nnx.Linear(space.width, latent_channels, rngs=rngs)

  def __call__(self, video_BTHWC: jax.Array) -> jax.Array:
    """Raises ValueError for a clip that the patches or positions do not fit."""
    self.sizes.latent(video_BTHWC.shape[1:4])
    # An image has no later frames: they are then an array of length 0.
    x_BthwD = jnp.concatenate(
      [
        self.embed_first(video_BTHWC[:, :1]),
        self.embed_later(video_BTHWC[:, 1:]),
      ],
      axis=1,
    )
    return self.out(self.time(self.space(x_BthwD)))


class VivitDecoder(nnx.Module):
  """Decodes latents (B, t, h, w, latent_channels) to pixels (B, T, H, W, 3).

  It mirrors the encoder; latents are quantized. The output is linear: clip it
  to [0, 1] to show it.
  """

  def __init__(
    self,
    latent_channels: int,
    block: Sequence[int],
    latent_shape: Sequence[int],
    space: attention.TransformerSize,
    time: attention.TransformerSize,
    *,
    rngs: nnx.Rngs,
  ):
    """Takes the arguments of `VivitEncoder`."""
    self.image_patch = (1, *block[1:])
    self.block_patch = tuple(block)
    width = space.width
    linear = lambda cin, cout: nnx.Linear(cin, cout, rngs=rngs)
    self.embed = linear(latent_channels, width)
    self.time = TemporalTransformer(latent_shape[0], time, rngs=rngs)
    self.space = SpatialTransformer(latent_shape[1:], space, rngs=rngs)
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
  """Encodes pixels (B, T, H, W, 3) as latents (B, t, h, w, latent_channels)."""

  def __init__(
    self,
    size: cnn.CnnSize,
    latent_channels: int,
    norm_groups: int,
    time: attention.TransformerSize,
    max_latent_frames: int,
    *,
    rngs: nnx.Rngs,
  ):
    """Sizes the CNN, and the transformer over `max_latent_frames` positions.

    Every True in `size.temporal_downsample` doubles the frames of a block.
    """
    halvings = size.temporal_downsample
    self.sizes = geometry.Sizes(2 ** sum(halvings), 2 ** len(halvings))
    self.cnn = cnn.Encoder(
      size,
      latent_channels=time.width,
      downsample="conv4",
      convention=layers.Convention(norm_groups=norm_groups),
      rngs=rngs,
    )
    self.time = TemporalTransformer(max_latent_frames, time, rngs=rngs)
    self.out = nnx.Linear(time.width, latent_channels, rngs=rngs)

  def __call__(self, video_BTHWC: jax.Array) -> jax.Array:
    """Raises ValueError for a clip that blocks or positions do not fit."""
    self.sizes.latent(video_BTHWC.shape[1:4])
    batch, block_frames = video_BTHWC.shape[0], self.sizes.time
    first_BTHWC = layers.repeat(video_BTHWC[:, :1], (block_frames, 1, 1))
    x = jnp.concatenate([first_BTHWC, video_BTHWC[:, 1:]], axis=1)
    x = x.reshape(-1, block_frames, *x.shape[2:])  # blocks become clips
    # The CNN's latent n ends at frame n * block_frames. With a copy of its
    # first frame in front, a block therefore is the CNN's second latent.
    x = self.cnn(jnp.concatenate([x[:, :1], x], axis=1))[:, -1]
    return self.out(self.time(x.reshape(batch, -1, *x.shape[1:])))


class HybridDecoder(nnx.Module):
  """Decodes latents (B, t, h, w, latent_channels) to pixels (B, T, H, W, 3).

  It mirrors the encoder; latents are quantized. The output is linear: clip it
  to [0, 1] to show it.
  """

  def __init__(
    self,
    size: cnn.CnnSize,
    latent_channels: int,
    norm_groups: int,
    time: attention.TransformerSize,
    max_latent_frames: int,
    *,
    rngs: nnx.Rngs,
  ):
    """Takes the arguments of `HybridEncoder`."""
    self.block_frames = 2 ** sum(size.temporal_downsample)
    self.embed = nnx.Linear(latent_channels, time.width, rngs=rngs)
    self.time = TemporalTransformer(max_latent_frames, time, rngs=rngs)
    self.cnn = cnn.Decoder(
      size,
      latent_channels=time.width,
      upsample="depth_to_space",
      adaptive_norm="off",  # MAGVIT has none
      kept_frame="last",
      convention=layers.Convention(norm_groups=norm_groups),
      rngs=rngs,
    )

  def __call__(self, z_BthwK: jax.Array) -> jax.Array:
    """Raises ValueError for more latents than positions."""
    x = self.time(self.embed(z_BthwK))
    batch = x.shape[0]
    x = x.reshape(-1, 1, *x.shape[2:])  # blocks become clips
    # As in the encoder, the CNN needs a frame in front of the block.
    x = self.cnn(layers.repeat(x, (2, 1, 1)))[:, 1:]
    video_BTHWC = x.reshape(batch, -1, *x.shape[2:])
    return layers.drop_frames(video_BTHWC, self.block_frames, "last")


class PatchEmbedding(nnx.Module):
  """Embeds each patch (frames, height, width) as one normalised token."""

  def __init__(
    self,
    patch: Sequence[int],
    width: int,
    channels: int = 3,
    *,
    rngs: nnx.Rngs,
  ):
    self.patch = tuple(patch)
    inputs = channels * math.prod(self.patch)
    self.linear = nnx.Linear(inputs, width, rngs=rngs)
    self.norm = attention.layer_norm(width, rngs)

  def __call__(self, video_BTHWC: jax.Array) -> jax.Array:
    return self.norm(self.linear(space_to_depth(video_BTHWC, self.patch)))


class SpatialTransformer(nnx.Module):
  """Attention among the positions of each latent frame."""

  def __init__(
    self,
    latent_size: Sequence[int],
    size: attention.TransformerSize,
    *,
    rngs: nnx.Rngs,
  ):
    self.positions = _positions((*latent_size, size.width), rngs)
    self.stack = attention.Stack(size, rngs=rngs)

  def __call__(
    self, x_BthwD: jax.Array, dropout_key: jax.Array | None = None
  ) -> jax.Array:
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
      x = x_BthwD + self.positions[None, None]
      x = x.reshape(batch * frames, height * width, -1)
      x = self.stack(x, dropout_key=dropout_key)
    return x.reshape(x_BthwD.shape)


class TemporalTransformer(nnx.Module):
  """Attention among the latent frames at each position, causal or both ways."""

  def __init__(
    self,
    max_latent_frames: int,
    size: attention.TransformerSize,
    causal: bool = True,
    *,
    rngs: nnx.Rngs,
  ):
    self.positions = _positions((max_latent_frames, size.width), rngs)
    self.stack = attention.Stack(size, rngs=rngs)
    self.causal = causal

  def __call__(
    self, x_BthwD: jax.Array, dropout_key: jax.Array | None = None
  ) -> jax.Array:
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
      x = x + self.positions[None, :frames]
      layout = attend.Layout() if self.causal else None
      x = self.stack(x, layout, dropout_key)
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
  # Positions are small beside the tokens, which a norm made of size one (ViT).
  init = jax.nn.initializers.normal(stddev=0.02)
  return nnx.Param(init(rngs.params(), shape, jnp.float32))
