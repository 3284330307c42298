"""The tokens a generator models, and the tokenizer that makes them."""

from collections.abc import Mapping
import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
import ml_collections

from magvit import checkpoint
from magvit import tokenizer as tokenizer_lib
from models import clip_sizes
from models import network
from models import tokenizer


@dataclasses.dataclass(frozen=True)
class Tokens:
  """A trained tokenizer, and the token grid of a generator's clips."""

  network: network.Network
  params: Any  # the tokenizer's weights, for TrainState.frozen["generator"]
  sizes: clip_sizes.Sizes
  latent_shape: tuple[int, int, int]  # (t, h, w)
  vocabulary: int

  @property
  def num(self) -> int:
    """N, tokens of a clip."""
    return math.prod(self.latent_shape)

  def of_batch(self, params: Any, batch: Mapping[str, jax.Array]) -> jax.Array:
    """int32 (B, N), of the batch's "video"."""
    return self.encode(params, tokenizer.to_float(batch["video"]))

  def encode(self, params: Any, video_BTHWC: jax.Array) -> jax.Array:
    """Float clips to ids, int32 (B, N) in (t, h, w) raster order."""
    ids_Bthw = self.network(params, video_BTHWC, method="encode")
    return ids_Bthw.reshape(len(ids_Bthw), self.num)

  def decode(self, params: Any, ids_BN: jax.Array) -> jax.Array:
    """Ids to clips, float32 (B, T, H, W, 3) in [0, 1]."""
    ids_Bthw = ids_BN.reshape(len(ids_BN), *self.latent_shape)
    video = self.network(params, ids_Bthw, method="decode")
    return jnp.clip(video, 0.0, 1.0)


def open_tokenizer(config: ml_collections.ConfigDict, mesh: Mesh) -> Tokens:
  """Reads the tokenizer of a generator's config.

  Raises:
    ValueError: no tokenizer there, or clips that it rejects.
  """
  workdir = config.tokenizer_workdir
  if not workdir:
    raise ValueError(
      "tokenizer_workdir is empty: give the workdir of a trained tokenizer"
      " (--config.tokenizer_workdir=DIR)"
    )
  made_by = checkpoint.read_config(workdir)
  if made_by.algorithm != "tokenizer":
    raise ValueError(
      f"tokenizer_workdir={workdir} holds {made_by.name!r}, not a tokenizer"
    )
  if config.dataset.joint_images:
    raise ValueError(
      f"dataset.joint_images={config.dataset.joint_images} is for tokenizers:"
      " set it to 0"
    )
  sizes = tokenizer_lib.sizes(made_by)
  latent_shape = sizes.latent(tokenizer_lib.clip_shape(config))
  vocabulary = tokenizer_lib.vocabulary(made_by)
  generator, params = tokenizer_lib.restore_generator(workdir, mesh)
  return Tokens(generator, params, sizes, latent_shape, vocabulary)
