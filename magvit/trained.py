"""Trained models: the algorithms by name, and the model of a workdir.

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
from magvit.generators import latent_diffusion
from magvit.generators import masked
from magvit.generators import masked_diffusion
from magvit.generators import next_frame_flow
from magvit.recognition import recognition
from magvit.tokenizer import gan
from magvit.workdir import folder as workdir_lib
from magvit.workdir import weights as weights_lib
from storage import progress as progress_lib

ALGORITHMS: dict[str, type[algorithm_lib.Algorithm]] = {
  "tokenizer": gan.TokenizerGan,
  "masked": masked.MaskedGenerator,
  "autoregressive": autoregressive.AutoregressiveGenerator,
  "masked_diffusion": masked_diffusion.MaskedDiffusion,
  "next_frame_flow": next_frame_flow.NextFrameFlow,
  "diffusion": latent_diffusion.LatentDiffusion,
  "recognition": recognition.Recognition,
}


@dataclasses.dataclass(frozen=True)
class Trained:
  """A trained model, as modes, scorers and the Python interface take it."""

  workdir: str  # path of the workdir or of the export
  config: ml_collections.ConfigDict  # config it was trained with
  mesh: Mesh
  algorithm: algorithm_lib.Algorithm
  params: dict[str, Any]  # weights by network, for predict functions
  step: int  # number of training steps that made the weights

  @property
  def num_classes(self) -> int:
    """Number of a generator's classes; as a label it means "no class"."""
    return self.config[self.algorithm.facts.section].num_classes


def open_trained(
  workdir: str,
  config: ml_collections.ConfigDict | None = None,
  mesh: Mesh | None = None,
) -> Trained:
  """Opens the model of a workdir or of an export.

  Args:
    workdir: the folder.
    config: the workdir's config, perhaps with other settings of how to run;
      None reads it.
    mesh: devices for the weights; None for all of this process.

  Raises:
    ValueError: nothing was trained there, or another network.
  """
  config = workdir_lib.read_config(workdir) if config is None else config
  mesh = mesh_lib.local_mesh() if mesh is None else mesh
  weights_lib.latest_step(workdir)  # raises before anything is built
  with progress_lib.phase(f"opening the model in {workdir}"):
    algorithm = build(resolve(config, workdir, training=False), mesh)
    step, params = restore(workdir, algorithm, mesh)
  params |= algorithm.frozen
  return Trained(workdir, config, mesh, algorithm, params, step)


def restore(
  workdir: str, algorithm: algorithm_lib.Algorithm, mesh: Mesh
) -> tuple[int, dict[str, Any]]:
  """Reads (step, trained weights by network for predict functions).

  They are the moving average of the weights if the algorithm keeps one.
  """
  name = algorithm.facts.network
  abstract = jax.eval_shape(algorithm.init, jax.random.key(0))
  kind = "ema" if name in abstract.ema else "params"
  part = {kind: {name: getattr(abstract, kind)[name]}}
  step, restored = weights_lib.restore_newest(
    workdir, part, mesh, algorithm.sharding_rules
  )
  return step, restored[kind]


def resolve(
  config: ml_collections.ConfigDict, workdir: str, training: bool
) -> ml_collections.ConfigDict:
  """Returns the config to build from, given what its workdir holds already.

  A generator takes its copy of the tokenizer once there is one. A resumed run
  does not read the sources of its first weights again, and without `training`
  nothing is read that only training needs: those files may be gone by then.
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
  """Copies a config with other values, by names like "loss.gan"."""
  config = ml_collections.ConfigDict(config.to_dict())
  config.update_from_flattened_dict(fields)
  return config


def find_algorithm(
  config: ml_collections.ConfigDict,
) -> type[algorithm_lib.Algorithm]:
  """Looks up config.algorithm; raises ValueError if ALGORITHMS lacks it."""
  if config.algorithm not in ALGORITHMS:
    raise ValueError(
      f"algorithm={config.algorithm!r} must be one of {sorted(ALGORITHMS)}"
    )
  return ALGORITHMS[config.algorithm]


def build(
  config: ml_collections.ConfigDict, mesh: Mesh, abstract: bool = False
) -> algorithm_lib.Algorithm:
  """Builds the config's algorithm, as `Algorithm.build` says."""
  return find_algorithm(config).build(config, mesh, abstract)
