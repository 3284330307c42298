"""Published weights of Inception, I3D and C3D under our names.

A source is recognised by its names; each has one rule from ours to its own.
`models/weights/convert.py` is the command.
"""

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
import functools
import re
from typing import Any

import numpy as np

from models.features import inception
from models.features import networks as feature_networks
from models.weights import safetensors_file

_IGNORED = re.compile(r".*\.num_batches_tracked")  # a counter of training


@dataclasses.dataclass(frozen=True)
class Source:
  """How a published file names and lays out the tensors of a network."""

  name: Callable[[str], str]  # of ours, its own
  torch_layout: bool = False  # outputs and inputs first; else as ours
  wide_norms: bool = False  # batch norms of shape (1, 1, 1, 1, C)
  # Scales of batch norms, by the names of their shifts: all 1, for I3D's have
  # none.
  unit_scales: bool = False

  def shape(self, ours: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    if self.torch_layout and ours == "x_offset":  # a clip: channels first
      return (shape[-1], *shape[:-1])
    if self.torch_layout and len(shape) > 1:
      return (*shape[:-3:-1], *shape[:-2])
    if self.wide_norms and len(shape) == 1 and not ours.startswith("logits"):
      return (1, 1, 1, 1, *shape)
    return shape

  def to_ours(
    self, ours: str, tensor: np.ndarray, shape: tuple[int, ...]
  ) -> np.ndarray:
    if self.torch_layout and ours == "x_offset":
      tensor = np.moveaxis(tensor, 0, -1)
    elif self.torch_layout and tensor.ndim > 1:
      tensor = np.moveaxis(tensor, (1, 0), (-2, -1))
    return np.ascontiguousarray(tensor.reshape(shape), np.float32)


def to_ours(
  network: str, given: Mapping[str, np.ndarray], source: str
) -> tuple[dict[str, np.ndarray], str]:
  """A published file's tensors under our names, and which kind of file it is.

  Args:
    network: "inception", "i3d" or "c3d".
    given: its tensors by name.
    source: names the file in errors.

  Raises:
    ValueError: a tensor is missing, unknown, mis-shaped or not what it should
      be; it is named.
  """
  shapes = our_shapes(network)
  used = {k: v for k, v in given.items() if not _IGNORED.fullmatch(k)}
  names = {
    kind: {ours: x.name(ours) for ours in shapes}
    for kind, x in SOURCES[network].items()
  }
  shared = {k: len(used.keys() & set(v.values())) for k, v in names.items()}
  kind = max(shared, key=shared.get)
  if not shared[kind]:
    raise ValueError(
      f"{source} has no tensor of {network}: it must be one of the kinds"
      f" {sorted(names)}; it has {sorted(used)[:3]} and {len(used)} in all"
    )
  rule, names = SOURCES[network][kind], names[kind]
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


def _rename(ours: str, unit: Callable[[str], str], leaves: Mapping[str, str]):
  """Renames a layer by `unit` and its tensor by `leaves`."""
  layer, leaf = ours.rsplit(".", 1)
  return unit(layer) + leaves[leaf]


def _torch_leaves(conv: str, norm: str) -> dict[str, str]:
  return {
    "kernel": f"{conv}.weight",
    "scale": f"{norm}.weight",
    "bias": f"{norm}.bias",
    "mean": f"{norm}.running_mean",
    "variance": f"{norm}.running_var",
  }


def _inception_torch(ours: str) -> str:
  if ours.startswith("fc."):
    return ours.replace("kernel", "weight")
  return _rename(ours, lambda x: x, _torch_leaves(".conv", ".bn"))


def _inception_tensorflow(ours: str) -> str:
  if ours.startswith("fc."):
    return {"fc.kernel": "softmax/weights", "fc.bias": "softmax/biases"}[ours]
  leaves = {
    "kernel": "/conv2d_params",
    "scale": "/batchnorm/gamma",
    "bias": "/batchnorm/beta",
    "mean": "/batchnorm/moving_mean",
    "variance": "/batchnorm/moving_variance",
  }
  return _rename(ours, lambda x: _tensorflow_scopes()[x], leaves)


@functools.cache
def _tensorflow_scopes() -> dict[str, str]:
  """Of each layer of Inception, its scope in the graph of 2015.

  Layers, blocks and branches are counted ("conv", "conv_1"); a branch of a
  single convolution, not after a pool, has no scope of its own.
  """
  numbered = lambda name, i: f"{name}_{i}" if i else name
  scopes = {
    name: numbered("conv", i) for i, (name, *_) in enumerate(inception.STEM)
  }
  for i, (block, (_, _, branches)) in enumerate(inception.BLOCKS.items()):
    towers = 0
    for branch, chain in branches.items():
      scope = numbered("mixed", i)
      if len(chain) > 1 or branch == "branch_pool":
        scope += f"/{numbered('tower', towers)}"
        towers += 1
      for j, (names, _) in enumerate(inception.named_layers(branch, chain)):
        if len(names) > 1:  # side by side
          for k, name in enumerate(names):
            scopes[f"{block}.{name}"] = f"{scope}/mixed/{numbered('conv', k)}"
        else:
          scopes[f"{block}.{names[0]}"] = f"{scope}/{numbered('conv', j)}"
  return scopes


# Branches of I3D's blocks as TensorFlow and as hassony2's port names them.
_I3D_BRANCHES = {
  "b0": ("Branch_0/Conv3d_0a_1x1", "branch_0"),
  "b1a": ("Branch_1/Conv3d_0a_1x1", "branch_1.0"),
  "b1b": ("Branch_1/Conv3d_0b_3x3", "branch_1.1"),
  "b2a": ("Branch_2/Conv3d_0a_1x1", "branch_2.0"),
  "b2b": ("Branch_2/Conv3d_0b_3x3", "branch_2.1"),
  "b3b": ("Branch_3/Conv3d_0b_1x1", "branch_3.1"),
}


def _i3d_torch(ours: str) -> str:
  if ours.startswith("logits."):
    return f"logits.conv3d.{_WEIGHT_OR_BIAS[ours.split('.')[1]]}"
  return _rename(ours, lambda x: x, _torch_leaves(".conv3d", ".bn"))


def _i3d_i3dpt(ours: str) -> str:
  if ours.startswith("logits."):
    return f"conv3d_0c_1x1.conv3d.{_WEIGHT_OR_BIAS[ours.split('.')[1]]}"

  def unit(layer):
    block, *branch = layer.split(".")
    return ".".join([block.lower(), *(_I3D_BRANCHES[x][1] for x in branch)])

  return _rename(ours, unit, _torch_leaves(".conv3d", ".batch3d"))


def _i3d_tensorflow_hub(ours: str) -> str:
  name = _i3d_tensorflow(ours)
  # A slip of the original, in this one block.
  name = name.replace(
    "Mixed_5b/Branch_2/Conv3d_0b_3x3", "Mixed_5b/Branch_2/Conv3d_0a_3x3"
  )
  return f"RGB/inception_i3d/{name}"


def _i3d_magvit(ours: str) -> str:
  name = _i3d_tensorflow(ours)
  name = re.sub(r"(Branch_\d|Logits)/", r"\1.", name)
  return re.sub(r"/w$", "/kernel", re.sub(r"/b$", "/bias", name))


def _i3d_tensorflow(ours: str) -> str:
  if ours.startswith("logits."):
    leaf = {"kernel": "w", "bias": "b"}[ours.split(".")[1]]
    return f"Logits/Conv3d_0c_1x1/conv_3d/{leaf}"

  def unit(layer):
    block, *branch = layer.split(".")
    return "/".join([block, *(_I3D_BRANCHES[x][0] for x in branch)])

  leaves = {
    "kernel": "/conv_3d/w",
    "bias": "/batch_norm/beta",
    "mean": "/batch_norm/moving_mean",
    "variance": "/batch_norm/moving_variance",
  }
  return _rename(ours, unit, leaves)


_WEIGHT_OR_BIAS = {"kernel": "weight", "bias": "bias"}

# By network, the kinds of files. Those marked * have not been seen: the names
# are inferred, and a file that has others is refused.
SOURCES = {
  "inception": {
    "torch": Source(_inception_torch, torch_layout=True),
    "tensorflow": Source(_inception_tensorflow),
  },
  "i3d": {
    "torch": Source(_i3d_torch, torch_layout=True, unit_scales=True),
    "i3dpt": Source(_i3d_i3dpt, torch_layout=True, unit_scales=True),  # *
    "tensorflow_hub": Source(_i3d_tensorflow_hub, wide_norms=True),
    "magvit": Source(_i3d_magvit),
  },
  "c3d": {
    "torch": Source(  # *
      lambda ours: re.sub(r"kernel$", "weight", ours), torch_layout=True
    ),
    "magvit": Source(lambda ours: ours.replace(".", "/")),
  },
}


def their_shapes(network: str, kind: str) -> dict[str, Any]:
  """Names and shapes of a published file, without its unit scales."""
  rule = SOURCES[network][kind]
  return {
    rule.name(ours): rule.shape(ours, shape)
    for ours, shape in our_shapes(network).items()
  }
