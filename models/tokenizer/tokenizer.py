"""The tokenizer: encoder, quantizer, decoder."""

from collections.abc import Mapping
import dataclasses
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from models import settings as settings_lib
from models.quantizers import build as quantizer_build
from models.quantizers import common
from models.tokenizer import cnn
from models.tokenizer import geometry
from models.tokenizer import layers
from models.tokenizer import stream_cache
from models.tokenizer import vivit
from models.transformers import attention

_DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


class Tokenizer(nnx.Module):
  """Codes clips as integer tokens and back. Pixels are float32 in [0, 1].

  Where the quantizer has no ids, latents (B, t, h, w, K) take their place.
  """

  def __init__(
    self,
    encoder: nnx.Module,
    decoder: nnx.Module,
    quantizer: common.Quantizer,
    sizes: geometry.Sizes,
    streams: bool,
    centred_pixels: bool,
    dtype: jnp.dtype,
  ):
    """Joins the parts of a tokenizer; `build` makes them as a config says.

    Args:
      encoder: pixels (B, T, H, W, 3) to latents (B, t, h, w, K).
      decoder: quantized latents to pixels, linear output.
      quantizer: one of `models.quantizers`.
      sizes: strides, and the clip lengths that they take.
      streams: whether clips may come in chunks.
      centred_pixels: whether the networks see [-1, 1] in place of [0, 1].
      dtype: type that the networks compute in.
    """
    self.encoder, self.decoder = encoder, decoder
    self.quantizer = quantizer
    self.sizes = sizes
    self.streams = streams
    self.centred_pixels = centred_pixels
    self.dtype = dtype

  def __call__(
    self, video_BTHWC: jax.Array
  ) -> tuple[jax.Array, common.Quantized, jax.Array]:
    """Returns (reconstruction, linear output; quantized latents; latents)."""
    latents = self.encode_latents(video_BTHWC)
    quantized = self.quantize(latents)
    return self.decode_latents(quantized.z), quantized, latents

  def encode_latents(self, video_BTHWC: jax.Array) -> jax.Array:
    """Latents (B, t, h, w, K) before quantization, float32.

    Raises:
      ValueError: the strides do not divide the size of the clip.
    """
    self.sizes.latent(video_BTHWC.shape[1:4])
    x = 2.0 * video_BTHWC - 1.0 if self.centred_pixels else video_BTHWC
    return self.encoder(x.astype(self.dtype)).astype(jnp.float32)

  def quantize(self, latents_BthwK: jax.Array) -> common.Quantized:
    """Quantizes latents; the entropies are those of all latents together."""
    return self.quantizer(latents_BthwK)

  def decode_latents(self, z_BthwK: jax.Array) -> jax.Array:
    """Quantized latents to pixels, linear output in float32."""
    y = self.decoder(z_BthwK.astype(self.dtype)).astype(jnp.float32)
    return 0.5 * (y + 1.0) if self.centred_pixels else y

  def encode_chunk(
    self, video_BTHWC: jax.Array, before: stream_cache.Frames | None
  ) -> tuple[jax.Array, stream_cache.Frames]:
    """Encodes the next frames of a clip as (ids int32 (B, t, h, w), `after`).

    `before` is `after` of the chunk before; None at the start of a clip, which
    takes 1 + n * stride frames. Later chunks take n * stride.

    Raises:
      ValueError: the tokenizer needs whole clips, or the strides do not divide
        the size of the chunk.
    """
    self._check_streams()
    sizes = dataclasses.replace(self.sizes, causal=before is None)
    sizes.latent(video_BTHWC.shape[1:4])
    past = stream_cache.Past(before)
    x = 2.0 * video_BTHWC - 1.0 if self.centred_pixels else video_BTHWC
    latents = self.encoder(x.astype(self.dtype), past).astype(jnp.float32)
    return self.quantizer(latents).coded, past.after

  def decode_chunk(
    self, coded: jax.Array, before: stream_cache.Frames | None
  ) -> tuple[jax.Array, stream_cache.Frames]:
    """Decodes the next latents of a clip to (pixels, linear output; `after`).

    The first latent of a clip is one frame, each later one `stride` of them.
    `before` is `after` of the chunk before; None at the start of a clip.
    """
    self._check_streams()
    past = stream_cache.Past(before)
    z_BthwK = self.quantizer.codes(coded).astype(self.dtype)
    y = self.decoder(z_BthwK, past).astype(jnp.float32)
    return 0.5 * (y + 1.0) if self.centred_pixels else y, past.after

  def _check_streams(self) -> None:
    """Raises ValueError for a tokenizer that needs whole clips."""
    if not self.streams:
      raise ValueError(
        "this tokenizer needs whole clips: chunks of clips need"
        " tokenizer.architecture=cnn, tokenizer.causal=True and"
        " tokenizer.norm_statistics=frame"
      )

  def encode(self, video_BTHWC: jax.Array) -> jax.Array:
    """Encodes a clip as ids, int32 (B, t, h, w)."""
    return self.quantizer(self.encode_latents(video_BTHWC)).coded

  def codes(self, coded: jax.Array) -> jax.Array:
    """Codes of ids, float32 (B, t, h, w, K)."""
    return self.quantizer.codes(coded)

  def decode(self, coded: jax.Array) -> jax.Array:
    """Decodes ids to pixels, linear output: clip to [0, 1] to show or score."""
    return self.decode_latents(self.quantizer.codes(coded))


def build(
  settings: Mapping[str, Any],
  quantizer: Mapping[str, Any],
  *,
  rngs: nnx.Rngs,
) -> Tokenizer:
  """Builds the tokenizer of the config sections `tokenizer` and `quantizer`.

  See configs/base.py for their fields.

  Raises:
    ValueError: settings contradict each other, or a choice is unknown.
  """
  size = settings_lib.read(cnn.CnnSize, settings)
  _check(settings)
  architecture, causal = settings["architecture"], settings["causal"]
  halvings = size.temporal_downsample
  codes = quantizer_build.build(**quantizer, rngs=rngs)
  encoder, decoder = _ARCHITECTURES[architecture](
    settings, size, codes.latent_channels, rngs
  )
  return Tokenizer(
    encoder,
    decoder,
    codes,
    sizes=geometry.Sizes(2 ** sum(halvings), 2 ** len(halvings), causal),
    streams=streams(architecture, causal, settings["norm_statistics"]),
    centred_pixels=settings["centred_pixels"],
    dtype=_DTYPES[settings["dtype"]],
  )


def _check(settings: Mapping[str, Any]) -> None:
  halves_time = any(settings["temporal_downsample"])
  if not settings["temporal"] and halves_time:
    raise ValueError(
      f"temporal_downsample={tuple(settings['temporal_downsample'])} must be"
      " all False with temporal=False: an image tokenizer keeps every frame"
    )
  averages = settings["downsample"] == "average"
  if settings["causal"] and averages and halves_time:
    raise ValueError(
      "downsample='average' mixes the frames of a block, so it cannot halve"
      " time with causal=True: use 'conv4', or causal=False"
    )
  layers.check_choice(
    "architecture", settings["architecture"], tuple(_ARCHITECTURES)
  )
  layers.check_choice("dtype", settings["dtype"], tuple(_DTYPES))


def _cnn(settings, size: cnn.CnnSize, latent_channels: int, rngs):
  convention = settings_lib.read(layers.Convention, settings)
  encoder = cnn.Encoder(
    size, latent_channels, settings["downsample"], convention, rngs=rngs
  )
  decoder = cnn.Decoder(
    size,
    latent_channels,
    settings["upsample"],
    settings["adaptive_norm"],
    settings["kept_frame"],
    convention,
    rngs=rngs,
  )
  return encoder, decoder


def _hybrid(settings, size: cnn.CnnSize, latent_channels: int, rngs):
  arguments = (
    size,
    latent_channels,
    settings["norm_groups"],
    _transformer(settings, "temporal_layers", size.kept[-1]),
    settings["transformer"]["max_latent_frames"],
  )
  encoder = vivit.HybridEncoder(*arguments, rngs=rngs)
  return encoder, vivit.HybridDecoder(*arguments, rngs=rngs)


def _vivit(settings, size: cnn.CnnSize, latent_channels: int, rngs):
  if len(set(size.kept)) > 1:
    raise ValueError(
      f"tokenizer.remat={size.remat!r} chooses for each level, and"
      " tokenizer.architecture='vivit' has none: give one choice"
    )
  halvings, positions = size.temporal_downsample, settings["transformer"]
  side = 2 ** len(halvings)
  arguments = (
    latent_channels,
    (2 ** sum(halvings), side, side),
    (positions["max_latent_frames"], *positions["latent_size"]),
    _transformer(settings, "spatial_layers", size.kept[-1]),
    _transformer(settings, "temporal_layers", size.kept[-1]),
  )
  encoder = vivit.VivitEncoder(*arguments, rngs=rngs)
  return encoder, vivit.VivitDecoder(*arguments, rngs=rngs)


def _transformer(
  settings, layers_field: str, remat: str
) -> attention.TransformerSize:
  fields = settings["transformer"]
  return attention.TransformerSize(
    num_layers=fields[layers_field],
    width=fields["width"],
    mlp_width=fields["mlp_width"],
    num_heads=fields["num_heads"],
    remat=remat,
  )


# Functions that build (encoder, decoder), by tokenizer.architecture.
_ARCHITECTURES = {"cnn": _cnn, "vivit": _vivit, "hybrid": _hybrid}


def streams(architecture: str, causal: bool, norm_statistics: str) -> bool:
  """Whether a tokenizer codes clips in chunks, as if they were whole."""
  return architecture == "cnn" and causal and norm_statistics == "frame"


def describe_quantizer(**settings: Any) -> common.Quantizer:
  """Builds a quantizer without arrays, for its vocabulary and channels."""
  return nnx.eval_shape(
    lambda: quantizer_build.build(**settings, rngs=nnx.Rngs(0))
  )


def to_float(video: jax.Array) -> jax.Array:
  """Maps uint8 pixels to float32 in [0, 1]; other types are only cast."""
  if video.dtype == jnp.uint8:
    return video.astype(jnp.float32) / 255.0
  return video.astype(jnp.float32)
