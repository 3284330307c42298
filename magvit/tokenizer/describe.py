"""Facts that a tokenizer's config implies: shapes, vocabulary, functions."""

from collections.abc import Callable
from collections.abc import Sequence
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
import ml_collections

from magvit.workdir import folder as workdir_lib
from magvit.workdir import weights as weights_lib
from models import network
from models.quantizers import build as quantizer_build
from models.tokenizer import discriminators
from models.tokenizer import geometry
from models.tokenizer import tokenizer as tokenizer_network

# Sections that decide, beside the weights, what a tokenizer computes.
DEFINING = ("tokenizer", "quantizer")


def is_tokenizer(config: ml_collections.ConfigDict) -> bool:
  """Whether a config is a tokenizer's, whichever algorithm trains it."""
  return "quantizer" in config


def codes_images(config: ml_collections.ConfigDict) -> bool:
  """Whether a tokenizer is one of images, which codes frame by frame."""
  return not config.tokenizer.temporal


def streams(config: ml_collections.ConfigDict) -> bool:
  """Whether a tokenizer codes videos in chunks."""
  t = config.tokenizer
  return tokenizer_network.streams(t.architecture, t.causal, t.norm_statistics)


def manner(config: ml_collections.ConfigDict) -> str:
  """Words on how a tokenizer codes frames, for records of results."""
  if codes_images(config):
    return "each coded as an image"
  return "in chunks without seams" if streams(config) else "whole clip at once"


def padded_shape(
  config: ml_collections.ConfigDict, shape: tuple[int, int, int]
) -> tuple[int, int, int]:
  """(T, H, W) of all that is encoded for a video of this (T, H, W)."""
  return sizes(config).padded(shape)


def id_convention(config: ml_collections.ConfigDict) -> str:
  """Words on the meaning of the bits or digits of a tokenizer's ids."""
  meaning = quantizer_build.kind(config.quantizer.name).id_convention
  return f"in raster order (t, h, w); {meaning}"


def coded_name(config: ml_collections.ConfigDict) -> str:
  """What a tokenizer makes of clips: "ids", or "latents" without ids."""
  return "ids" if has_ids(config) else "latents"


def define_tokenizer(config: ml_collections.ConfigDict) -> network.Network:
  return network.define(
    lambda rngs: tokenizer_network.build(
      config.tokenizer, config.quantizer, rngs=rngs
    )
  )


def define_discriminator(
  config: ml_collections.ConfigDict, video_shape: tuple[int, int, int]
) -> network.Network:
  return network.define(
    lambda rngs: discriminators.Discriminator(
      video_shape, **config.discriminator, rngs=rngs
    )
  )


def vocabulary(config: ml_collections.ConfigDict) -> int:
  """Number of codes of the config's tokenizer; 0 if it has no ids."""
  return tokenizer_network.describe_quantizer(**config.quantizer).vocabulary


def latent_channels(config: ml_collections.ConfigDict) -> int:
  """K, the channels of a latent of the config's tokenizer."""
  quantizer = tokenizer_network.describe_quantizer(**config.quantizer)
  return quantizer.latent_channels


def has_ids(config: ml_collections.ConfigDict) -> bool:
  """Whether a tokenizer's latents have ids, as those of `none` do not."""
  return quantizer_build.kind(config.quantizer.name).has_ids


def require_ids(config: ml_collections.ConfigDict, reader: str) -> None:
  """Raises ValueError where `reader`, the start of a line, needs ids."""
  if has_ids(config):
    return
  raise ValueError(
    f"{reader} needs ids, and {config.name!r} has none"
    f" (quantizer.name={config.quantizer.name!r}): name a tokenizer with"
    f" {', '.join(quantizer_build.names('has_ids'))}"
  )


def clip_shape(config: ml_collections.ConfigDict) -> tuple[int, int, int]:
  """(T, H, W) of the config's clips."""
  return (config.dataset.frames, config.dataset.size, config.dataset.size)


def sizes(config: ml_collections.ConfigDict) -> geometry.Sizes:
  """Strides of the config's tokenizer, and the clip lengths it takes."""
  halvings = config.tokenizer.temporal_downsample
  causal = config.tokenizer.causal
  return geometry.Sizes(2 ** sum(halvings), 2 ** len(halvings), causal)


def title(config: ml_collections.ConfigDict) -> str:
  """The kind and name of a tokenizer, like "image tokenizer 'digits' (lfq)"."""
  kind = "image" if codes_images(config) else "video"
  return f"{kind} tokenizer {config.name!r} ({config.quantizer.name})"


def coding(
  config: ml_collections.ConfigDict, clip: tuple[int, int, int]
) -> str:
  """Words on clips (T, H, W), their ids, strides and codes of a tokenizer."""
  strides = sizes(config).strides
  grid = f"clips {by(clip)} to {by(sizes(config).latent(clip))}"
  if not has_ids(config):
    channels = latent_channels(config)
    return f"{grid} latents of {channels} channels, strides {by(strides)}"
  codes = vocabulary(config)
  return (
    f"{grid} ids, strides {by(strides)}; {math.log2(codes):g} bits"
    f" ({codes:,} codes)"
  )


def by(shape: Sequence[int]) -> str:
  """A shape as people write it: 5 x 16 x 16."""
  return " x ".join(map(str, shape))


def origin(step: int | None, path: str | None) -> tuple[str, ...]:
  """Words on the step and the folder of loaded weights, as far as known."""
  return (
    *([] if step is None else [f"step {step:,}"]),
    *([] if path is None else [path]),
  )


def in_lines(facts: Sequence[str]) -> str:
  """One fact a line, for the `repr` of a model."""
  return "\n  ".join(facts)


def predict_functions(tokenizer: network.Network) -> dict[str, Callable]:
  """Functions of (params, batch, key); `params["tokenizer"]` has the weights.

  Videos come out in [0, 1].
  """

  def reconstruct(params, batch, key):
    """Gives {"video": float32 (B, T, H, W, 3)} of "video".

    Beside it are "ids" and entropies, where there are ids.
    """
    del key
    video = tokenizer_network.to_float(batch["video"])
    output, quantized, _ = tokenizer(params["tokenizer"], video)
    outputs = {"video": jnp.clip(output, 0.0, 1.0)}
    if quantized.ids is None:
      return outputs
    return {
      **outputs,
      "ids": quantized.ids,
      "sample_entropy": quantized.sample_entropy,
      "codebook_entropy": quantized.codebook_entropy,
    }

  def encode(params, batch, key):
    """Gives ids, int32 (B, t, h, w), or latents, of "video"."""
    del key
    video = tokenizer_network.to_float(batch["video"])
    return tokenizer(params["tokenizer"], video, method="encode")

  def decode(params, batch, key):
    """Gives clips, float32 (B, T, H, W, 3), of "ids" or "latents"."""
    del key
    coded = batch["latents" if "latents" in batch else "ids"]
    video = tokenizer(params["tokenizer"], coded, method="decode")
    return jnp.clip(video, 0.0, 1.0)

  return {"reconstruct": reconstruct, "encode": encode, "decode": decode}


def restore_tokenizer(workdir: str, mesh: Mesh) -> tuple[network.Network, Any]:
  """(network, averaged weights) of the tokenizer trained in a workdir."""
  return restore_newest_tokenizer(workdir, mesh)[1:]


def restore_newest_tokenizer(
  workdir: str, mesh: Mesh
) -> tuple[int, network.Network, Any]:
  """As `restore_tokenizer`, with the training steps behind the weights."""
  tokenizer = define_tokenizer(workdir_lib.read_config(workdir))
  abstract = jax.eval_shape(tokenizer.init, jax.random.key(0))
  part = {"ema": {"tokenizer": abstract}}
  step, restored = weights_lib.restore_newest(workdir, part, mesh)
  return step, tokenizer, restored["ema"]["tokenizer"]
