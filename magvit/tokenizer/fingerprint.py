"""A number that names a tokenizer: with equal ones a clip has equal tokens."""

from collections.abc import Sequence
import json
from typing import Any

import jax
import ml_collections
import numpy as np

from magvit import mesh as mesh_lib
from magvit.tokenizer import describe
from magvit.workdir import exports
from magvit.workdir import folder as workdir_lib
from models.weights import safetensors_file


def fingerprint(
  config: ml_collections.ConfigDict,
  params: Any,
  sections: Sequence[str] = describe.DEFINING,
) -> str:
  """The sha256, in hexadecimal, of config sections and averaged weights.

  It covers the name, shape, type and bytes of every weight, and is the same in
  every process and on every machine.

  Args:
    config: the tokenizer's, as its workdir stores it.
    params: the averaged weights, all on devices of this process.
    sections: all that decide, beside the weights, what the network computes.
  """
  fields = json.loads(config.to_json())
  leaves = {
    jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
    for path, leaf in jax.tree_util.tree_leaves_with_path(params)
  }
  settings = exports.named_settings(fields, sections)
  return safetensors_file.digest(settings, leaves)


def read_fingerprint(workdir: str) -> str:
  """The fingerprint of a workdir's tokenizer; ValueError if it has none."""
  _, params = describe.restore_tokenizer(workdir, mesh_lib.local_mesh())
  return fingerprint(workdir_lib.read_config(workdir), params)
