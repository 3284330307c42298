"""The device mesh and where each array lives on it.

Three axes, all of Auto type: `data` splits the batch; `fsdp` splits the batch
and the parameters; `tensor` splits the work of each layer, by rules. Programs
are written for the global batch, and XLA inserts the collectives, so every mean
in a loss is a mean over all devices.
"""

from collections.abc import Sequence
import math
import re
from typing import Any

import jax
from jax.sharding import AxisType
from jax.sharding import Mesh
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec
import ml_collections
import numpy as np

_AXES = ("data", "fsdp", "tensor")
_BATCH_AXES = ("data", "fsdp")
_SMALLEST_SHARDED = 2**16  # scalars; splitting less costs more than it saves

# (regex, mesh axis or None of each of the last dimensions), first match counts.
Rules = Sequence[tuple[str, Sequence[str | None]]]


def make_mesh(
  config: ml_collections.ConfigDict,
  devices: Sequence[jax.Device] | None = None,
) -> Mesh:
  """Mesh of `config.data` x `config.fsdp` x `config.tensor` devices.

  Raises:
    ValueError: the sizes do not multiply to the number of devices (by default
      all there are).
  """
  devices = jax.devices() if devices is None else devices
  data, fsdp, tensor = config.data, config.fsdp, config.tensor
  if data == -1 and fsdp > 0 and tensor > 0:
    data = len(devices) // (fsdp * tensor)
  if data * fsdp * tensor != len(devices) or min(data, fsdp, tensor) < 1:
    raise ValueError(
      f"mesh.data={config.data} x mesh.fsdp={fsdp} x mesh.tensor={tensor} must"
      f" use all {len(devices)} devices; with mesh.data=-1, the product of the"
      f" others can be any divisor of {len(devices)}"
    )
  return Mesh(
    np.asarray(devices).reshape(data, fsdp, tensor),
    _AXES,
    axis_types=(AxisType.Auto,) * len(_AXES),
  )


def data_mesh(devices: Sequence[jax.Device]) -> Mesh:
  """These devices, all along the batch."""
  config = ml_collections.ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})
  return make_mesh(config, devices)


def local_mesh() -> Mesh:
  """The devices of this process alone, all along the batch."""
  return data_mesh(jax.local_devices())


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """The leading dimension over every device, but for `tensor`."""
  return NamedSharding(mesh, PartitionSpec(_BATCH_AXES))


def batch_parts(mesh: Mesh) -> int:
  """Into how many parts the mesh splits a batch."""
  return math.prod(mesh.shape[axis] for axis in _BATCH_AXES)


def replicated(mesh: Mesh) -> NamedSharding:
  return NamedSharding(mesh, PartitionSpec())


def state_shardings(state: Any, mesh: Mesh, rules: Rules = ()) -> Any:
  """A sharding per leaf: by the rules, and large ones over `fsdp` as well.

  Rules match the leaf's path, like "params/transformer/layers/qkv/kernel".
  `fsdp` splits the largest dimension that it divides and that is whole, the
  last among equals. So optimizer moments and averages lie like their
  parameters.

  Raises:
    ValueError: a rule that does not fit a leaf it matches.
  """

  def sharding(path, leaf):
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    spec = _ruled(name, leaf.shape, mesh, rules)
    fsdp = mesh.shape["fsdp"]
    free = [
      d
      for d, size in enumerate(leaf.shape)
      if spec[d] is None and size % fsdp == 0
    ]
    if fsdp > 1 and free and math.prod(leaf.shape) >= _SMALLEST_SHARDED:
      spec[max(free, key=lambda d: (leaf.shape[d], d))] = "fsdp"
    while spec and spec[-1] is None:
      spec.pop()
    return NamedSharding(mesh, PartitionSpec(*spec))

  return jax.tree_util.tree_map_with_path(sharding, state)


def _ruled(name: str, shape, mesh: Mesh, rules: Rules) -> list[str | None]:
  """The mesh axis of each dimension of a leaf, by the first rule it matches."""
  spec: list[str | None] = [None] * len(shape)
  for pattern, axes in rules:
    if not re.search(pattern, name):
      continue
    if len(axes) > len(shape) or not set(axes) <= {*_AXES, None}:
      raise ValueError(
        f"mesh.rules: {tuple(axes)} of {pattern!r} must be a mesh axis"
        f" ({', '.join(_AXES)}) or None for each of the last dimensions of"
        f" {name} {tuple(shape)}"
      )
    for d, axis in enumerate(axes, start=len(shape) - len(axes)):
      if axis is None or mesh.shape[axis] == 1:
        continue
      if shape[d] % mesh.shape[axis]:
        raise ValueError(
          f"mesh.{axis}={mesh.shape[axis]} must divide dimension {d} of {name}"
          f" {tuple(shape)}, which mesh.rules {pattern!r} splits: lower it, or"
          " change the rule"
        )
      spec[d] = axis
    break
  return spec


def check_batch_size(
  batch_size: int, mesh: Mesh, field: str = "batch_size", microbatches: int = 1
) -> None:
  """Raises ValueError unless the devices divide (each part of) the batch."""
  parts = batch_parts(mesh) * microbatches
  if batch_size < 1 or batch_size % parts:
    below = batch_size // parts * parts
    nearest = " and ".join(str(n) for n in (below, below + parts) if n > 0)
    each = f" times the {microbatches} microbatches" * (microbatches > 1)
    raise ValueError(
      f"{field}={batch_size} must be a positive multiple of the"
      f" {batch_parts(mesh)} devices that split it{each}; the nearest:"
      f" {nearest}"
    )


def local_parts(mesh: Mesh) -> list[int]:
  """Which of the `batch_parts` of a batch the devices of this process take."""
  sharding = batch_sharding(mesh)
  places = sharding.addressable_devices_indices_map((batch_parts(mesh),))
  return sorted(
    {
      place[0].indices(batch_parts(mesh))[0]
      for place in places.values()
      if place is not None
    }
  )


def place_batch(batch: Any, mesh: Mesh) -> Any:
  """This process's parts of a batch (numpy) to global arrays on the mesh.

  They lie one after the other in the order of `local_parts`.
  """
  sharding, parts = batch_sharding(mesh), local_parts(mesh)

  def place(x):
    size = len(x) // len(parts)
    at = lambda index: parts.index((index[0].start or 0) // size) * size
    return jax.make_array_from_callback(
      (size * batch_parts(mesh), *x.shape[1:]),
      sharding,
      lambda index: x[at(index) : at(index) + size],
    )

  return jax.tree.map(place, batch)


def place_global(batch: Any, mesh: Mesh) -> Any:
  """A batch that every process holds whole, to global arrays; scalars too."""

  def place(x):
    sharding = batch_sharding(mesh) if np.ndim(x) else replicated(mesh)
    return jax.make_array_from_callback(np.shape(x), sharding, x.__getitem__)

  return jax.tree.map(place, batch)
