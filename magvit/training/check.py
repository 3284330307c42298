"""Checks of a config before anything is written or compiled."""

from jax.sharding import Mesh
import ml_collections

from configs import fields
from input_pipeline import pipeline
from magvit import mesh as mesh_lib
from magvit import trained as trained_lib
from magvit.training import trace as trace_lib


def check_config(config: ml_collections.ConfigDict, mesh: Mesh) -> None:
  """Raises ValueError for numbers, or fields of the loop, that cannot work."""
  fields.check(config)
  section = trained_lib.find_algorithm(config).facts.section
  trace_lib.check_steps(config.profile_steps)
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
  pipeline.source(config.dataset, "train")
  classes = len(pipeline.class_names(config.dataset))
  known = config[section].get("num_classes", 0)
  if classes > known > 1:
    raise ValueError(
      f"{section}.num_classes={known} must be at least the {classes} classes"
      f" of dataset.name={config.dataset.name!r}"
    )
