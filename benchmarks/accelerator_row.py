"""A row of `benchmarks/accelerator.py` while it is measured, in its process.

Weights and inputs are drawn on the device. Times are medians after a warm-up,
with the device waited for; a floor is the time that as many products take at
the rate of one large product in the same type, measured in the same process.
"""

from collections.abc import Callable
from collections.abc import Sequence
import copy
import json
import math
import pathlib
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import timing
from magvit.cost import programs as cost_programs

_LARGE = 8192  # rows, columns and depth of the product that gives the rate
REPEATS = 5
_GIB = 2**30
# Shares of the time of the last size, and of the memory, that the next takes at
# most if it is tried.
_MORE_TIME, _MORE_MEMORY = 1.3, 0.95


class Row:
  """What a row has measured so far, written after each addition."""

  def __init__(
    self,
    output: pathlib.Path,
    tiny: bool,
    fields: str = "",
    peer: pathlib.Path | None = None,
    limit: float = math.inf,
  ):
    """Makes an empty row.

    Args:
      output: JSON to write.
      tiny: whether every model is shrunk.
      fields: fields of configs, a.b=1,c=2.
      peer: folder of SEED-Voken.
      limit: seconds after which the process is ended.
    """
    self.output, self.tiny, self.peer = output, tiny, peer
    self.fields = dict(f.split("=", 1) for f in fields.split(",") if f)
    self.measured = self._whole = {}
    self._end = time.monotonic() + limit

  def part(self, name: str) -> "Row":
    """A row whose measurements are kept in this one, under a name."""
    part = copy.copy(self)
    part.measured = self.measured.setdefault(name, {})
    return part

  def add(self, **measured) -> None:
    self.measured.update(measured)
    self.output.write_text(json.dumps(self._whole, indent=2) + "\n")

  def seconds_left(self) -> float:
    return self._end - time.monotonic()


def measure(
  row: Row,
  program: cost_programs.Program,
  operations: int,
  dtype: str,
  repeats: int = REPEATS,
) -> None:
  """Compiles, runs and times a program; adds times and memory to the row."""
  compiled = compile_program(row, program)
  run_program(row, compiled, program, operations, dtype, repeats)


def measure_function(
  row: Row,
  function: Callable[..., Any],
  arguments: tuple[Any, ...],
  operations: int,
  dtype: str,
  repeats: int = REPEATS,
) -> None:
  """As `measure`, of a function of arrays whose shapes are given."""
  program = cost_programs.Program(function, None, (), arguments)
  measure(row, program, operations, dtype, repeats)


def compile_program(row: Row, program: cost_programs.Program):
  """Compiles for the device at hand, and says what that took."""
  row.add(device=jax.devices()[0].device_kind)
  start = time.perf_counter()
  lowered = jax.jit(
    program.function,
    donate_argnums=program.donated,
    out_shardings=program.out_shardings,
  ).lower(*program.arguments)
  row.add(lower_seconds=time.perf_counter() - start)
  start = time.perf_counter()
  compiled = lowered.compile()
  memory = compiled.memory_analysis()
  row.add(
    compile_seconds=time.perf_counter() - start,
    arguments_gib=memory.argument_size_in_bytes / _GIB,
    temporaries_gib=memory.temp_size_in_bytes / _GIB,
  )
  return compiled


def run_program(
  row: Row,
  compiled,
  program: cost_programs.Program,
  operations: int,
  dtype: str,
  repeats: int = REPEATS,
) -> None:
  """Runs a compiled program on drawn arrays, and says how long it takes."""
  seconds = timing.program(
    compiled, draw(program.arguments), repeats, bool(program.donated)
  )
  row.add(
    tflop=operations / 1e12,
    seconds=statistics.median(seconds),
    all_seconds=seconds,
  )
  stats = jax.devices()[0].memory_stats() or {}
  if "peak_bytes_in_use" in stats:
    row.add(peak_gib=stats["peak_bytes_in_use"] / _GIB)
  rate = product_rate(row, dtype)
  floor = operations / rate
  row.add(
    flops_per_second=rate,
    floor_seconds=floor,
    mfu=floor / row.measured["seconds"],
  )


def measure_clips(
  row: Row,
  describe: Callable[[int], tuple[cost_programs.Program, int]],
  sizes: Sequence[int],
  always: Sequence[int] = (),
) -> None:
  """Measures a program of several batch sizes, until as many clips fit as can.

  A size is left out where a larger one ran, unless it is one of `always`. What
  a size takes is foretold from the last one that was compiled, because one that
  does not fit costs as much compiling as one that does.

  Args:
    row: gets a part N_clips of each size; times of the largest that ran.
    describe: makes (program, its operations in bfloat16) of a batch size.
    sizes: batch sizes in the order to try them in.
    always: sizes that are measured even where a larger one ran.
  """
  ran, known, slowest = [], None, 0.0
  for clips in sizes:
    if any(size > clips for size in ran) and clips not in always:
      continue
    part = row.part(f"{clips}_clips")
    need = 0.0
    if known is not None:
      need = known["arguments_gib"]
      need += known["temporaries_gib"] * clips / known["clips"]
    reason = _reason_not_to(row, need, slowest)
    if reason:
      part.add(**{"not run": reason})
      continue
    start = time.perf_counter()
    program, operations = describe(clips)
    compiled = compile_program(part, program)
    if known is None:
      names = ("lower_seconds", "compile_seconds")
      row.add(**{name: part.measured[name] for name in names})
    known = {**part.measured, "clips": clips}
    need = known["arguments_gib"] + known["temporaries_gib"]
    reason = _reason_not_to(row, need, 0.0)
    if not reason:
      reason = _run_if_it_fits(part, compiled, program, operations)
    slowest = max(slowest, time.perf_counter() - start)
    if reason:
      part.add(**{"not run": reason})
      continue
    if clips < max(ran, default=0):
      part.measured.pop("peak_gib", None)  # that of the larger one before
    ran.append(clips)
    part.add(seconds_per_clip=part.measured["seconds"] / clips)
  if not ran:
    row.add(**{"not run": f"none of {list(sizes)} clips was measured"})
    return
  names = ("device", "seconds", "floor_seconds", "mfu", "peak_gib")
  largest = row.measured[f"{max(ran)}_clips"]
  row.add(clips=max(ran), **{n: largest[n] for n in names if n in largest})


def _reason_not_to(row: Row, need_gib: float, seconds: float) -> str:
  """Why a program of this size is not worth trying; empty if it is."""
  stats = jax.devices()[0].memory_stats() or {}
  limit = stats.get("bytes_limit", math.inf) / _GIB
  if need_gib > _MORE_MEMORY * limit:
    return f"would take {need_gib:.1f} of {limit:.1f} GiB"
  left = row.seconds_left()
  if left < _MORE_TIME * seconds:
    return f"{left:.0f} s were left, and the last size took {seconds:.0f} s"
  return ""


def _run_if_it_fits(part: Row, compiled, program, operations: int) -> str:
  try:
    run_program(part, compiled, program, operations, "bfloat16")
  except jax.errors.JaxRuntimeError as error:
    if "RESOURCE_EXHAUSTED" not in str(error):
      raise
    return f"did not fit: {str(error)[:200]}"
  return ""


def draw(shapes):
  """Draws small weights or random pixels on the device; ids are 0."""

  def leaf(x, seed):
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
      return jax.random.key(0)
    if not isinstance(x, jax.ShapeDtypeStruct):
      return x
    if x.dtype != np.uint8 and not jnp.issubdtype(x.dtype, jnp.floating):
      return jnp.zeros(x.shape, x.dtype)
    # A cheap hash of the position: weights need no better numbers, and drawing
    # gigabytes by numpy would take longer than the row.
    n = jax.lax.iota(jnp.uint32, max(x.size, 1)) * np.uint32(2654435769)
    n = (n ^ (n >> 15) ^ np.uint32(seed * 7919)) * np.uint32(2246822519)
    n = (n ^ (n >> 13)).reshape(x.shape)
    if x.dtype == np.uint8:
      return (n >> 24).astype(np.uint8)
    # Positive, as Adam's second moments are under a root.
    return (n.astype(jnp.float32) * (0.05 / 2**32)).astype(x.dtype)

  leaves, tree = jax.tree.flatten(shapes)
  make = jax.jit(
    lambda: [leaf(x, i) for i, x in enumerate(leaves)],
    out_shardings=[getattr(x, "sharding", None) for x in leaves],
  )
  return jax.block_until_ready(jax.tree.unflatten(tree, make()))


def product_rate(row: Row, dtype: str) -> float:
  """FLOP/s of a large product of random numbers, the best of ten."""
  size = 256 if row.tiny else _LARGE
  # Products of equal numbers run faster than those of a model.
  a = jax.random.normal(jax.random.key(0), (size, size)).astype(dtype)
  product = jax.jit(lambda a: a @ a)
  return 2 * size**3 / min(timing.calls(lambda: product(a), 10))


def bytes_rate(row: Row) -> float:
  """Bytes a second that a copy reads and writes."""
  x = jnp.ones((2**16 if row.tiny else 2**28,), jnp.float32)
  add_one = jax.jit(lambda x: x + 1)
  seconds = timing.calls(lambda: add_one(x), REPEATS)
  return 2 * x.nbytes / statistics.median(seconds)
