"""--mode=import: public weights into a workdir that other modes read."""

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
import logging
import os
from typing import Any

import jax
import ml_collections
import numpy as np

from configs import tokenizer_image
from configs import tokenizer_video
from magvit import command_line
from magvit import mesh as mesh_lib
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

log = logging.getLogger(__name__)

# Each tells of named tensors whether they are a video tokenizer's, the config
# fields in their shapes, and the same tensors under our names.
LAYOUTS = {"open_magvit2": open_magvit2, "praxis": praxis}
SOURCES = (*LAYOUTS, "export")


_CONFIGS = {
  "image": tokenizer_image.get_config,
  "video": tokenizer_video.get_config,
}


@dataclasses.dataclass(frozen=True)
class Options:
  source: str | None = command_line.option(
    "Project whose weights the file holds", choices=SOURCES
  )
  input: str | None = command_line.option(
    "File of weights to read; the folder of an export"
  )


def run(
  options: Options, config: ml_collections.ConfigDict | None, workdir: str
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
    source: whose weights, one of SOURCES.
    path: a .ckpt or .pth file (needs torch), .safetensors or .npz; of our own
      exports the folder.
    get_config: of "image" and of "video", source -> the config of its
      tokenizers; what the file's shapes tell is set in it. Our own exports
      bring theirs.
    workdir: a new or empty directory.

  Raises:
    ValueError: a file that cannot be read, a tensor that is missing, unknown or
      mis-shaped, or a workdir in use.
  """
  if source not in SOURCES:
    raise ValueError(f"--mode=import needs --source, one of {list(SOURCES)}")
  if path is None:
    what = "FOLDER" if source == "export" else "FILE"
    raise ValueError(f"--mode=import needs --input={what}")
  if os.path.isdir(workdir) and os.listdir(workdir):
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
  # Last: a workdir with a config is a complete one.
  workdir_lib.write_config(workdir, config)
  log.info(
    "imported %d tensors (%s weights) of %s into %s",
    *(len(jax.tree.leaves(params)), which, path, workdir),
  )


def _read_export(folder: str):
  """(config, weights, "ema") of a tokenizer that --mode=export wrote."""
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
  """(network, weights, "ema" or "raw") of a state dict.

  Sets in `config` what the shapes tell; `path` names the file in errors.

  Raises:
    ValueError: a tensor is missing, unknown or mis-shaped; it is named.
  """
  layout = LAYOUTS[source]
  for section, fields in _named(path, layout.settings, tensors).items():
    config[section].update(fields)
  generator = describe.define_tokenizer(config)
  abstract = jax.eval_shape(generator.init, jax.random.key(0))
  arrays, which = layout.to_ours(tensors, abstract, path)
  return generator, safetensors_file.as_tree(arrays, abstract), which


def _named(path: str, function, tensors):
  """function(tensors); its errors name the file."""
  try:
    return function(tensors)
  except ValueError as error:
    raise ValueError(f"{path}: {error}") from error
