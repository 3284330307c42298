"""--mode=import: puts public weights into a workdir that other modes read."""

from collections.abc import Callable
from collections.abc import Mapping
import logging
import os
from typing import Any

import jax
import ml_collections
import numpy as np

from configs import tokenizer_image
from configs import tokenizer_video
from magvit import mesh as mesh_lib
from magvit.modes import table
from magvit.tokenizer import describe
from magvit.tokenizer import fingerprint
from magvit.workdir import exports
from magvit.workdir import folder as workdir_lib
from magvit.workdir import weights as weights_lib
from models import network
from models.weights import open_magvit2
from models.weights import praxis
from models.weights import readers
from models.weights import safetensors_file
from storage import files
from storage import lock
from storage import processes
from storage import stores

log = logging.getLogger(__name__)

# Readers of other projects' tensors: whether they are a video tokenizer's, the
# config fields that their shapes tell, and the tensors under our names.
LAYOUTS = {"open_magvit2": open_magvit2, "praxis": praxis}
_CONFIGS = {
  "image": tokenizer_image.get_config,
  "video": tokenizer_video.get_config,
}


def run(
  options: table.Import, config: ml_collections.ConfigDict | None, workdir: str
) -> None:
  del config
  import_weights(options.source, options.input, _CONFIGS, workdir)


def import_weights(
  source: str | None,
  path: str | None,
  get_config: Mapping[str, Callable[[str], ml_collections.ConfigDict]],
  workdir: str,
) -> None:
  """Writes config.json, a checkpoint of step 0 and imported.json.

  Args:
    source: project that the weights come from, one of table.SOURCES.
    path: a .ckpt, .pth, .safetensors or .npz file; the folder of an export of
      ours.
    get_config: functions for "image" and for "video": source -> the config of
      its tokenizers, in which fields that the file's shapes tell are then set.
      An export of ours brings its config.
    workdir: a new or empty directory.

  Raises:
    ValueError: a file that cannot be read, a tensor that is missing, unknown or
      mis-shaped, or a workdir in use.
  """
  if source not in table.SOURCES:
    raise ValueError(
      f"--mode=import needs --source, one of {list(table.SOURCES)}"
    )
  if path is None:
    kind = "FOLDER" if source == "export" else "FILE"
    raise ValueError(f"--mode=import needs --input={kind}")
  label = f"workdir={workdir}"
  with processes.one_writer(workdir, "--mode=import", label=label):
    _import(source, path, get_config, workdir)


def _import(source: str, path: str, get_config, workdir: str) -> None:
  """Imports into a folder of this process."""
  if any(not lock.is_lock(name) for name in stores.names(workdir)):
    raise ValueError(
      f"workdir={workdir} is not empty: import into a new directory"
    )
  if source == "export":
    weights = os.path.join(path, exports.WEIGHTS)
    config, params, which = _read_export(path)
  else:
    weights = path
    tensors = readers.read(path)
    is_video = _named(path, LAYOUTS[source].is_video, tensors)
    kind = "video" if is_video else "image"
    config = get_config[kind](source)
    _, params, which = convert(source, tensors, config, path)
    config.loss.perceptual_network = "off"  # nothing is trained
    config.name = f"{kind} tokenizer of {os.path.basename(path)}"
  workdir_lib.check_workdir(workdir, config)
  weights_lib.save_average(workdir, 0, params)
  origin = {
    "source": source,
    "file": os.path.basename(weights),
    "sha256": readers.sha256(weights),
    "weights": which,
    "ids": describe.id_convention(config),
    "fingerprint": fingerprint.fingerprint(config, params),
  }
  files.write_json(os.path.join(workdir, workdir_lib.IMPORTED), origin)
  # The config comes last: a workdir that has one is complete.
  workdir_lib.write_config(workdir, config)
  log.info(
    "imported %d tensors (%s weights) of %s into %s",
    *(len(jax.tree.leaves(params)), which, path, workdir),
  )


def _read_export(folder: str):
  """Reads (config, weights, "ema") of a tokenizer that --mode=export wrote."""
  config = workdir_lib.read_config(folder)
  if not describe.is_tokenizer(config) or not exports.is_export(folder):
    raise ValueError(
      f"--input={folder} is not the export of a tokenizer: name the folder of"
      " one (a generator's holds it as tokenizer/). Other modes need no"
      " import: they read an export as --workdir"
    )
  _, params = describe.restore_tokenizer(folder, mesh_lib.local_mesh())
  return config, params, "ema"


def convert(
  source: str,
  tensors: Mapping[str, np.ndarray],
  config: ml_collections.ConfigDict,
  path: str,
) -> tuple[network.Network, Any, str]:
  """Makes (network, weights, "ema" or "raw") of a state dict.

  Sets the fields of `config` that the shapes tell. `path` is for errors.

  Raises:
    ValueError: a tensor is missing, unknown or mis-shaped; it is named.
  """
  layout = LAYOUTS[source]
  for section, fields in _named(path, layout.settings, tensors).items():
    config[section].update(fields)
  tokenizer = describe.define_tokenizer(config)
  abstract = jax.eval_shape(tokenizer.init, jax.random.key(0))
  arrays, which = layout.to_ours(tensors, abstract, path)
  return tokenizer, safetensors_file.as_tree(arrays, abstract), which


def _named(path: str, function, tensors):
  """Calls function(tensors) so that errors name the file."""
  try:
    return function(tensors)
  except ValueError as error:
    raise ValueError(f"{path}: {error}") from error
