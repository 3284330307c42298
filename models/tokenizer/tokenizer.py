"""The tokenizer: encoder, quantizer, decoder."""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from models.quantizers import build as quantizer_build
from models.quantizers import common
from models.tokenizer import cnn
from models.tokenizer import geometry
from models.tokenizer import layers
from models.tokenizer import stream_cache
from models.tokenizer import vivit

ARCHITECTURES = ("cnn", "vivit", "hybrid")
_DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


class Tokenizer(nnx.Module):
  """Clips to integer tokens and back. Pixels are float32 in [0, 1]."""

  def __init__(
    self,
    architecture: str,
    base_channels: int,
    channel_multipliers: Sequence[int],
    temporal_downsample: Sequence[bool],
    num_res_blocks: int,
    downsample: str,
    upsample: str,
    adaptive_norm: str,
    kept_frame: str,
    temporal: bool,
    causal: bool,
    padding: str,
    norm_groups: int,
    norm_statistics: str,
    centred_pixels: bool,
    dtype: str,
    remat: str,
    transformer: Mapping[str, Any],
    quantizer: Mapping[str, Any],
    *,
    rngs: nnx.Rngs,
  ):
    """See configs/base.py, section `tokenizer`, for the arguments.

    Raises:
      ValueError: settings that contradict each other, or unknown choices.
    """
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
    if causal and downsample == "average" and any(temporal_downsample):
      raise ValueError(
        "downsample='average' mixes the frames of a block, so it cannot halve"
        " time with causal=True: use 'conv4', or causal=False"
      )
    layers.check_choice("architecture", architecture, ARCHITECTURES)
    layers.check_choice("dtype", dtype, tuple(_DTYPES))
    self.dtype = _DTYPES[dtype]
    self.streams = streams(architecture, causal, norm_statistics)
    self.centred_pixels = centred_pixels
    self.quantizer = quantizer_build.build(**quantizer, rngs=rngs)
    self.sizes = geometry.Sizes(
      2 ** sum(temporal_downsample), 2 ** len(temporal_downsample), causal
    )
    cnn_settings = dict(
      base_channels=base_channels,
      channel_multipliers=channel_multipliers,
      temporal_downsample=temporal_downsample,
      num_res_blocks=num_res_blocks,
    )
    shared = dict(
      latent_channels=self.quantizer.latent_channels, remat=remat, rngs=rngs
    )
    if architecture == "cnn":
      shared["convention"] = layers.Convention(
        temporal, causal, padding, norm_groups, norm_statistics
      )
      shared.update(cnn_settings)
      self.encoder = cnn.Encoder(**shared, downsample=downsample)
      self.decoder = cnn.Decoder(
        **shared,
        upsample=upsample,
        adaptive_norm=adaptive_norm,
        kept_frame=kept_frame,
      )
    elif architecture == "hybrid":
      shared.update(cnn_settings, norm_groups=norm_groups, **transformer)
      del shared["spatial_layers"], shared["latent_size"]
      self.encoder = vivit.HybridEncoder(**shared)
      self.decoder = vivit.HybridDecoder(**shared)
    else:
      shared.update(
        patch_size=self.sizes.space, block_frames=self.sizes.time, **transformer
      )
      self.encoder = vivit.VivitEncoder(**shared)
      self.decoder = vivit.VivitDecoder(**shared)

  def __call__(
    self, video_BTHWC: jax.Array
  ) -> tuple[jax.Array, common.Quantized, jax.Array]:
    """Reconstruction (same shape, linear output), latents quantized and not."""
    latents = self.encode_latents(video_BTHWC)
    quantized = self.quantize(latents)
    return self.decode_latents(quantized.z), quantized, latents

  def encode_latents(self, video_BTHWC: jax.Array) -> jax.Array:
    """Latents (B, t, h, w, K) before quantization, float32.

    Raises:
      ValueError: a clip whose size the strides do not divide.
    """
    self.sizes.latent(video_BTHWC.shape[1:4])
    x = 2.0 * video_BTHWC - 1.0 if self.centred_pixels else video_BTHWC
    return self.encoder(x.astype(self.dtype)).astype(jnp.float32)

  def quantize(self, latents_BthwK: jax.Array) -> common.Quantized:
    """Codes of latents; its entropies are of all that are given."""
    return self.quantizer(latents_BthwK)

  def decode_latents(self, z_BthwK: jax.Array) -> jax.Array:
    """Quantized latents to pixels, linear output in float32."""
    y = self.decoder(z_BthwK.astype(self.dtype)).astype(jnp.float32)
    return 0.5 * (y + 1.0) if self.centred_pixels else y

  def encode_chunk(
    self, video_BTHWC: jax.Array, before: stream_cache.Frames | None
  ) -> tuple[jax.Array, stream_cache.Frames]:
    """(ids int32 (B, t, h, w), what to remember) of the next frames of a clip.

    `before` is what the chunk before said to remember; None at the start of a
    clip, which takes 1 + n * stride frames. Later chunks take n * stride.

    Raises:
      ValueError: a tokenizer that needs whole clips, or a size that the strides
        do not divide.
    """
    self._check_streams()
    sizes = dataclasses.replace(self.sizes, causal=before is None)
    sizes.latent(video_BTHWC.shape[1:4])
    past = stream_cache.Past(before)
    x = 2.0 * video_BTHWC - 1.0 if self.centred_pixels else video_BTHWC
    latents = self.encoder(x.astype(self.dtype), past).astype(jnp.float32)
    return self.quantizer(latents).ids, past.after

  def decode_chunk(
    self, ids_Bthw: jax.Array, before: stream_cache.Frames | None
  ) -> tuple[jax.Array, stream_cache.Frames]:
    """(pixels, linear output; what to remember) of the next latents of a clip.

    The first latent of a clip is one frame, each later one `stride` of them.
    """
    self._check_streams()
    past = stream_cache.Past(before)
    z_BthwK = self.quantizer.codes(ids_Bthw).astype(self.dtype)
    y = self.decoder(z_BthwK, past).astype(jnp.float32)
    return 0.5 * (y + 1.0) if self.centred_pixels else y, past.after

  def _check_streams(self) -> None:
    """Raises ValueError for a tokenizer that needs whole clips."""
    if not self.streams:
      raise ValueError(
        "this tokenizer needs whole clips: only a CNN with"
        " tokenizer.causal=True and norm_statistics=frame codes them in chunks"
      )

  def encode(self, video_BTHWC: jax.Array) -> jax.Array:
    """Clip to ids, int32 (B, t, h, w)."""
    return self.quantizer(self.encode_latents(video_BTHWC)).ids

  def decode(self, ids_Bthw: jax.Array) -> jax.Array:
    """Ids to pixels, linear output: clip to [0, 1] to show or score it."""
    return self.decode_latents(self.quantizer.codes(ids_Bthw))


def streams(architecture: str, causal: bool, norm_statistics: str) -> bool:
  """Whether a tokenizer codes clips in chunks, as if they were whole."""
  return architecture == "cnn" and causal and norm_statistics == "frame"


def describe_quantizer(**settings: Any) -> nnx.Module:
  """`quantizers.build` without arrays: its vocabulary and latent channels."""
  return nnx.eval_shape(
    lambda: quantizer_build.build(**settings, rngs=nnx.Rngs(0))
  )


def to_float(video: jax.Array) -> jax.Array:
  """uint8 pixels to float32 in [0, 1]; floating point passes through."""
  if video.dtype == jnp.uint8:
    return video.astype(jnp.float32) / 255.0
  return video.astype(jnp.float32)
