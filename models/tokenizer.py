"""The tokenizer: encoder, quantizer, decoder."""

from collections.abc import Sequence

from flax import nnx
import jax
import jax.numpy as jnp

from models import cnn
from models import quantizers


class Tokenizer(nnx.Module):
  """Clips to integer tokens and back. Pixels are float32 in [0, 1]."""

  def __init__(
    self,
    base_channels: int,
    channel_multipliers: Sequence[int],
    temporal_downsample: Sequence[bool],
    num_res_blocks: int,
    bits: int,
    norm_groups: int,
    temporal: bool,
    adaptive_norm: bool,
    entropy_temperature: float,
    *,
    rngs: nnx.Rngs,
  ):
    """See configs/base.py, section `tokenizer`, for the arguments."""
    if len(temporal_downsample) != len(channel_multipliers) - 1:
      raise ValueError(
        f"temporal_downsample={tuple(temporal_downsample)} needs one entry"
        " per change of resolution: one fewer than channel_multipliers="
        f"{tuple(channel_multipliers)}"
      )
    if not temporal and any(temporal_downsample):
      raise ValueError(
        f"temporal_downsample={tuple(temporal_downsample)} must be all False"
        " with temporal=False: an image tokenizer keeps every frame"
      )
    shared = dict(
      base_channels=base_channels,
      channel_multipliers=channel_multipliers,
      temporal_downsample=temporal_downsample,
      num_res_blocks=num_res_blocks,
      latent_channels=bits,
      norm_groups=norm_groups,
      temporal=temporal,
      rngs=rngs,
    )
    self.encoder = cnn.Encoder(**shared)
    self.quantizer = quantizers.LookupFreeQuantizer(bits, entropy_temperature)
    self.decoder = cnn.Decoder(**shared, adaptive_norm=adaptive_norm)
    self.time_factor = 2 ** sum(temporal_downsample)
    self.space_factor = 2 ** len(temporal_downsample)

  def __call__(
    self, video_BTHWC: jax.Array
  ) -> tuple[jax.Array, quantizers.Quantized]:
    """Reconstruction (same shape, linear output) and the quantized latents."""
    quantized = self.quantize(video_BTHWC)
    return self.decoder(quantized.z), quantized

  def encode_latents(self, video_BTHWC: jax.Array) -> jax.Array:
    """Latents (B, t, h, w, bits) before quantization.

    Raises:
      ValueError: a clip whose size the strides do not divide.
    """
    latent_shape(video_BTHWC.shape[1:4], self.time_factor, self.space_factor)
    return self.encoder(video_BTHWC)

  def decode_latents(self, z_BthwK: jax.Array) -> jax.Array:
    """Quantized latents to pixels, linear output."""
    return self.decoder(z_BthwK)

  def quantize(self, video_BTHWC: jax.Array) -> quantizers.Quantized:
    """Latents of a clip, quantized."""
    return self.quantizer(self.encode_latents(video_BTHWC))

  def encode(self, video_BTHWC: jax.Array) -> jax.Array:
    """Clip to ids, int32 (B, t, h, w)."""
    return self.quantize(video_BTHWC).ids

  def decode(self, ids_Bthw: jax.Array) -> jax.Array:
    """Ids to pixels, linear output: clip to [0, 1] to show or score it."""
    return self.decoder(self.quantizer.codes(ids_Bthw))


def to_float(video: jax.Array) -> jax.Array:
  """uint8 pixels to float32 in [0, 1]; floating point passes through."""
  if video.dtype == jnp.uint8:
    return video.astype(jnp.float32) / 255.0
  return video.astype(jnp.float32)


def latent_shape(
  video_shape: Sequence[int], time_factor: int, space_factor: int
) -> tuple[int, int, int]:
  """(T, H, W) to (t, h, w): (1 + (T - 1) / time, H / space, W / space).

  Raises:
    ValueError: a size that the strides do not divide. Shortening the clip
      instead, as others do, would drop frames silently.
  """
  frames, height, width = video_shape
  if (frames - 1) % time_factor:
    below = (frames - 1) // time_factor * time_factor + 1
    raise ValueError(
      f"clip length {frames} must be 1 + a multiple of the temporal stride"
      f" {time_factor}; the nearest are {below} and {below + time_factor}"
    )
  for name, size in (("height", height), ("width", width)):
    if size % space_factor:
      below = size // space_factor * space_factor
      raise ValueError(
        f"frame {name} {size} must be a multiple of the spatial stride"
        f" {space_factor}; the nearest are {below} and"
        f" {below + space_factor}"
      )
  return (
    1 + (frames - 1) // time_factor,
    height // space_factor,
    width // space_factor,
  )


def padded_shape(
  video_shape: Sequence[int], time_factor: int, space_factor: int
) -> tuple[int, int, int]:
  """The smallest (T, H, W) that holds `video_shape` and fits the strides.

  That is, which `latent_shape` takes.
  """
  frames, height, width = video_shape
  up = lambda size, factor: -(-size // factor) * factor
  return (
    1 + up(frames - 1, time_factor),
    up(height, space_factor),
    up(width, space_factor),
  )
