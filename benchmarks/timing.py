"""Timing of programs in turn: other work on the machine slows all alike."""

from collections.abc import Callable
from collections.abc import Mapping
import time
from typing import Any

import jax
import jax.numpy as jnp

_SIZE = 1024  # rows, columns and depth of the floor's matrix product
GEMM_FLOP = 2 * _SIZE**3

# Name of a program -> the time of each repeat.
Seconds = dict[str, list[float]]


def gemm() -> Callable[[], jax.Array]:
  """A float32 matrix product of GEMM_FLOP, to time beside the others."""
  a = jnp.ones((_SIZE, _SIZE))
  product = jax.jit(lambda a: a @ a)
  return lambda: product(a)


def calls(run: Callable[[], Any], repeats: int) -> list[float]:
  """Wall seconds of each call, after one that warms up."""
  measured = []
  for _ in range(repeats + 1):
    start = time.perf_counter()
    jax.block_until_ready(run())
    measured.append(time.perf_counter() - start)
  return measured[1:]


def program(
  compiled: Callable, arguments: tuple, repeats: int, donates: bool
) -> list[float]:
  """Wall seconds of each call of a compiled program, as `calls`.

  A program that donates its first argument gets its first output in its place.
  """

  def run():
    nonlocal arguments
    outputs = jax.block_until_ready(compiled(*arguments))
    if donates:
      arguments = (outputs[0], *arguments[1:])

  return calls(run, repeats)


def seconds(
  runs: Mapping[str, Callable[[], Any]], repeats: int
) -> tuple[Seconds, Seconds]:
  """Measures wall and CPU seconds of this process; warm programs up before."""
  wall, cpu = {name: [] for name in runs}, {name: [] for name in runs}
  for _ in range(repeats):
    for name, run in runs.items():
      start, cpu_start = time.perf_counter(), time.process_time()
      jax.block_until_ready(run())
      wall[name].append(time.perf_counter() - start)
      cpu[name].append(time.process_time() - cpu_start)
  return wall, cpu
