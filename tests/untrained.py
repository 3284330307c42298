"""Untrained models on disk, as training and conversion leave them."""

import jax
import ml_collections
import numpy as np

from input_pipeline import pipeline
from magvit import algorithm as algorithm_lib
from magvit import mesh as mesh_lib
from magvit import trained as trained_lib
from magvit.training import checkpoints as checkpoints_lib
from magvit.workdir import folder as workdir_lib
from models.weights import safetensors_file
from tests import tiny


def write(workdir: str, config: ml_collections.ConfigDict) -> None:
  """Saves the first state of a config's model as that of step 1."""
  mesh = mesh_lib.make_mesh(config.mesh)
  resolved = trained_lib.resolve(config, workdir, training=True)
  algorithm = trained_lib.build(resolved, mesh).measured(mesh)
  state = algorithm_lib.create(algorithm, mesh, jax.random.key(0))
  workdir_lib.write_config(workdir, config)
  workdir_lib.keep_tokenizer(config, workdir, algorithm.frozen)
  checkpoints = checkpoints_lib.Checkpoints(workdir, config)
  data = pipeline.train_batches(config.dataset, config.batch_size)
  checkpoints.save(1, state, data)
  checkpoints.close()


def write_weights(path: str, name: str, define) -> str:
  """Writes drawn weights of a network; `define` gives the shapes.

  Variances and LPIPS's heads have to be positive, and are.
  """
  _, abstract = define(name)
  drawn = safetensors_file.by_name(tiny.draw(abstract))
  tensors = {
    k: np.abs(v) if "var" in k or "heads" in k else np.asarray(v)
    for k, v in drawn.items()
  }
  safetensors_file.save(path, name, tensors, {})
  return path
