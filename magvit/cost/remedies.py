"""What binds a program on a chip, and which changes of its config help.

Only changes that the config has not made yet are named.
"""

from collections.abc import Iterator
import dataclasses
import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from magvit import algorithm as algorithm_lib
from magvit import trained as trained_lib
from magvit.cost import chips
from magvit.cost import estimate
from models import remat as remat_lib

_GIB = 2**30
_USED = re.compile(r"Used ([\d.]+)([KMG]) of ([\d.]+)([KMG]) hbm")
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}
# Members of an fsdp group that take most of the state's traffic away; more have
# fewer links of their own for what they send.
_ENOUGH_FSDP = 4
# Share of the traffic from which the state of training is worth splitting.
_LARGE = 0.25


@dataclasses.dataclass(frozen=True)
class Program:
  """A program of a config on a mesh.

  name: as in `programs.programs`.
  mesh: devices along each axis.
  state_bytes: weights, and in training moments, of one device.
  """

  name: str
  config: ml_collections.ConfigDict
  mesh: dict[str, int]
  state_bytes: int

  @property
  def trains(self) -> bool:
    return self.name == "train"

  @property
  def section(self) -> str:
    """Section of the config with the fields of the network."""
    return self._facts.section

  @property
  def _facts(self) -> algorithm_lib.Facts:
    return trained_lib.find_algorithm(self.config).facts

  @property
  def remat(self) -> str:
    return remat_lib.choose(self.config[self.section].remat, "tpu")

  @property
  def lacks_kernel(self) -> bool:
    """Whether a kernel could take its attention, and none is set."""
    attention = self.config[self.section].get("attention")
    no_kernel = attention in ("auto", "plain")
    return self.trains and no_kernel and not self._facts.attention_has_bias

  @property
  def clips(self) -> int:
    """Number of clips of a device at a time."""
    parts = self.mesh["slice"] * self.mesh["data"] * self.mesh["fsdp"]
    parts *= self.config.microbatches if self.trains else 1
    return self.config.batch_size // parts


def state_bytes(tree: Any) -> int:
  """Bytes of one device of arrays that are described with shardings."""
  return sum(
    math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize
    for x in jax.tree.leaves(tree)
    if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
  )


def used_gib(error: str) -> float | None:
  """Memory that the compiler says a program needs; None if it does not say."""
  used = _USED.search(error)
  return float(used[1]) * _UNITS[used[2]] / _GIB if used else None


def advise(
  program: Program, figures: dict[str, Any], chip: chips.Chip
) -> list[str]:
  """What binds, and what to change, in one or two sentences."""
  if not figures["fits"]:
    return _advise_memory(program, figures["error"], chip)
  bound = figures["bound"]
  changes = {
    "compute": _fewer_products,
    "memory": _less_traffic,
    "links": _less_sent,
    "network": _less_sent,
  }[bound](program, figures, chip)
  changes = list(changes)[:2]
  seconds = figures["seconds"]
  second = max(v for k, v in seconds.items() if k not in (bound, "least"))
  binds = {
    "compute": "Products bind",
    "memory": "Memory traffic binds",
    "links": "Links between chips bind",
    "network": "The network between slices binds",
  }[bound]
  binds += f", {seconds[bound]:.4f} s against {second:.4f} s of the next."
  if not changes:
    nothing = "nothing to change but the chips or the model"
    return [binds, f"{nothing[0].upper()}{nothing[1:]}."]
  return [binds, f"To change: {'; or '.join(changes)}."]


def _field(program: Program, name: str, value: Any) -> str:
  return f"{program.section}.{name}={value}"


def _fewer_products(program, figures, chip) -> Iterator[str]:
  free = chip.memory_gib - figures["memory_gib"]["total"]
  if program.trains and program.remat == "all" and free > chip.memory_gib / 2:
    again = figures["flops"] / figures["flops_of_model"] - 1
    yield (
      f"{_field(program, 'remat', 'dots')}, which keeps more in the"
      f" {free:.1f} GiB that are free ({again:.0%} of the products are"
      " recomputed)"
    )


def _less_traffic(program, figures, chip) -> Iterator[str]:
  settings = program.config[program.section]
  if settings.dtype != "bfloat16":
    yield f"{_field(program, 'dtype', 'bfloat16')}, which halves activations"
  if program.lacks_kernel:
    yield (
      f"{_field(program, 'attention', 'kernel')}, which keeps the scores of"
      " attention on the chip (no TPU has timed it yet)"
    )
  # Each is read and written once a step.
  share = 2 * program.state_bytes / figures["bytes"]
  if program.trains and share > _LARGE and (size := _larger_fsdp(program)):
    yield (
      f"mesh.fsdp={size}, which splits weights and moments ({share:.0%} of the"
      " traffic at the least)"
    )
  if program.trains and program.remat == "off" and "num_layers" in settings:
    yield f"{_field(program, 'remat', 'dots')}, which writes less for later"
  free = chip.memory_gib - figures["memory_gib"]["total"]
  if free > chip.memory_gib / 2:
    yield (
      f"more clips a chip than {program.clips}, as {free:.1f} GiB are free:"
      " weights are read once however many there are"
    )


def _less_sent(program, figures, chip) -> Iterator[str]:
  mesh, free = program.mesh, chip.memory_gib - figures["memory_gib"]["total"]
  if mesh["tensor"] > 1:
    yield f"a mesh.tensor below {mesh['tensor']}, which sends activations"
  if mesh["fsdp"] > 1:
    if program.trains and _is_faster_whole(program, figures, chip):
      yield "mesh.fsdp=1, which sends no weights"
    if program.trains and program.config.microbatches > 1:
      yield (
        f"fewer microbatches than {program.config.microbatches}: each gathers"
        " the weights again"
      )
  if program.trains and free > chip.memory_gib / 2:
    yield (
      f"more clips a chip than {program.clips}, as {free:.1f} GiB are free:"
      " gradients are sent once however many there are"
    )


def _is_faster_whole(program, figures, chip: chips.Chip) -> bool:
  """Whether a state on each device would take less time than sending it.

  By what is there then, and is read and written in each step.
  """
  more = program.state_bytes * (program.mesh["fsdp"] - 1)
  seconds = estimate.STATE_TRAFFIC * more / chip.bandwidth
  total = figures["memory_gib"]["total"] + more / _GIB
  return (
    total < chip.memory_gib
    and figures["seconds"]["memory"] + seconds < figures["seconds"]["least"]
  )


def _advise_memory(program, error: str, chip: chips.Chip) -> list[str]:
  used = used_gib(error)
  over = f", {used:.1f} of {chip.memory_gib} GiB" if used else ""
  lines = [f"It does not fit{over}."]
  changes = list(_less_memory(program, chip))
  if changes:
    lines.append(f"The smallest change first: {'; then '.join(changes)}.")
  if program.trains:
    lines.append("--fit compiles such changes and names the best.")
  return lines


def _less_memory(program, chip: chips.Chip) -> Iterator[str]:
  """Changes that lower memory, the smallest first."""
  settings = program.config[program.section]
  state = program.state_bytes / _GIB
  most = chip.memory_gib / 2
  size = _larger_fsdp(program, program.mesh["fsdp"] * state / most)
  if size and state > most:
    yield f"mesh.fsdp={size}, as {state:.1f} GiB are weights and moments"
  if program.trains and program.clips > 1:
    yield f"microbatches={_next_divisor(program)}"
  if program.trains and program.remat != "all":
    stronger = "dots" if program.remat == "off" else "all"
    yield _field(program, "remat", stronger)
  if settings.dtype != "bfloat16":
    yield _field(program, "dtype", "bfloat16")
  if program.lacks_kernel:
    yield _field(program, "attention", "kernel")
  if size and state <= most:
    yield f"mesh.fsdp={size}"
  if not program.trains and program.clips > 1:
    yield f"a batch_size below {program.config.batch_size}"
  yield "more or larger chips"


def _next_divisor(program: Program) -> int:
  """The next number of microbatches that divides a device's clips."""
  now, parts = program.config.microbatches, program.clips
  return now * next(n for n in range(2, parts + 1) if parts % n == 0)


def _larger_fsdp(program: Program, least: float = 1.0) -> int | None:
  """A larger mesh.fsdp, of at least `least`, whose groups stay in one slice.

  None if there is none.
  """
  parts = program.mesh["data"] * program.mesh["fsdp"]
  sizes = [
    n
    for n in range(program.mesh["fsdp"] + 1, parts + 1)
    if n >= least and parts % n == 0 and n % program.mesh["fsdp"] == 0
  ]
  few = [n for n in sizes if n <= _ENOUGH_FSDP]
  return max(few) if few else min(sizes, default=None)
