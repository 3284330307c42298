"""Untrained models on disk, as training and conversion leave them."""

import jax
import ml_collections
import numpy as np

from input_pipeline import pipeline
from magvit import checkpoint
from magvit import mesh as mesh_lib
from magvit import state as state_lib
from magvit import train
from magvit import training_checkpoints
from models import pretrained
from tests import tiny


def write(workdir: str, config: ml_collections.ConfigDict) -> None:
  """Saves the first state of a config's model, as if of step 1."""
  mesh = mesh_lib.make_mesh(config.mesh)
  algorithm = train.build(config, workdir, mesh)
  state = state_lib.create(algorithm, mesh, jax.random.key(0))
  checkpoint.write_config(workdir, config)
  checkpoint.keep_tokenizer(config, workdir, algorithm.frozen)
  checkpoints = training_checkpoints.Checkpoints(workdir, config)
  data = pipeline.train_batches(config.dataset, config.batch_size)
  checkpoints.save(1, state, data)
  checkpoints.close()


def write_weights(path: str, name: str, define) -> str:
  """A file of drawn weights of a network; `define` gives its shapes.

  What has to be positive is: variances, and LPIPS's heads.
  """
  _, abstract = define(name)
  drawn = pretrained.by_name(tiny.draw(abstract))
  tensors = {
    k: np.abs(v) if "var" in k or "heads" in k else np.asarray(v)
    for k, v in drawn.items()
  }
  pretrained.save(path, name, tensors, {})
  return path
