"""Checks of a config before anything is written or compiled."""

import logging
import shutil

import jax
from jax.sharding import Mesh
import ml_collections

from configs import fields
from evaluation.protocols import configured
from input_pipeline import pipeline
from input_pipeline import summary
from input_pipeline import unread
from magvit import algorithm as algorithm_lib
from magvit import mesh as mesh_lib
from magvit import trained as trained_lib
from magvit.generators import tasks as tasks_lib
from magvit.training import skips
from magvit.training import trace as trace_lib
from magvit.workdir import weights as weights_lib
from models import network
from storage import stores

log = logging.getLogger(__name__)


def check_config(config: ml_collections.ConfigDict, mesh: Mesh) -> None:
  """Raises ValueError for numbers, or fields of the loop, that cannot work."""
  fields.check(config)
  facts = trained_lib.find_algorithm(config).facts
  skips.check(config, facts)
  trace_lib.check_steps(config.profile_steps, config.num_steps)
  mesh_lib.check_batch_size(
    config.batch_size, mesh, microbatches=config.microbatches
  )
  if config.dataset.joint_images:
    mesh_lib.check_batch_size(
      config.dataset.joint_images,
      mesh,
      "dataset.joint_images",
      config.microbatches,
    )
  classes = len(pipeline.class_names(config.dataset))
  known = config[facts.section].get("num_classes", 0)
  if classes > known > 1:
    raise ValueError(
      f"{facts.section}.num_classes={known} must be at least the {classes}"
      f" classes of dataset.name={config.dataset.name!r}"
    )
  _check_protocols(config)


def check_data(
  config: ml_collections.ConfigDict, workdir: str, training: bool
) -> None:
  """Checks and logs the data that a run reads, from the first clip on.

  Raises:
    ValueError: data that are missing, are not read or cannot be; fewer held-out
      clips than an evaluation takes.
  """
  dataset = config.dataset
  if training:
    _check_read(dataset, workdir)
  train = pipeline.source(dataset, "train") if training else None
  held_out = pipeline.source(dataset, "held_out", training=False)
  if dataset.eval_examples > len(held_out):
    raise ValueError(
      f"dataset.eval_examples={dataset.eval_examples} is more than the"
      f" {len(held_out)} held-out clips of dataset.path={dataset.path}: lower"
      f" it (--config.dataset.eval_examples={len(held_out)})"
    )
  if train is not None:
    summary.check_first(dataset, train, "train")
  summary.check_first(dataset, held_out, "held_out")
  for line in summary.lines(dataset, train, held_out):
    log.info("%s", line)
  count = 0 if train is None else pipeline.training_count(train, dataset)
  if train is not None and count < config.batch_size:
    log.warning(
      "WARNING: batch_size=%d is more than the %d training clips, so that a"
      " step sees some of them more than once",
      *(config.batch_size, count),
    )


def check_room(algorithm: algorithm_lib.Algorithm, workdir: str) -> None:
  """Raises ValueError if the disk of a workdir has no room for a checkpoint."""
  state = jax.eval_shape(algorithm.init, jax.random.key(0))
  parts = (state.params, state.opt_state, state.ema, state.extras)
  saved = 4 * sum(map(network.count, parts))  # nearly all of it is float32
  if stores.is_url(workdir):
    return
  free = shutil.disk_usage(workdir).free
  if free < saved:
    raise ValueError(
      f"workdir={workdir} has {free / 1e9:.1f} GB free, and a checkpoint takes"
      f" about {saved / 1e9:.1f} GB: make room, or name a workdir on another"
      " disk"
    )


def _check_read(dataset: ml_collections.ConfigDict, workdir: str) -> None:
  """Refuses fields that nothing reads; warns where a run has begun so."""
  try:
    unread.check(dataset)
  except ValueError as error:
    # The run would be another experiment without the field.
    if not weights_lib.is_resumed(workdir):
      raise
    log.warning("WARNING: %s", error)


def _check_protocols(config: ml_collections.ConfigDict) -> None:
  """Checks the protocols of evaluations, as far as no model is needed."""
  tasks = ()
  if "tasks" in config:
    tasks = tuple(tasks_lib.task_names(config))
  configured.check(config, tasks)
