"""The device mesh and where each array lives on it.

The mesh has four axes, all of Auto type: `slice` and `data` split the batch,
over slices of TPUs and within each; `fsdp` splits the batch and the parameters;
`tensor` splits the work of each layer, by rules. Programs are written for the
global batch, and XLA inserts the collectives, so every mean in a loss is a mean
over all devices. Only sums over the batch cross slices: XLA for TPUs sums in
each slice first, and sends each chip's part of that sum to the others.
"""

import collections
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

_AXES = ("slice", "data", "fsdp", "tensor")
_BATCH_AXES = ("slice", "data", "fsdp")
# Size from which fsdp splits an array: splitting less costs more than it saves.
_SMALLEST_SHARDED = 2**16  # scalars

# (regex, a mesh axis or None for each of the last dimensions) of parameters by
# path; the first match counts.
Rules = Sequence[tuple[str, Sequence[str | None]]]


def make_mesh(
  config: ml_collections.ConfigDict,
  devices: Sequence[jax.Device] | None = None,
) -> Mesh:
  """Makes a mesh of `config.data` x `config.fsdp` x `config.tensor` a slice.

  Slices are those of TPUs. GPUs and CPUs are in one, or in `config.slices` of
  consecutive devices each.

  Raises:
    ValueError: the product of the sizes is not the number of devices in a slice
      (by default, of all devices of the job), or slices that are not there.
  """
  devices = jax.devices() if devices is None else devices
  # Configs of earlier versions have no such field.
  slices = _slices(devices, config.get("slices", -1))
  each = len(devices) // len(slices)
  data, fsdp, tensor = config.data, config.fsdp, config.tensor
  if data == -1 and fsdp > 0 and tensor > 0:
    data = each // (fsdp * tensor)
  if data * fsdp * tensor != each or min(data, fsdp, tensor) < 1:
    of = f" of each of the {len(slices)} slices" * (len(slices) > 1)
    raise ValueError(
      f"mesh.data={config.data} x mesh.fsdp={fsdp} x mesh.tensor={tensor} must"
      f" use all {each} devices{of}; with mesh.data=-1, the product of the"
      f" others can be any divisor of {each}"
    )
  return Mesh(
    # The order of jax.devices() within a slice puts groups of four and eight
    # v5e chips in squares. Those of mesh_utils.create_hybrid_device_mesh lie in
    # a row there, with half of the links; on v5p some groups would have more.
    np.asarray(slices).reshape(len(slices), data, fsdp, tensor),
    _AXES,
    axis_types=(AxisType.Auto,) * len(_AXES),
  )


def _slices(
  devices: Sequence[jax.Device], number: int
) -> list[list[jax.Device]]:
  """The devices of each slice; `number` is mesh.slices, -1 for all there are.

  Raises:
    ValueError: another number of slices, or slices of different sizes.
  """
  slices = collections.defaultdict(list)
  for device in devices:
    slices[slice_of(device)].append(device)
  made = [slices[key] for key in sorted(slices)]
  if devices[0].platform != "tpu" and number > 0:
    if len(devices) % number:
      below = [n for n in range(1, number) if len(devices) % n == 0]
      raise ValueError(
        f"mesh.slices={number} must divide the {len(devices)} devices: take"
        f" {max(below)}, or -1"
      )
    each = len(devices) // number
    made = [list(devices[i : i + each]) for i in range(0, len(devices), each)]
  if number not in (-1, len(made)):
    raise ValueError(
      f"mesh.slices={number} must be the {len(made)} of the TPUs at hand, or"
      " -1, which takes all there are"
    )
  if len({len(each) for each in made}) > 1:
    sizes = ", ".join(str(len(each)) for each in made)
    raise ValueError(
      f"slices of {sizes} devices cannot train together: start the job on"
      " slices of one size"
    )
  return made


def slice_of(device: jax.Device) -> int:
  """Number of the slice of a TPU; GPUs and CPUs are taken to be in one."""
  if device.platform != "tpu":
    return 0
  return getattr(device, "slice_index", 0)


def data_mesh(devices: Sequence[jax.Device]) -> Mesh:
  """Makes a mesh of these devices, all along the batch."""
  config = ml_collections.ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})
  return make_mesh(config, devices)


def local_mesh() -> Mesh:
  """Makes a mesh of the devices of this process, all along the batch."""
  return data_mesh(jax.local_devices())


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Sharding of the leading dimension over the axes that split the batch."""
  return NamedSharding(mesh, PartitionSpec(_BATCH_AXES))


def batch_parts(mesh: Mesh) -> int:
  """Number of parts into which the mesh splits a batch."""
  return math.prod(mesh.shape[axis] for axis in _BATCH_AXES)


def replicated(mesh: Mesh) -> NamedSharding:
  return NamedSharding(mesh, PartitionSpec())


def state_shardings(state: Any, mesh: Mesh, rules: Rules = ()) -> Any:
  """Sharding of each leaf: by the rules, and of large ones over `fsdp`, too.

  Rules match the leaf's path, like "params/transformer/layers/qkv/kernel".
  `fsdp` splits the largest dimension that it divides and that no rule splits,
  the last among equals. Moments of the optimizer and moving averages are thus
  split like their parameters.

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
  """Mesh axis of each dimension of a leaf, by the first rule it matches."""
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
  """Raises ValueError unless the devices divide each part of the batch."""
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
  """Numbers of the parts of a batch that this process's devices take."""
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
  """Places this process's parts of a batch as global arrays on the mesh.

  Arrays of numpy hold the parts in the order of `local_parts`.
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
  """Places a batch that every process holds whole; scalars, too."""

  def place(x):
    sharding = batch_sharding(mesh) if np.ndim(x) else replicated(mesh)
    return jax.make_array_from_callback(np.shape(x), sharding, x.__getitem__)

  return jax.tree.map(place, batch)
