"""Inflation of an image tokenizer into a video tokenizer, leaf by leaf.

MAGVIT-v2 fills the temporally last slice of each causal kernel and leaves the
others zero (arXiv 2310.05737, appendix), MAGVIT the central slice of kernels
that see both ways (arXiv 2212.05199, section 3.1). So at the start a frame is
coded from itself alone: where statistics are taken of each frame, a single
frame gives what the image model gives, and a still clip gives it at every
frame. The discriminator starts from scratch.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
import ml_collections
import numpy as np

from input_pipeline import pipeline
from magvit import algorithm as algorithm_lib
from magvit.algorithm import TrainState
from magvit.tokenizer import describe
from magvit.workdir import folder as workdir_lib
from magvit.workdir import weights as weights_lib
from models.quantizers import build as quantizer_build
from models.quantizers import vector
from models.tokenizer import tokenizer as tokenizer_network

# Fields of config.tokenizer that the two models must share. Where time is
# halved, the image model keeps every frame.
_SHARED = (
  "base_channels",
  "channel_multipliers",
  "num_res_blocks",
  "norm_groups",
  "downsample",
  "upsample",
  "adaptive_norm",
  "padding",
  "centred_pixels",
)

_LATENTS_PER_CODE = 4  # latents from which each row of a codebook is chosen


def check_compatible(
  image: ml_collections.ConfigDict, video: ml_collections.ConfigDict
) -> None:
  """Raises ValueError unless `image`'s weights fit `video`'s tokenizer."""
  if not describe.is_tokenizer(image) or image.tokenizer.temporal:
    raise ValueError(
      f"inflate_from={video.inflate_from} must be the workdir of an image"
      f" tokenizer, and holds {image.name!r}"
    )
  if not video.tokenizer.temporal:
    raise ValueError(
      "inflate_from needs a video tokenizer to inflate into: set"
      " tokenizer.temporal=True or leave inflate_from empty"
    )
  fields = [("tokenizer", field) for field in _SHARED]
  fields += [("quantizer", field) for field in video.quantizer]
  for section, field in fields:
    if _plain(image[section][field]) != _plain(video[section][field]):
      raise ValueError(
        f"{section}.{field}={video[section][field]} must equal"
        f" {image[section][field]} of the image tokenizer in"
        f" inflate_from={video.inflate_from}"
      )


def _plain(value):
  return list(value) if isinstance(value, (list, tuple)) else value


def inflate(image_params: Any, video_params: Any, causal: bool = True) -> Any:
  """Lays image weights out as `video_params`, which give only the shapes.

  Raises:
    ValueError: a leaf of one tree is absent from the other, or its shape is
      not that of an inflated one; it is named.
  """
  image = dict(jax.tree_util.tree_leaves_with_path(image_params))
  video, treedef = jax.tree_util.tree_flatten_with_path(video_params)
  unmatched = set(image) ^ {path for path, _ in video}
  if unmatched:
    names = sorted(jax.tree_util.keystr(path) for path in unmatched)
    raise ValueError(
      f"image and video tokenizer must have the same arrays: {names[0]} (and"
      f" {len(names) - 1} more) is in one of them only"
    )
  return treedef.unflatten(
    _inflate_leaf(jax.tree_util.keystr(path), image[path], leaf.shape, causal)
    for path, leaf in video
  )


def _inflate_leaf(
  name: str, array: jax.Array, shape: tuple, causal: bool
) -> jax.Array:
  # Convolutions ahead of depth-to-space have (ft, fh, fw, C') output channels
  # with ft slowest, and 1 -> ft of them in time: every new frame is a copy.
  tiles = shape[-1] // array.shape[-1] if shape else 1
  array = jnp.concatenate([array] * tiles, axis=-1) if tiles > 1 else array
  if array.ndim == 5 and shape[0] > array.shape[0]:
    after = 0 if causal else shape[0] - 1 - shape[0] // 2
    before = shape[0] - array.shape[0] - after
    array = jnp.pad(array, [(before, after)] + [(0, 0)] * 4)
  if array.shape != shape:
    raise ValueError(
      f"cannot inflate {name}: shape {array.shape} does not lead to {shape}"
    )
  return array


def check_sources(config: ml_collections.ConfigDict) -> None:
  """Checks before a run that the sources of its first weights are there.

  Raises:
    ValueError: an image tokenizer that is not there or does not fit, or a
      codebook from data for a quantizer without a codebook.
  """
  if not config.inflate_from:
    raise ValueError(
      "inflate_from is empty: give the workdir of the image tokenizer to start"
      " from (--config.inflate_from=DIR), or 'none' to start from scratch"
    )
  name = config.quantizer.name
  if config.codebook_from_data and not quantizer_build.kind(name).has_codebook:
    with_one = " or ".join(map(repr, quantizer_build.names("has_codebook")))
    raise ValueError(
      f"codebook_from_data=True needs quantizer.name={with_one}, and it is"
      f" {name!r}: the others have no codebook"
    )
  if config.inflate_from != "none":
    source = workdir_lib.read_config(config.inflate_from)
    check_compatible(source, config)
    weights_lib.latest_step(config.inflate_from)


def warm_start(
  config: ml_collections.ConfigDict, mesh: Mesh, state: TrainState
) -> TrainState:
  """The first state with an inflated image tokenizer, a codebook from data.

  The config says which of them, both or none, replaces random weights.
  """
  params = state.params["tokenizer"]
  if config.inflate_from != "none":
    _, image = describe.restore_tokenizer(config.inflate_from, mesh)
    params = inflate(image, params, config.tokenizer.causal)
  if config.codebook_from_data:
    params = _with_codebook_from_data(config, params)
  if params is state.params["tokenizer"]:
    return state
  return state.replace(
    params={**state.params, "tokenizer": params},
    ema={"tokenizer": algorithm_lib.copy(params)},
  )


def _with_codebook_from_data(config, params):
  """Replaces the codebook's rows by latents of training clips."""
  tokenizer = describe.define_tokenizer(config)
  encode = jax.jit(
    lambda video: tokenizer(
      params, tokenizer_network.to_float(video), method="encode_latents"
    )
  )
  rows, channels = params["quantizer"]["codebook"].shape
  tokens = math.prod(describe.sizes(config).latent(describe.clip_shape(config)))
  clips = -(-_LATENTS_PER_CODE * rows // tokens)
  batches = pipeline.eval_batches(
    config.dataset, "train", clips, config.batch_size
  )
  latents = [np.asarray(encode(b["video"]))[:real] for b, real in batches]
  codebook = vector.initialize_codebook(
    np.concatenate(latents).reshape(-1, channels),
    jax.random.key(config.seed),
    rows,
  )
  return {**params, "quantizer": {"codebook": codebook}}
