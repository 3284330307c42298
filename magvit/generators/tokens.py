"""The tokens a generator models, and the tokenizer that makes them."""

from collections.abc import Mapping
import dataclasses
import json
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
import ml_collections

from input_pipeline.sources import token_shards
from magvit.generators import tasks
from magvit.tokenizer import describe
from magvit.tokenizer import fingerprint
from magvit.workdir import folder as workdir_lib
from models import network as network_lib
from models import remat as remat_lib
from models import settings as settings_lib
from models.tokenizer import geometry
from models.tokenizer import tokenizer as tokenizer_network
from models.transformers import attend
from models.transformers import attention
from models.transformers import dropout as dropout_lib

# Fields of config.dataset that decide which clips it gives.
_CLIP_FIELDS = (
  *("name", "frames", "size", "motion", "seed", "fold", "mixture", "stride"),
  *("train_window", "train_crop", "short_videos", "short_side", "scale"),
  *("flip", "filter"),
)
# Fields that came later, and their value where they are missing: it is left out
# of what is written, so that folders of before go on.
_LATER_CLIP_FIELDS = {"labels": "class"}
# Fields that decide, beside the weights, what a generator computes.
DEFINING = ("algorithm", "transformer", "tasks", "condition_frames")
# What sections mean that lack these fields: those of configs of before, and
# `denoiser`, which has no dropout.
_OLD_SETTINGS = {
  "attention": "auto",
  "dropout": 0.0,
  "dropout_bits": "threefry",
}
_DTYPES = {"float32": None, "bfloat16": jnp.bfloat16}  # None: no conversion


@dataclasses.dataclass(frozen=True)
class Tokens:
  """A trained tokenizer, and the token grid of a generator's clips."""

  network: network_lib.Network
  params: Any  # the tokenizer's weights, for TrainState.frozen["tokenizer"]
  sizes: geometry.Sizes
  latent_shape: tuple[int, int, int]  # (t, h, w)
  vocabulary: int
  made_by: ml_collections.ConfigDict  # the tokenizer's config

  @property
  def num(self) -> int:
    """N, the number of tokens of a clip."""
    return math.prod(self.latent_shape)

  def tokenize_batch(
    self, params: Any, batch: Mapping[str, jax.Array]
  ) -> jax.Array:
    """Ids, int32 (B, N): the batch's "ids" if stored, else its "video"'s."""
    if "ids" in batch:
      return batch["ids"].reshape(-1, self.num)
    return self.encode(params, tokenizer_network.to_float(batch["video"]))

  def stored_condition(
    self, batch: Mapping[str, jax.Array], task: str
  ) -> jax.Array:
    """Ids, int32 (B, N), of a task's condition clip, for batches with "ids".

    They are the condition clip's in the task's given region only.
    """
    stored = needs_condition_tokens(task, self.sizes.causal)
    ids_Bthw = batch[token_shards.CONDITION + task if stored else "ids"]
    return ids_Bthw.reshape(-1, self.num)

  def encode(self, params: Any, video_BTHWC: jax.Array) -> jax.Array:
    """Encodes float clips to ids, int32 (B, N) in (t, h, w) raster order."""
    ids_Bthw = self.network(params, video_BTHWC, method="encode")
    return ids_Bthw.reshape(ids_Bthw.shape[0], self.num)

  def codes(self, params: Any, ids_BN: jax.Array) -> jax.Array:
    """Codes of ids, float32 (B, t, h, w, K): of LFQ the bits, as signs."""
    ids_Bthw = ids_BN.reshape(ids_BN.shape[0], *self.latent_shape)
    return self.network(params, ids_Bthw, method="codes")

  def latents(self, params: Any, video: jax.Array) -> jax.Array:
    """Latents before the quantizer, float32 (B, t, h, w, K), of any clips."""
    video_BTHWC = tokenizer_network.to_float(video)
    return self.network(params, video_BTHWC, method="encode_latents")

  @property
  def code_channels(self) -> int:
    """K, the number of channels of a code, and of a latent."""
    return describe.latent_channels(self.made_by)

  def check_factors(self, config: ml_collections.ConfigDict) -> None:
    """Raises ValueError unless a generator's sub-tokens make up the ids."""
    workdir = config.tokenizer_workdir
    describe.require_ids(
      self.made_by,
      f"tokenizer_workdir={workdir}: algorithm={config.algorithm!r}",
    )
    bits = tuple(config.transformer.factor_bits)
    if 2 ** sum(bits) != self.vocabulary:
      raise ValueError(
        f"transformer.factor_bits={bits} must add up to log2 of the"
        f" {self.vocabulary} codes of the tokenizer in"
        f" {config.tokenizer_workdir}, {math.log2(self.vocabulary):g}"
      )

  def decode(self, params: Any, ids_BN: jax.Array) -> jax.Array:
    """Decodes ids to clips, float32 (B, T, H, W, 3) in [0, 1].

    N may be that of more latent frames than `latent_shape` has, where the
    tokenizer is causal.
    """
    ids_Bthw = ids_BN.reshape(ids_BN.shape[0], -1, *self.latent_shape[1:])
    video = self.network(params, ids_Bthw, method="decode")
    return jnp.clip(video, 0.0, 1.0)


def open_tokenizer(
  config: ml_collections.ConfigDict, mesh: Mesh, abstract: bool = False
) -> Tokens:
  """The tokenizer of a generator's config.

  With `abstract` no weights are read: `params` are shapes alone, and
  `tokenizer_workdir` may name a tokenizer's config (FILE:ARG) instead.

  Raises:
    ValueError: no tokenizer there, or clips that it rejects.
  """
  workdir = config.tokenizer_workdir
  if not workdir:
    raise ValueError(
      "tokenizer_workdir is empty: give the workdir of a trained tokenizer"
      " (--config.tokenizer_workdir=DIR)"
    )
  if abstract:
    return describe_tokenizer(config, tokenizer_config(workdir))
  tokens = describe_tokenizer(config, workdir_lib.read_config(workdir))
  _, params = describe.restore_tokenizer(workdir, mesh)
  return dataclasses.replace(tokens, params=params)


def tokenizer_config(name: str) -> ml_collections.ConfigDict:
  """The config of a tokenizer's workdir, or FILE:ARG of one to be trained."""
  if name.partition(":")[0].endswith(".py"):
    return workdir_lib.read_config_file(name)
  return workdir_lib.read_config(name)


def describe_tokenizer(
  config: ml_collections.ConfigDict, made_by: ml_collections.ConfigDict
) -> Tokens:
  """The tokenizer of a generator, by both configs; `params` are shapes alone.

  Raises:
    ValueError: the config of something else, or clips that it rejects.
  """
  if not describe.is_tokenizer(made_by):
    raise ValueError(
      f"tokenizer_workdir={config.tokenizer_workdir} holds {made_by.name!r},"
      " not a tokenizer"
    )
  sizes = describe.sizes(made_by)
  latent_shape = sizes.latent(describe.clip_shape(config))
  vocabulary = describe.vocabulary(made_by)
  net = describe.define_tokenizer(made_by)
  shapes = jax.eval_shape(net.init, jax.random.key(0))
  return Tokens(net, shapes, sizes, latent_shape, vocabulary, made_by)


def check_no_images(config: ml_collections.ConfigDict) -> None:
  """Raises ValueError for joint images, which most generators do not train."""
  if config.dataset.joint_images:
    raise ValueError(
      f"dataset.joint_images={config.dataset.joint_images} is for tokenizers"
      " and diffusion: set it to 0"
    )


def needs_condition_tokens(task: str, causal: bool) -> bool:
  """Whether a condition clip's tokens differ from the clip's where it is given.

  If they do, tokenizing a data set stores them, too.
  """
  exact = causal and tasks.TASKS[task].exact
  return tasks.needs_clip(task) and not exact


def transformer_settings(
  config: ml_collections.ConfigDict,
  positions: int,
  mesh: Mesh | None,
  section: str = "transformer",
) -> tuple[dict[str, Any], Any]:
  """(arguments of a generator's network, the dtype that it computes in).

  Args:
    config: the generator's.
    positions: length of the sequence.
    mesh: devices that it runs on; None for one of the default kind.
    section: the config's section of the network.

  Raises:
    ValueError: a field that has not one of its values.
  """
  settings = {**_OLD_SETTINGS, **config[section].to_dict()}
  dtype = find_dtype(section, settings.pop("dtype"))
  dropout_lib.check(settings["dropout_bits"])
  settings |= run_settings(settings, positions, mesh)
  size, rest = settings_lib.split(attention.TransformerSize, settings)
  return {**rest, "size": size}, dtype


def find_dtype(section: str, name: str) -> Any:
  """The type that a network computes in; None for that of its weights.

  Raises:
    ValueError: `name`, the field `dtype` of the config's section, is unknown.
  """
  if name not in _DTYPES:
    raise ValueError(
      f"{section}.dtype={name!r} must be one of {sorted(_DTYPES)}"
    )
  return _DTYPES[name]


def run_settings(
  settings: Mapping[str, Any], positions: int, mesh: Mesh | None
) -> dict[str, Any]:
  """Fields of a `TransformerSize` that depend on the devices.

  Args:
    settings: the config's fields `remat` and `attention`, among others.
    positions: length of the sequence.
    mesh: devices that it runs on; None for one of the default kind.

  Raises:
    ValueError: a field that has not one of its values.
  """
  platform = jax.default_backend()
  if mesh is not None:
    platform = mesh.devices.flat[0].platform
  remat = remat_lib.choose(settings["remat"], platform)
  return {
    "remat": remat,
    "attention": attend.choose(
      settings["attention"], platform, positions, mesh
    ),
    # Where only the blocks' inputs are kept, a loop has little to copy, and 24
    # blocks take minutes to compile one by one.
    "unroll": platform == "gpu" and remat != "all",
  }


def clips_of(dataset: ml_collections.ConfigDict) -> dict[str, Any]:
  """Fields that decide which clips a data set gives, in JSON's types."""
  fields = json.loads(dataset.to_json())
  later = {
    name: fields[name]
    for name, usual in _LATER_CLIP_FIELDS.items()
    if fields.get(name, usual) != usual
  }
  return {**{name: fields[name] for name in _CLIP_FIELDS}, **later}


def check_stored(config: ml_collections.ConfigDict) -> None:
  """Checks that a generator may train on the tokens of `dataset.tokens`.

  Raises:
    ValueError: tokens of another tokenizer, data set or clip size; a task
      whose condition tokens were not stored, or for other given pixels.
  """
  folder = config.dataset.tokens
  if not folder:
    return
  if "tokenizer_workdir" not in config:
    raise ValueError(
      f"dataset.tokens={folder} is for generators: set it to '', because a"
      " tokenizer trains from pixels"
    )
  contents, _ = token_shards.FORMAT.read(folder)
  workdir = config.tokenizer_workdir
  made_by = fingerprint.read_fingerprint(workdir)
  if made_by != contents.tokenizer:
    raise ValueError(
      f"dataset.tokens={folder} was made by the tokenizer"
      f" {contents.tokenizer[:16]}, and that of tokenizer_workdir={workdir}"
      f" is {made_by[:16]}: name the workdir that made the tokens, or make"
      " others with --mode=tokenize"
    )
  dataset = {**_LATER_CLIP_FIELDS, **clips_of(config.dataset), "split": "train"}
  for field, stored in {**_LATER_CLIP_FIELDS, **contents.dataset}.items():
    wanted = dataset.get(field)
    if stored != wanted:
      raise ValueError(
        f"dataset.tokens={folder} was made from {field}={stored!r}, and"
        f" training needs {field}={wanted!r}: change dataset.{field}, or make"
        " tokens of that with --mode=tokenize"
      )
  made = workdir_lib.read_config(workdir)
  _check_grid(config, contents, describe_tokenizer(config, made))
  causal = describe.sizes(made).causal
  for name in tasks.task_names(config) if "tasks" in config else ():
    if not needs_condition_tokens(name, causal):
      continue
    if name not in contents.tasks:
      raise ValueError(
        f"tasks.{name}={config.tasks[name]} needs condition tokens, and"
        f" dataset.tokens={folder} holds those of {list(contents.tasks)}: set"
        f" tasks.{name}=0, or make them with --mode=tokenize --tasks={name},..."
      )
    given = [
      tasks.given_pixels(name, contents.clip_shape, frames)
      for frames in (contents.condition_frames, config.condition_frames)
    ]
    if (given[0] != given[1]).any():
      raise ValueError(
        f"condition_frames={config.condition_frames} gives tasks.{name} other"
        f" pixels than the {contents.condition_frames} that dataset.tokens="
        f"{folder} was made with: set condition_frames="
        f"{contents.condition_frames}, or make tokens with --mode=tokenize and"
        " this --config"
      )


def _check_grid(
  config: ml_collections.ConfigDict,
  contents: token_shards.Contents,
  tokens: Tokens,
) -> None:
  """Raises ValueError if the manifest says other grids than the tokenizer."""
  for field, stored, wanted in (
    ("clip_shape", contents.clip_shape, describe.clip_shape(config)),
    ("latent_shape", contents.latent_shape, tokens.latent_shape),
    ("vocabulary", contents.vocabulary, tokens.vocabulary),
  ):
    if stored != wanted:
      raise ValueError(
        f"dataset.tokens={config.dataset.tokens} says {field}={stored}, and the"
        f" tokenizer that made it makes {wanted} of such clips: make the tokens"
        " again with --mode=tokenize"
      )
