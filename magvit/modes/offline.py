"""The trained model that a mode works on, with the checks of training."""

import ml_collections

from magvit import mesh as mesh_lib
from magvit import trained as trained_lib
from magvit.training import check


def open_model(
  workdir: str, config: ml_collections.ConfigDict
) -> trained_lib.Trained:
  """Opens the newest checkpoint of a workdir, on the mesh of the config.

  Raises:
    ValueError: nothing was trained there, or settings that cannot work.
  """
  mesh = mesh_lib.make_mesh(config.mesh)
  check.check_config(config, mesh)
  return trained_lib.open_trained(workdir, config, mesh)
