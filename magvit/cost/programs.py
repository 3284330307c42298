"""The programs of a config, described by shapes alone."""

import os
import runpy

import jax
from jax.sharding import Mesh
import ml_collections
import numpy as np

from input_pipeline.sources import token_shards
from magvit import algorithm as algorithm_lib
from magvit import mesh as mesh_lib
from magvit import trained as trained_lib
from magvit.generators import autoregressive
from magvit.generators import masked
from magvit.generators import tasks
from magvit.generators import tokens as tokens_lib
from magvit.tokenizer import describe as describe_lib
from magvit.tokenizer import gan
from magvit.workdir import folder as workdir_lib
from models import network
from models.features import perceptual


def describe(
  config: ml_collections.ConfigDict, mesh: Mesh
) -> algorithm_lib.Algorithm:
  """The algorithm, with shapes for whatever it would read from disk."""
  if config.algorithm == "tokenizer":
    config = trained_lib.without_sources(config)
    name = config.loss.perceptual_network
    distance = None if name == "off" else perceptual.describe(name)
    return gan.build(config, mesh, distance)
  build = {"masked": masked.build, "autoregressive": autoregressive.build}
  made_by = _tokenizer_config(config.tokenizer_workdir)
  tokens = tokens_lib.describe_tokenizer(config, made_by)
  return build[config.algorithm](config, mesh, tokens)


def _tokenizer_config(workdir: str) -> ml_collections.ConfigDict:
  if workdir.partition(":")[0].endswith(".py"):
    return read_config(workdir)
  return workdir_lib.read_config(workdir)


def read_config(name: str) -> ml_collections.ConfigDict:
  """The config FILE:ARG; raises ValueError if there is no such file."""
  file, _, arg = name.partition(":")
  if not os.path.isfile(file):
    raise ValueError(f"{name}: there is no file {file}")
  return runpy.run_path(file)["get_config"](*([arg] if arg else []))


def without_remat(config) -> ml_collections.ConfigDict:
  config = ml_collections.ConfigDict(config.to_dict())
  section = "tokenizer" if config.algorithm == "tokenizer" else "transformer"
  config[section].remat = "off"
  return config


def parameters(algorithm: algorithm_lib.Algorithm) -> dict[str, int]:
  state = jax.eval_shape(algorithm.init, jax.random.key(0))
  networks = {**state.params, **algorithm.frozen}
  return {name: network.count(tree) for name, tree in networks.items()}


def programs(
  config: ml_collections.ConfigDict,
  algorithm: algorithm_lib.Algorithm,
  mesh: Mesh,
) -> dict[str, tuple]:
  """name -> (function, shardings of its results, donated, arguments).

  "train" is the step of training, of a state that it donates; "reconstruct" and
  "sample" are those of an evaluation. Arguments are shapes with shardings.
  """
  placed = lambda tree, shardings: jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
    tree,
    shardings,
  )
  whole = mesh_lib.replicated(mesh)
  shard = lambda tree, rules: placed(
    tree, mesh_lib.state_shardings(tree, mesh, rules)
  )
  key = placed(jax.eval_shape(lambda: jax.random.key(0)), whole)
  state = shard(
    jax.eval_shape(algorithm.init, jax.random.key(0)), algorithm.sharding_rules
  ).replace(frozen=shard(algorithm.frozen, ()))
  array = lambda dtype, *shape: jax.ShapeDtypeStruct(
    (config.batch_size, *shape),
    dtype,
    sharding=mesh_lib.batch_sharding(mesh),
  )
  clip = describe_lib.clip_shape(config)
  video = array(np.uint8, *clip, 3)
  batch = {"video": video, "label": array(np.int32)}
  if config.dataset.tokens:
    made_by = _tokenizer_config(config.tokenizer_workdir)
    ids = array(np.int32, *describe_lib.sizes(made_by).latent(clip))
    batch = {"ids": ids, "label": batch["label"]}
    for task in tasks.task_names(config):
      if tokens_lib.needs_condition_tokens(task, made_by.tokenizer.causal):
        batch[token_shards.CONDITION + task] = ids
  if config.dataset.joint_images:
    size = (config.dataset.joint_images, 1, *clip[1:], 3)
    batch["image"] = jax.ShapeDtypeStruct(
      size, np.uint8, sharding=mesh_lib.batch_sharding(mesh)
    )
  found = {
    "train": (
      algorithm.step,
      (algorithm_lib.shardings_of(state), whole),
      0,
      (state, batch, key),
    )
  }
  for name in ("reconstruct", "sample"):
    if name in algorithm.predict:
      task = jax.ShapeDtypeStruct((), np.int32, sharding=whole)
      inputs = {"video": video}
      if name == "sample":
        inputs |= {"label": batch["label"], "task": task}
      arguments = (state.predict_params(), inputs, key)
      found[name] = (algorithm.predict[name], whole, (), arguments)
  return found
