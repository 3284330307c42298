"""Kernels of Pallas in a program: what each run moves and computes.

A compiler shows a kernel as one instruction with its arrays. The kernel reads a
block of an array again whenever the block's place changes from one step of its
grid to the next, so that a whole array may be read many times, or a block once
for many steps.
"""

import dataclasses
import math

import jax
from jax.extend import core
import numpy as np

from magvit.cost import flops
from magvit.cost import jaxprs

# Name, and shape of each result, which tell the kernels of a program apart.
Key = tuple[str, tuple[tuple[int, ...], ...]]


@dataclasses.dataclass(frozen=True)
class Kernel:
  """One run of a kernel on one device.

  operands: bytes read of each operand, those that the index maps see first.
  results: bytes written of each result.
  """

  flops: int
  operands: tuple[int, ...]
  results: tuple[int, ...]


def find(jaxpr, platform: str) -> dict[Key, Kernel]:
  """The kernels in a program's text, as a platform runs it."""
  kernels = {}
  for equation in jaxpr.eqns:
    if equation.primitive.name == "pallas_call":
      shapes = tuple(v.aval.shape for v in equation.outvars)
      kernels[equation.params["name"], shapes] = describe(equation)
      continue
    for inner, _ in jaxprs.inside(equation, platform, {}):
      kernels |= find(inner, platform)
  return kernels


def describe(equation) -> Kernel:
  """What one run of a `pallas_call` computes and moves."""
  mapping = equation.params["grid_mapping"]
  first = mapping.num_index_operands
  read = [
    math.prod(x.aval.shape) * x.aval.dtype.itemsize
    for x in equation.invars[:first]
  ]
  blocks = [_moved(block, mapping.grid) for block in mapping.block_mappings]
  ((body, steps),) = jaxprs.inside(equation, None, {})
  return Kernel(
    flops=steps * flops.count_in(body),
    operands=(*read, *blocks[: mapping.num_inputs]),
    results=tuple(blocks[mapping.num_inputs :]),
  )


def _moved(block, grid: tuple[int, ...]) -> int:
  """Bytes that the blocks of an array are, each as often as it is moved."""
  one = math.prod(block.transformed_block_aval.shape)
  return one * block.array_aval.dtype.itemsize * _moves(block, grid)


def _moves(block, grid: tuple[int, ...]) -> int:
  """How often the block's place changes over the grid, the first included."""
  closed = block.index_map_jaxpr
  steps = math.prod(grid)
  operands = closed.jaxpr.invars[len(grid) :]  # what the maps may read
  atoms = [x for equation in closed.jaxpr.eqns for x in equation.invars]
  atoms += closed.jaxpr.outvars
  read = {x for x in atoms if not isinstance(x, core.Literal)}
  if read & set(operands):
    return steps  # where a block lies is known only when the kernel runs
  grids = np.indices(grid, np.int32).reshape(len(grid), -1)
  unread = [None] * len(operands)
  index = jax.vmap(
    lambda *at: core.jaxpr_as_fun(closed)(*at, *unread),
    axis_size=steps,
  )
  at = np.stack([np.asarray(x) for x in index(*grids)])
  return 1 + int((at[:, 1:] != at[:, :-1]).any(0).sum())
