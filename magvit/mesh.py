"""The device mesh and where each array lives on it.

Two axes, both of Auto type: `data` splits the batch; `fsdp` splits the batch
and the parameters. Programs are written for the global batch, and XLA inserts
the collectives, so every mean in a loss is a mean over all devices.
"""

from collections.abc import Sequence
import math
from typing import Any

import jax
from jax.sharding import AxisType
from jax.sharding import Mesh
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec
import ml_collections
import numpy as np

_SMALLEST_SHARDED = 2**16  # scalars; splitting less costs more than it saves


def make_mesh(
  config: ml_collections.ConfigDict,
  devices: Sequence[jax.Device] | None = None,
) -> Mesh:
  """Mesh of `config.data` x `config.fsdp` devices (all there are by default).

  Raises:
    ValueError: the sizes do not multiply to the number of devices.
  """
  devices = jax.devices() if devices is None else devices
  data, fsdp = config.data, config.fsdp
  if data == -1 and fsdp > 0:
    data = len(devices) // fsdp
  if data * fsdp != len(devices):
    raise ValueError(
      f"mesh.data={config.data} x mesh.fsdp={fsdp} must use all"
      f" {len(devices)} devices; with mesh.data=-1, mesh.fsdp can be any"
      f" divisor of {len(devices)}"
    )
  return Mesh(
    np.asarray(devices).reshape(data, fsdp),
    ("data", "fsdp"),
    axis_types=(AxisType.Auto, AxisType.Auto),
  )


def local_mesh() -> Mesh:
  """The devices of this process alone, all along the batch."""
  config = ml_collections.ConfigDict({"data": -1, "fsdp": 1})
  return make_mesh(config, jax.local_devices())


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """The leading dimension over every device."""
  return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def replicated(mesh: Mesh) -> NamedSharding:
  return NamedSharding(mesh, PartitionSpec())


def state_shardings(state: Any, mesh: Mesh) -> Any:
  """A sharding per leaf: large arrays are split over `fsdp`.

  The split dimension is the largest one that the axis divides, the last among
  equals, so optimizer moments and averages lie like their parameters.
  """
  fsdp = mesh.shape["fsdp"]

  def sharding(leaf):
    dims = [d for d, size in enumerate(leaf.shape) if size % fsdp == 0]
    if fsdp == 1 or not dims or math.prod(leaf.shape) < _SMALLEST_SHARDED:
      return replicated(mesh)
    split = max(dims, key=lambda d: (leaf.shape[d], d))
    spec = [None] * len(leaf.shape)
    spec[split] = "fsdp"
    return NamedSharding(mesh, PartitionSpec(*spec))

  return jax.tree.map(sharding, state)


def check_batch_size(
  batch_size: int, mesh: Mesh, field: str = "batch_size"
) -> None:
  """Raises ValueError unless the devices divide the batch."""
  if batch_size < 1 or batch_size % mesh.size:
    below = batch_size // mesh.size * mesh.size
    nearest = " and ".join(str(n) for n in (below, below + mesh.size) if n > 0)
    raise ValueError(
      f"{field}={batch_size} must be a positive multiple of the"
      f" {mesh.size} devices of the mesh; the nearest: {nearest}"
    )


def place_batch(batch: Any, mesh: Mesh) -> Any:
  """This process's part of a batch (numpy) to global arrays on the mesh."""
  sharding = batch_sharding(mesh)
  return jax.tree.map(
    lambda x: jax.make_array_from_process_local_data(sharding, x), batch
  )


def place_global(batch: Any, mesh: Mesh) -> Any:
  """A batch that every process holds whole, to global arrays; scalars too."""

  def place(x):
    sharding = batch_sharding(mesh) if np.ndim(x) else replicated(mesh)
    return jax.make_array_from_callback(np.shape(x), sharding, x.__getitem__)

  return jax.tree.map(place, batch)
