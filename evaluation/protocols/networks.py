"""Features of images and clips by the networks that published metrics use.

`load` gives an `Extractor`: uint8 pixels in, features by name out. The weights
are the user's; the metrics are built on it in the files beside this one.
"""

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec
import numpy as np

from evaluation import values
from models import network
from models.features import networks as feature_networks
from models.weights import readers
from models.weights import safetensors_file
from storage import stores


class Extractor:
  """Features of batches, computed on all given devices.

  Attributes:
    name: a key of `models.features.networks.NETWORKS`.
    weights_sha256: checksum of the weights' file, in hexadecimal; results
      record it.
    dims: width of each feature, by name.
  """

  def __init__(
    self,
    name: str,
    net: network.Network,
    params: Any,
    weights_sha256: str,
    devices: Sequence[jax.Device],
    variant: str = "",
  ):
    self.name = name
    self.weights_sha256 = weights_sha256
    self.dims = dict(feature_networks.NETWORKS[name].dims)
    self._ndim = feature_networks.NETWORKS[name].ndim
    self._num_devices = len(devices)
    self._largest = {}  # largest batch so far, by the shape of one example
    mesh = jax.sharding.Mesh(np.asarray(devices), ("data",))
    self._batch_sharding = NamedSharding(mesh, PartitionSpec("data"))
    replicated = NamedSharding(mesh, PartitionSpec())
    self._params = jax.device_put(params, replicated)

    def compute(params, batch):
      features = net(params, batch, method=variant or "__call__")
      return {k: features[k] for k in self.dims}

    def compare(params, target, output):
      with jax.default_matmul_precision("highest"):
        frames = (x.astype(np.float32) / 255 for x in (target, output))
        return {"distance": net(params, *frames, method="distance")}

    sharded = lambda function, batches: jax.jit(
      function,
      in_shardings=(replicated, *[self._batch_sharding] * batches),
      out_shardings=self._batch_sharding,
    )
    self._compute, self._compare = sharded(compute, 1), sharded(compare, 2)

  def __call__(self, batch: np.ndarray) -> dict[str, np.ndarray]:
    """Features of any number of examples: float32 (B, dim) by name.

    A batch is padded to a multiple of the devices, and to the largest batch so
    far of such examples, and its features are cropped back: the short last
    batch of a set needs no second compilation.

    Args:
      batch: uint8 RGB, images (B, H, W, 3) or clips (B, T, H, W, 3), as the
        network takes them, with any H and W.

    Raises:
      ValueError: a batch of another dtype or shape, or features that are not
        finite.
    """
    if batch.dtype != np.uint8:
      raise ValueError(
        f"{self.name} takes pixels as uint8 in [0, 255], not {batch.dtype}"
      )
    if batch.ndim != self._ndim or batch.shape[-1] != 3 or not len(batch):
      expected = ("", "T, ")[self._ndim - 4]
      raise ValueError(
        f"{self.name} takes batches (B, {expected}H, W, 3), got {batch.shape}"
      )
    return self._run(self._compute, batch)

  def distance(
    self, target_BHWC: np.ndarray, output_BHWC: np.ndarray
  ) -> np.ndarray:
    """Perceptual distances of images, float32 (B,).

    Only the networks of models/features/perceptual.py have one, at the images'
    own size.

    Args:
      target_BHWC: uint8 RGB.
      output_BHWC: uint8 RGB of the same shape.

    Raises:
      ValueError: batches of another dtype or shape, or distances that are not
        finite.
    """
    for batch in (target_BHWC, output_BHWC):
      if batch.dtype != np.uint8 or batch.shape != target_BHWC.shape:
        raise ValueError(
          f"{self.name} compares uint8 images of one shape, and got"
          f" {target_BHWC.dtype} {target_BHWC.shape} and {output_BHWC.dtype}"
          f" {output_BHWC.shape}"
        )
    return self._run(self._compare, target_BHWC, output_BHWC)["distance"]

  def _run(
    self, function: Callable[..., Any], *batches: np.ndarray
  ) -> dict[str, np.ndarray]:
    """Rows by name of a compiled function of padded batches."""
    example, count = batches[0].shape[1:], len(batches[0])
    size = max(count, self._largest.get(example, 0))
    size += -size % self._num_devices
    self._largest[example] = size
    placed = []
    for batch in batches:
      padded = np.zeros((size, *example), np.uint8)
      padded[:count] = batch
      placed.append(jax.device_put(padded, self._batch_sharding))
    outputs = function(self._params, *placed)
    rows = {k: np.asarray(x)[:count] for k, x in outputs.items()}
    for name, row in rows.items():
      values.check_range(f"{self.name}'s {name}", row)
    return rows


def load(
  name: str,
  weights_path: str,
  devices: Sequence[jax.Device] | None = None,
  variant: str = "",
) -> Extractor:
  """Loads a feature network, with weights that `models.weights.convert` wrote.

  Args:
    name: a key of `models.features.networks.NETWORKS`.
    weights_path: the .safetensors file.
    devices: devices that share each batch; by default those of this process.
    variant: one of the network's variants; "": its usual call.

  Raises:
    ValueError: an unknown name or variant, no file, or another network's
      weights.
  """
  known = feature_networks.NETWORKS
  if name not in known:
    raise ValueError(f"features {name!r} must be one of {sorted(known)}")
  if variant and variant not in known[name].variants:
    raise ValueError(
      f"variant={variant!r} of {name!r} must be '' or one of"
      f" {sorted(known[name].variants)}"
    )
  if not weights_path or not stores.is_file(weights_path):
    raise ValueError(
      f"{weights_path!r} is no file, and the features of {name!r} need their"
      f" weights: {known[name].how_to_get(name)}"
    )
  net, abstract = feature_networks.define(name)
  params = safetensors_file.load(weights_path, name, abstract)
  return Extractor(
    name,
    net,
    params,
    readers.sha256(weights_path),
    jax.local_devices() if devices is None else devices,
    variant,
  )
