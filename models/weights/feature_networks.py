"""Published weights of the feature networks under our names.

The names of its tensors tell which kind a file is; the network's own module has
the rules of each kind. `models/weights/convert.py` is the command.
"""

from collections.abc import Mapping
import re
from typing import Any

import numpy as np

from models.features import networks as feature_networks
from models.weights import safetensors_file

_IGNORED = re.compile(r".*\.num_batches_tracked")  # counters of training


def to_ours(
  network: str, given: Mapping[str, np.ndarray], source: str
) -> tuple[dict[str, np.ndarray], str]:
  """Names a published file's tensors as ours, and says which kind it is.

  Args:
    network: a key of `models.features.networks.NETWORKS`.
    given: tensors of the file by name.
    source: names the file in errors.

  Raises:
    ValueError: a tensor is missing, unknown, mis-shaped or not what it should
      be; it is named.
  """
  shapes = our_shapes(network)
  sources = feature_networks.NETWORKS[network].sources
  used = {k: v for k, v in given.items() if not _IGNORED.fullmatch(k)}
  names = {
    kind: {ours: x.name(ours) for ours in shapes} for kind, x in sources.items()
  }
  shared = {k: len(used.keys() & set(v.values())) for k, v in names.items()}
  kind = max(shared, key=shared.__getitem__)
  if not shared[kind]:
    raise ValueError(
      f"{source} has no tensor of {network}: it must be a file of one of the"
      f" kinds {sorted(names)}; its {len(used)} tensors begin with"
      f" {sorted(used)[:3]}"
    )
  rule, names = sources[kind], names[kind]
  expected = {names[k]: rule.shape(k, shape) for k, shape in shapes.items()}
  scales = {}
  if rule.unit_scales:
    scales = {
      re.sub(r"bias$", "weight", names[k]): shape
      for k, shape in shapes.items()
      if k.endswith(".bias") and not k.startswith("logits")
    }
  safetensors_file.check_tensors(source, used, expected | scales)
  for name in scales:
    if not np.all(used[name] == 1.0):
      raise ValueError(
        f"{source}: tensor {name!r} is not all ones: it is no I3D of TensorFlow"
        " Hub, whose batch norms have no scale"
      )
  tensors = {
    k: rule.to_ours(k, used[names[k]], shape) for k, shape in shapes.items()
  }
  return tensors, kind


def our_shapes(network: str) -> dict[str, tuple[int, ...]]:
  _, abstract = feature_networks.define(network)
  return {k: x.shape for k, x in safetensors_file.by_name(abstract).items()}


def their_shapes(network: str, kind: str) -> dict[str, Any]:
  """Names and shapes of a published file, without its unit scales."""
  rule = feature_networks.NETWORKS[network].sources[kind]
  return {
    rule.name(ours): rule.shape(ours, shape)
    for ours, shape in our_shapes(network).items()
  }
