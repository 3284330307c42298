"""Trained models: the algorithms by name, and the weights of a workdir."""

from typing import Any

import jax
from jax.sharding import Mesh
import ml_collections

from magvit import algorithm as algorithm_lib
from magvit.generators import autoregressive
from magvit.generators import masked
from magvit.tokenizer import gan
from magvit.workdir import folder as workdir_lib
from magvit.workdir import weights as weights_lib

ALGORITHMS = {
  "tokenizer": gan.build,
  "masked": masked.build,
  "autoregressive": autoregressive.build,
}

# Fields of a tokenizer that give weights, and their value if they do not.
WEIGHT_SOURCES = {"inflate_from": "none", "codebook_from_data": False}


def settled(
  config: ml_collections.ConfigDict, workdir: str
) -> ml_collections.ConfigDict:
  """The config, of a run that has weights without the sources of its first.

  They are not read again, and may be gone.
  """
  if config.algorithm != "tokenizer" or not weights_lib.is_resumed(workdir):
    return config
  return without_sources(config)


def without_sources(
  config: ml_collections.ConfigDict,
) -> ml_collections.ConfigDict:
  """A tokenizer's config that reads no weights of others."""
  config = ml_collections.ConfigDict(config.to_dict())
  config.update(WEIGHT_SOURCES)
  return config


def open_trained(
  config: ml_collections.ConfigDict, workdir: str, mesh: Mesh
) -> tuple[algorithm_lib.Algorithm, Any, int]:
  """(algorithm, what its predict functions take, step) of a workdir.

  Raises:
    ValueError: nothing was trained there, or another network.
  """
  step = weights_lib.latest_step(workdir)
  config = settled(config, workdir)
  if config.algorithm == "tokenizer":  # whose loss alone has that network
    config = ml_collections.ConfigDict(config.to_dict())
    config.loss.perceptual_network = "off"
  algorithm = build(config, workdir, mesh)
  abstract = jax.eval_shape(algorithm.init, jax.random.key(0))
  part = {}  # the average, of a network that keeps one
  for name in algorithm.predict_networks:
    kind = "ema" if name in abstract.ema else "params"
    part.setdefault(kind, {})[name] = getattr(abstract, kind)[name]
  restored = weights_lib.restore_part(
    workdir, part, mesh, algorithm.sharding_rules
  )
  params = {k: v for kind in restored.values() for k, v in kind.items()}
  params.update(algorithm.frozen)
  return algorithm, params, step


def build(
  config: ml_collections.ConfigDict, workdir: str, mesh: Mesh
) -> algorithm_lib.Algorithm:
  """The config's algorithm, on the workdir's own tokenizer once it has one."""
  config = with_own_tokenizer(config, workdir)
  return ALGORITHMS[config.algorithm](config, mesh)


def with_own_tokenizer(
  config: ml_collections.ConfigDict, workdir: str
) -> ml_collections.ConfigDict:
  """A generator's names the copy in its workdir, once there is one."""
  own = workdir_lib.own_tokenizer(workdir)
  if "tokenizer_workdir" in config and own is not None:
    config = ml_collections.ConfigDict(config.to_dict())
    config.tokenizer_workdir = own
  return config
