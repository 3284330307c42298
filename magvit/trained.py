"""Trained models: the algorithms by name, and the model in a workdir.

A new algorithm is a network file, an algorithm file, a config file, and a line
in ALGORITHMS (docs/extend.md).
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

import jax
from jax.sharding import Mesh
import ml_collections

from magvit import algorithm as algorithm_lib
from magvit import mesh as mesh_lib
from magvit.generators import autoregressive
from magvit.generators import masked
from magvit.tokenizer import gan
from magvit.workdir import folder as workdir_lib
from magvit.workdir import weights as weights_lib

ALGORITHMS: dict[str, type[algorithm_lib.Algorithm]] = {
  "tokenizer": gan.TokenizerGan,
  "masked": masked.MaskedGenerator,
  "autoregressive": autoregressive.AutoregressiveGenerator,
}


@dataclasses.dataclass(frozen=True)
class Trained:
  """A trained model: what every mode, scorer and the Python interface takes."""

  workdir: str  # or an export's folder
  config: ml_collections.ConfigDict  # as it was trained
  mesh: Mesh
  algorithm: algorithm_lib.Algorithm
  params: dict[str, Any]  # by network: what predict functions take
  step: int  # training steps behind the weights

  @property
  def num_classes(self) -> int:
    """Classes that a generator knows; as a label it means "no class"."""
    return self.config[self.algorithm.facts.section].num_classes


def open_trained(
  workdir: str,
  config: ml_collections.ConfigDict | None = None,
  mesh: Mesh | None = None,
) -> Trained:
  """The model of a workdir or of an export.

  Args:
    workdir: the folder.
    config: the workdir's, with other settings of how to run; None reads it.
    mesh: None for all devices of this process.

  Raises:
    ValueError: nothing was trained there, or another network.
  """
  config = workdir_lib.read_config(workdir) if config is None else config
  mesh = mesh_lib.local_mesh() if mesh is None else mesh
  step = weights_lib.latest_step(workdir)
  algorithm = build(resolve(config, workdir, training=False), mesh)
  params = restore(workdir, algorithm, mesh) | algorithm.frozen
  return Trained(workdir, config, mesh, algorithm, params, step)


def restore(
  workdir: str, algorithm: algorithm_lib.Algorithm, mesh: Mesh
) -> dict[str, Any]:
  """The trained weights that predict functions read, by network.

  They are the moving average of a network that keeps one.
  """
  name = algorithm.facts.network
  abstract = jax.eval_shape(algorithm.init, jax.random.key(0))
  kind = "ema" if name in abstract.ema else "params"
  part = {kind: {name: getattr(abstract, kind)[name]}}
  restored = weights_lib.restore_part(
    workdir, part, mesh, algorithm.sharding_rules
  )
  return restored[kind]


def resolve(
  config: ml_collections.ConfigDict, workdir: str, training: bool
) -> ml_collections.ConfigDict:
  """The config to build from, given what its workdir holds already.

  A generator takes its own copy of the tokenizer once there is one. A run that
  has weights does not read the sources of the first ones again, and without
  `training` nothing is read that only training needs: both may be gone by then.
  """
  facts = find_algorithm(config).facts
  changed = {}
  own_tokenizer = workdir_lib.own_tokenizer(workdir)
  if "tokenizer_workdir" in config and own_tokenizer is not None:
    changed["tokenizer_workdir"] = own_tokenizer
  if weights_lib.is_resumed(workdir):
    changed |= facts.weight_sources
  if not training:
    changed |= facts.training_only
  return with_fields(config, changed)


def with_fields(
  config: ml_collections.ConfigDict, fields: Mapping[str, Any]
) -> ml_collections.ConfigDict:
  """A copy of a config with other values, by names like "loss.gan"."""
  config = ml_collections.ConfigDict(config.to_dict())
  config.update_from_flattened_dict(fields)
  return config


def find_algorithm(
  config: ml_collections.ConfigDict,
) -> type[algorithm_lib.Algorithm]:
  """Raises ValueError for a name that ALGORITHMS lacks."""
  if config.algorithm not in ALGORITHMS:
    raise ValueError(
      f"algorithm={config.algorithm!r} must be one of {sorted(ALGORITHMS)}"
    )
  return ALGORITHMS[config.algorithm]


def build(
  config: ml_collections.ConfigDict, mesh: Mesh, abstract: bool = False
) -> algorithm_lib.Algorithm:
  """The config's algorithm, as `Algorithm.build` says."""
  return find_algorithm(config).build(config, mesh, abstract)
