"""Programs of a config, described by shapes alone."""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
import functools
from typing import Any

import jax
from jax.sharding import Mesh
import ml_collections
import numpy as np

from input_pipeline.sources import token_shards
from magvit import algorithm as algorithm_lib
from magvit import mesh as mesh_lib
from magvit import trained as trained_lib
from magvit.cost import flops
from magvit.generators import tasks as tasks_lib
from magvit.generators import tokens as tokens_lib
from magvit.tokenizer import describe as describe_lib
from models import network


def describe(
  config: ml_collections.ConfigDict, mesh: Mesh
) -> algorithm_lib.Algorithm:
  """The algorithm of a config, with shapes for all that it reads from disk."""
  facts = trained_lib.find_algorithm(config).facts
  config = trained_lib.with_fields(config, facts.weight_sources)
  return trained_lib.build(config, mesh, abstract=True)


def without_remat(
  config: ml_collections.ConfigDict,
) -> ml_collections.ConfigDict:
  """The config with a network that computes nothing twice."""
  section = trained_lib.find_algorithm(config).facts.section
  fields = {f"{section}.remat": "off"}
  if "attention" in config[section]:
    fields[f"{section}.attention"] = "plain"
  return trained_lib.with_fields(config, fields)


def parameters(algorithm: algorithm_lib.Algorithm) -> dict[str, int]:
  state = jax.eval_shape(algorithm.init, jax.random.key(0))
  networks = {**state.params, **algorithm.frozen}
  return {name: network.count(tree) for name, tree in networks.items()}


# Programs of an evaluation.
_EVALUATED = ("reconstruct", "sample", "classify")


@dataclasses.dataclass(frozen=True)
class Program:
  """A function to compile; arguments are shapes with shardings."""

  function: Callable[..., Any]
  out_shardings: Any  # shardings of the results
  donated: tuple[int, ...]  # arguments whose memory the results may take
  arguments: tuple[Any, ...]


def names(
  config: ml_collections.ConfigDict, devices: Sequence[jax.Device]
) -> list[str]:
  """Names of the programs that `programs` describes."""
  predict = describe(config, mesh_lib.data_mesh(devices)).predict
  return ["train", *(name for name in _EVALUATED if name in predict)]


def programs(
  config: ml_collections.ConfigDict,
  algorithm: algorithm_lib.Algorithm,
  mesh: Mesh,
) -> dict[str, Program]:
  """The programs that a config runs, by name.

  "train" is the step of training, which donates its state; "reconstruct",
  "sample" and "classify" are programs of an evaluation.
  """
  placed = lambda tree, shardings: jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
    tree,
    shardings,
  )
  whole = mesh_lib.replicated(mesh)
  key = placed(jax.eval_shape(lambda: jax.random.key(0)), whole)
  state = algorithm_lib.described(algorithm, mesh)
  batch = _describe_batch(config, mesh)
  made = {
    "train": Program(
      function=algorithm.step,
      out_shardings=(algorithm_lib.shardings_of(state), whole),
      donated=(0,),
      arguments=(state, batch, key),
    )
  }
  video, label = (
    _describe_array(config.batch_size, mesh, dtype, *shape)
    for dtype, *shape in (
      (np.uint8, *describe_lib.clip_shape(config), 3),
      (np.int32,),
    )
  )
  task = jax.ShapeDtypeStruct((), np.int32, sharding=whole)
  inputs = {
    "reconstruct": {"video": video},
    "sample": {"video": video, "label": label, "task": task},
    "classify": {"video": video},
  }
  for name in _EVALUATED:
    if name not in algorithm.predict:
      continue
    made[name] = Program(
      function=algorithm.predict[name],
      out_shardings=whole,
      donated=(),
      arguments=(state.predict_params(), inputs[name], key),
    )
  return made


def model_flops(
  config: ml_collections.ConfigDict, mesh: Mesh, name: str
) -> int:
  """Products of a program, without those that are rematerialised."""
  plain = without_remat(config)
  program = programs(plain, describe(plain, mesh), mesh)[name]
  return flops.count(program.function, *program.arguments)


def _describe_array(
  batch_size: int, mesh: Mesh, dtype, *shape: int
) -> jax.ShapeDtypeStruct:
  """An array (B, ...) of a batch, split as batches are."""
  return jax.ShapeDtypeStruct(
    (batch_size, *shape), dtype, sharding=mesh_lib.batch_sharding(mesh)
  )


def _describe_batch(
  config: ml_collections.ConfigDict, mesh: Mesh
) -> dict[str, jax.ShapeDtypeStruct]:
  """A batch of training, as `pipeline.train_batches` makes it."""
  array = functools.partial(_describe_array, config.batch_size, mesh)
  clip = describe_lib.clip_shape(config)
  batch = {"label": array(np.int32)}
  if config.dataset.tokens:
    tokenizer = tokens_lib.tokenizer_config(config.tokenizer_workdir)
    ids = array(np.int32, *describe_lib.sizes(tokenizer).latent(clip))
    batch["ids"] = ids
    for task in tasks_lib.task_names(config) if "tasks" in config else ():
      if tokens_lib.needs_condition_tokens(task, tokenizer.tokenizer.causal):
        batch[token_shards.CONDITION + task] = ids
  else:
    batch["video"] = array(np.uint8, *clip, 3)
  if config.dataset.joint_images:
    batch["image"] = _describe_array(
      config.dataset.joint_images, mesh, np.uint8, 1, *clip[1:], 3
    )
  return batch
