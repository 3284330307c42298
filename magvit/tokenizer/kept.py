"""What a tokenizer's step keeps for its backward pass, chosen by memory.

`tokenizer.remat="auto"` takes the least recomputation whose step fits a device.
The estimate reads shapes alone: what each level of the network keeps by each
choice, what the losses keep beside it, and the state. Nothing is compiled.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
import logging
import math
from typing import Any

import jax
from jax.experimental import multihost_utils
import jax.numpy as jnp
from jax.sharding import Mesh
import ml_collections
import numpy as np

from configs import fields
from magvit import mesh as mesh_lib
from magvit.tokenizer import describe
from models import network

log = logging.getLogger(__name__)

# Share of a device's memory that a step may be estimated to take: the rest is
# for code, for what libraries work in, and for gaps between arrays.
_USABLE = 0.9
# Share of what JAX lists for the backward pass that a compiler keeps where
# nothing is rematerialised: the rest it computes from arrays beside it. libtpu
# kept 24 of 53 bytes of an element of a residual block, and 4.2 and 2.3 of the
# 4 and 2 listed with "dots" and "all".
_FUSED = 0.45
# Memory of chips that only a compiler knows, which have no statistics.
_GIB = {"TPU v4": 32, "TPU v5 lite": 16, "TPU v5": 95, "TPU v6 lite": 32}


@dataclasses.dataclass(frozen=True)
class Memory:
  """Bytes that a step of training needs on a device.

  state: what is there between steps, and the gradients.
  clips: number of clips that the networks see at once.
  other: kept for a clip whatever the choice, by the discriminator above all.
  levels: kept for a clip by each level's layers, fine to coarse, by choice.
  block: needed for a clip while one block is differentiated.
  """

  state: int
  clips: float
  other: int
  levels: tuple[dict[str, int], ...]
  block: int

  def total(self, choices: Sequence[str]) -> int:
    """Bytes with a choice for each level."""
    kept = sum(
      level[choice] for level, choice in zip(self.levels, choices, strict=True)
    )
    return self.state + int(self.clips * (self.other + kept + self.block))


def device_bytes(device: Any) -> int | None:
  """Memory of a device in bytes, None if nothing tells it."""
  try:
    stats = device.memory_stats()
  except Exception:  # devices that are only described share no class of errors
    stats = None
  if stats and "bytes_limit" in stats:
    return stats["bytes_limit"]
  gib = _GIB.get(device.device_kind)
  return None if gib is None else gib * 2**30


def ladder(levels: int) -> Iterator[tuple[str, ...]]:
  """Choices for all levels, from the least recomputation to the most.

  The finest levels come first: they hold the most memory for their products.
  """
  yield (fields.REMAT[0],) * levels
  for weaker, stronger in zip(fields.REMAT, fields.REMAT[1:], strict=False):
    for number in range(1, levels + 1):
      yield (stronger,) * number + (weaker,) * (levels - number)


def choose(memory: Memory, budget: int) -> str:
  """The least recomputation that fits, as a value of `tokenizer.remat`.

  Where nothing fits it is the most.
  """
  rungs = list(ladder(len(memory.levels)))
  fitting = (c for c in rungs if memory.total(c) <= _USABLE * budget)
  choices = next(fitting, rungs[-1])
  return choices[0] if len(set(choices)) == 1 else ",".join(choices)


def find(
  config: ml_collections.ConfigDict,
  mesh: Mesh,
  measure: Callable[[], Memory],
) -> str:
  """The value of `tokenizer.remat`; "auto" becomes one for these devices.

  CPUs keep all. Where a device tells nothing of its memory, no product is
  recomputed and no more is kept than that needs.
  """
  remat = config.tokenizer.remat
  if remat != fields.AUTO:
    return remat
  if mesh.devices.flat[0].platform == "cpu":
    return "off"
  budget = _budget(mesh)
  if budget is None:
    return "dots"
  memory = measure()
  remat = choose(memory, budget)
  choices = fields.split_remat(remat, len(memory.levels))
  log.info(
    "tokenizer.remat=auto keeps %s: a step of %g clips a device is estimated to"
    " take %.1f of %.1f GiB",
    remat,
    memory.clips,
    memory.total(choices) / 2**30,
    budget / 2**30,
  )
  return remat


def _budget(mesh: Mesh) -> int | None:
  """Memory of the smallest device; all processes have to choose alike."""
  index = jax.process_index()
  devices = [d for d in mesh.devices.flat if d.process_index == index]
  budget = device_bytes(devices[0] if devices else mesh.devices.flat[0])
  if jax.process_count() > 1:
    budgets = multihost_utils.process_allgather(np.float64(budget or 0))
    budget = int(np.min(budgets))
  return budget or None


def define_keeping(
  config: ml_collections.ConfigDict, remat: str
) -> network.Network:
  """The config's tokenizer with another choice of what it keeps."""
  config = ml_collections.ConfigDict(config.to_dict())
  config.tokenizer.remat = remat
  return describe.define_tokenizer(config)


def measure(
  config: ml_collections.ConfigDict,
  mesh: Mesh,
  state: Any,
  state_size: int,
  passes: Sequence[Callable],
  distance: Callable | None,
) -> Memory:
  """Estimates the memory of a step from shapes.

  Args:
    config: the tokenizer's.
    mesh: its devices.
    state: shapes of the algorithm's state, with the frozen networks.
    state_size: bytes of the state and the gradients on a device.
    passes: functions of (the discriminator's weights, clips) that a step
      differentiates.
    distance: that of frames, a function of (weights, target, output).
  """
  shape = describe.clip_shape(config)
  clip = jax.ShapeDtypeStruct((1, *shape, 3), jnp.float32)
  levels = len(config.tokenizer.channel_multipliers)
  heights = [config.dataset.size >> level for level in range(levels)]
  kept, other = {}, 0
  for choice in fields.REMAT:
    net = define_keeping(config, choice)
    arrays = _listed(_floats(net), (state.params["tokenizer"], clip), 0)
    kept[choice] = _by_level(arrays, heights)
    if choice == "off":
      other = _size(arrays) - sum(kept[choice])
      kept[choice] = [int(_FUSED * n) for n in kept[choice]]
  for function in passes:
    arguments = (state.params["discriminator"], clip)
    other += _size(_listed(function, arguments, 0))
  if distance is not None:
    frames = jax.ShapeDtypeStruct((*shape, 3), jnp.float32)
    arguments = (state.frozen["perceptual"], frames, frames)
    other += _size(_listed(distance, arguments, 2))
  # Encoder and decoder have as many blocks at a level.
  blocks = max(1, 2 * config.tokenizer.num_res_blocks)
  images = config.dataset.joint_images / config.dataset.frames
  parts = mesh_lib.batch_parts(mesh) * config.microbatches
  return Memory(
    state=state_size,
    clips=(config.batch_size + images) / parts,
    other=int(_FUSED * other),
    levels=tuple(
      {choice: kept[choice][level] for choice in fields.REMAT}
      for level in range(levels)
    ),
    block=max(kept["off"]) // blocks,
  )


def _floats(net: network.Network) -> Callable:
  """The network's results that have a gradient."""

  def run(params, clip):
    output, quantized, latents = net(params, clip)
    return output, latents, dataclasses.replace(quantized, ids=None)

  return run


def state_bytes(state: Any, mesh: Mesh, rules: mesh_lib.Rules) -> int:
  """Bytes of a state, and of gradients like its parameters, on a device."""
  trees = {"state": state, "gradients": state.params}
  shardings = mesh_lib.state_shardings(trees, mesh, rules)
  return sum(
    math.prod(sharding.shard_shape(x.shape)) * x.dtype.itemsize
    for x, sharding in zip(
      jax.tree.leaves(trees), jax.tree.leaves(shardings), strict=True
    )
  )


def _listed(function: Callable, arguments: tuple, number: int) -> list[Any]:
  """Shapes that JAX keeps for the gradient of one argument, without these."""

  def pullback(*arguments):
    before, one, after = (
      arguments[:number],
      arguments[number],
      arguments[number + 1 :],
    )
    return jax.vjp(lambda one: function(*before, one, *after), one)[1]

  given = {(x.shape, x.dtype) for x in jax.tree.leaves(arguments)}
  leaves = jax.tree.leaves(jax.eval_shape(pullback, *arguments))
  return [x for x in leaves if (x.shape, x.dtype) not in given]


def _size(arrays: Sequence[Any]) -> int:
  return sum(x.size * x.dtype.itemsize for x in arrays)


def _by_level(arrays: Sequence[Any], heights: Sequence[int]) -> list[int]:
  """Bytes of the arrays (..., H, W, C) of each level, by its height H.

  A convolution's input has up to three points more.
  """
  return [
    _size(
      [x for x in arrays if x.ndim > 3 and height <= x.shape[-3] <= height + 3]
    )
    for height in heights
  ]
