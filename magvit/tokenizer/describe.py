"""What a tokenizer's config says of it: shapes, vocabulary, functions."""

from collections.abc import Callable
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

# What decides, beside the weights, what a tokenizer computes.
DEFINING = ("tokenizer", "quantizer")


def is_tokenizer(config: ml_collections.ConfigDict) -> bool:
  """Whether a config is of a tokenizer, whatever trains it."""
  return "quantizer" in config


def codes_images(config: ml_collections.ConfigDict) -> bool:
  """Whether a tokenizer is of images and so codes frame by frame."""
  return not config.tokenizer.temporal


def streams(config: ml_collections.ConfigDict) -> bool:
  """Whether a tokenizer codes videos in chunks."""
  t = config.tokenizer
  return tokenizer_network.streams(t.architecture, t.causal, t.norm_statistics)


def manner(config: ml_collections.ConfigDict) -> str:
  """How a tokenizer codes frames, for records of results."""
  if codes_images(config):
    return "each coded as an image"
  return "in chunks without seams" if streams(config) else "whole clip at once"


def padded_shape(
  config: ml_collections.ConfigDict, shape: tuple[int, int, int]
) -> tuple[int, int, int]:
  """(T, H, W) of all that is encoded for a video of this (T, H, W)."""
  return sizes(config).padded(shape)


def id_convention(config: ml_collections.ConfigDict) -> str:
  """What the bits or digits of a tokenizer's ids mean."""
  meaning = quantizer_build.kind(config.quantizer.name).id_convention
  return f"in raster order (t, h, w); {meaning}"


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
  """Number of codes of the config's tokenizer."""
  return tokenizer_network.describe_quantizer(**config.quantizer).vocabulary


def clip_shape(config: ml_collections.ConfigDict) -> tuple[int, int, int]:
  """(T, H, W) of the config's clips."""
  return (config.dataset.frames, config.dataset.size, config.dataset.size)


def sizes(config: ml_collections.ConfigDict) -> geometry.Sizes:
  """Strides of the config's tokenizer, and the clip lengths it takes."""
  halvings = config.tokenizer.temporal_downsample
  causal = config.tokenizer.causal
  return geometry.Sizes(2 ** sum(halvings), 2 ** len(halvings), causal)


def predict_functions(tokenizer: network.Network) -> dict[str, Callable]:
  """`params["tokenizer"]` holds the weights; videos come out in [0, 1]."""

  def reconstruct(params, batch, key):
    """{"video"} -> {"video": float32 (B, T, H, W, 3), "ids", entropies}."""
    del key
    video = tokenizer_network.to_float(batch["video"])
    output, quantized, _ = tokenizer(params["tokenizer"], video)
    return {
      "video": jnp.clip(output, 0.0, 1.0),
      "ids": quantized.ids,
      "sample_entropy": quantized.sample_entropy,
      "codebook_entropy": quantized.codebook_entropy,
    }

  def encode(params, batch, key):
    """{"video"} -> int32 (B, t, h, w)."""
    del key
    video = tokenizer_network.to_float(batch["video"])
    return tokenizer(params["tokenizer"], video, method="encode")

  def decode(params, batch, key):
    """{"ids"} -> float32 (B, T, H, W, 3)."""
    del key
    video = tokenizer(params["tokenizer"], batch["ids"], method="decode")
    return jnp.clip(video, 0.0, 1.0)

  return {"reconstruct": reconstruct, "encode": encode, "decode": decode}


def restore_tokenizer(workdir: str, mesh: Mesh) -> tuple[network.Network, Any]:
  """(network, averaged weights) of the tokenizer trained in a workdir."""
  tokenizer = define_tokenizer(workdir_lib.read_config(workdir))
  abstract = jax.eval_shape(tokenizer.init, jax.random.key(0))
  part = {"ema": {"tokenizer": abstract}}
  restored = weights_lib.restore_part(workdir, part, mesh)
  return tokenizer, restored["ema"]["tokenizer"]
