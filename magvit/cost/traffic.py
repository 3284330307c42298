"""Bytes that a compiled TPU program moves, read from the program's text.

XLA's own analysis takes the body of a loop once; here it counts as often as it
runs. Arrays count with their padding to the tiles of the memory, and those that
the compiler keeps on the chip not at all. A kernel of our own counts its blocks
as often as it reads them (kernels.py).
"""

from collections import Counter
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import re

from magvit.cost import hlo
from magvit.cost import kernels as kernels_lib
from magvit.cost import links as links_lib

_MOVE_NOTHING = {  # opcodes without traffic, or whose parts are counted
  *("parameter", "constant", "get-tuple-element", "tuple", "bitcast"),
  *("while", "conditional", "call", "after-all", "partition-id", "copy-done"),
  *("replica-id", "opt-barrier", "async-start", "async-done"),
}
_CYCLES = re.compile(r'"estimated_cycles":"?(\d+)')
_KERNEL = 'custom_call_target="tpu_custom_call"'
_KERNEL_NAME = re.compile(r'op_name="[^"]*?([^"/]+)/pallas_call"')
_TO_HOST = "is_host_transfer=true"  # from which it goes to other slices
# What the hosts of slices do with it, and the slices that take part, by number
# or as FIRST:LAST.
_HOSTS_DO = re.compile(r'_xla_megascale_transfer_type="(\w+)"')
_HOSTS_OF = re.compile(r'_xla_megascale_target="\{([\d,:]+)\}')
_CHAIN = re.compile(r'chain_id="(\d+)"')
_CHANNEL = re.compile(r"channel_id=(\d+)")
# A fusion of this name sums over devices and keeps one part of the sum.
_SCATTER = re.compile(r"%all-reduce-scatter\b")


@dataclasses.dataclass(frozen=True)
class KernelRuns:
  """All runs of a kernel on one device."""

  runs: int = 0
  flops: int = 0
  bytes: int = 0  # read from and written to memory, re-reads included


@dataclasses.dataclass(frozen=True)
class Traffic:
  """Traffic of one device."""

  bytes: int  # bytes read from and written to its memory
  collective_count: dict[str, int]  # number of runs, by kind of collective
  collective_bytes: dict[str, int]  # bytes that it sends, by kind
  link_seconds: float  # time of sending them at the rate of each group's links
  # Bytes that it sends to other slices, by way of the hosts' network.
  network_bytes: int
  # Cycles that the compiler expects of all instructions, in turn; a kernel of
  # our own has none.
  cycles: int
  kernels: dict[str, KernelRuns]  # our own kernels by name


def traffic(
  text: str,
  kernels: Mapping[kernels_lib.Key, kernels_lib.Kernel] | None = None,
  links: links_lib.Links | None = None,
) -> Traffic:
  """Reads the traffic from `jax.stages.Compiled.as_text()`.

  Args:
    text: the compiled program.
    kernels: what each run of a kernel moves; a kernel that is not among them
      moves its arrays once.
    links: the chips and their links; without them sending takes no time.
  """
  computations, entry = hlo.parse(text)
  runs = hlo.count_runs(computations, entry)
  sent = _Sent(links)
  moved, cycles, network = 0, 0, 0
  ran: dict[str, KernelRuns] = {}
  for name, run in runs.items():
    body = computations[name]
    shapes = {i.name: i.shape for i in body}
    for instruction in body:
      if _kind(instruction) in links_lib.COLLECTIVES:
        sent.add(instruction, name, shapes, run.times)
      if instruction.opcode == "send" and _TO_HOST in instruction.text:
        network += run.times * _sent_to_slices(instruction)
      estimate = _CYCLES.search(instruction.text)
      cycles += run.times * int(estimate[1]) if estimate else 0
      if _KERNEL in instruction.text:
        one = _run_kernel(instruction, shapes, kernels or {})
        ran[one[0]] = _added(ran.get(one[0], KernelRuns()), one[1], run.times)
        moved += run.times * one[1].bytes
      elif not run.fused:
        moved += run.times * _moved(instruction, shapes, computations)
  return Traffic(
    bytes=moved,
    collective_count=dict(sent.count),
    collective_bytes=dict(sent.bytes),
    link_seconds=sent.seconds,
    network_bytes=network,
    cycles=cycles,
    kernels=ran,
  )


def _sent_to_slices(instruction: hlo.Instruction) -> int:
  """Bytes that a chip's host sends to other slices for it."""
  size = hlo.size_of(hlo.first_of(instruction), on_chip=True)
  kind = _HOSTS_DO.search(instruction.text)
  target = _HOSTS_OF.search(instruction.text)
  name = kind[1].lower().replace("_", "-") if kind else ""
  if target is None or name not in links_lib.COLLECTIVES:
    return size
  slices = 0
  for item in target[1].split(","):
    first, _, last = item.partition(":")
    slices += int(last or first) - int(first) + 1
  # A chip hands over its part of what all gather.
  whole = size * slices if name == "all-gather" else size
  return int(whole * links_lib.share_sent(name, slices))


def _kind(instruction: hlo.Instruction) -> str:
  return instruction.opcode.removesuffix("-start")


class _Sent:
  """Sums of what one device sends in collectives."""

  def __init__(self, links: links_lib.Links | None):
    self.count, self.bytes, self.seconds = Counter(), Counter(), 0.0
    self._links, self._chains = links, set()

  def add(self, instruction, computation: str, shapes, times: int) -> None:
    """Adds an instruction that runs `times`."""
    # Fusions that compute beside a collective hold a part of it each.
    chain = _CHAIN.search(instruction.text)
    if chain is not None:
      place = chain[1], *_CHANNEL.findall(instruction.text)[:1]
      if place in self._chains:
        return
      self._chains.add(place)
    kind = _kind(instruction)
    scatter = kind == "all-reduce" and _SCATTER.match(computation)
    whole = hlo.size_of(hlo.result_of(instruction), on_chip=True)
    if scatter:
      kind = "reduce-scatter"
    elif kind == "reduce-scatter":
      whole = sum(
        hlo.size_of(shapes[x], on_chip=True) for x in instruction.operands
      )
    group = links_lib.group(instruction.text)
    size = int(times * whole * links_lib.share_sent(kind, len(group)))
    self.count[kind] += times
    self.bytes[kind] += size
    if self._links is not None:
      self.seconds += size / self._links.rate(group)


def _run_kernel(instruction, shapes, kernels) -> tuple[str, KernelRuns]:
  """(name, one run) of a kernel."""
  name = _KERNEL_NAME.search(instruction.text)
  name = name[1] if name else instruction.name.strip("%").partition(".")[0]
  arrays = list(hlo.ARRAY.finditer(instruction.shape))
  results, sizes = [m[0] for m in arrays], [m[2] for m in arrays]
  key = name, tuple(tuple(int(d) for d in x.split(",") if d) for x in sizes)
  operands = [shapes.get(x, "") for x in instruction.operands]
  kernel = kernels.get(key)
  if kernel is None:
    return name, KernelRuns(1, 0, sum(map(hlo.size_of, (*operands, *results))))
  both = zip(
    (*operands, *results), (*kernel.operands, *kernel.results), strict=True
  )
  moved = sum(size for shape, size in both if hlo.size_of(shape))
  return name, KernelRuns(1, kernel.flops, moved)


def _added(total: KernelRuns, one: KernelRuns, times: int) -> KernelRuns:
  return KernelRuns(
    total.runs + times * one.runs,
    total.flops + times * one.flops,
    total.bytes + times * one.bytes,
  )


def _moved(instruction: hlo.Instruction, shapes, computations) -> int:
  """Bytes of memory that an instruction reads and writes."""
  if instruction.opcode in _MOVE_NOTHING or instruction.opcode.endswith(
    "-done"
  ):
    return 0
  operands = [shapes.get(name, "") for name in instruction.operands]
  if instruction.opcode == "custom-call" and not operands:
    return 0  # a buffer, not yet filled
  if instruction.opcode == "dynamic-slice":
    return 2 * hlo.size_of(instruction.shape)
  if instruction.opcode == "dynamic-update-slice":
    return 2 * hlo.size_of(operands[1])
  if instruction.opcode == "copy-start":
    return hlo.size_of(operands[0]) + hlo.size_of(hlo.result_of(instruction))
  if instruction.opcode != "fusion":
    return sum(map(hlo.size_of, operands)) + hlo.size_of(
      hlo.result_of(instruction)
    )
  return _moved_by_fusion(operands, instruction, computations)


def _moved_by_fusion(operands: Sequence[str], fusion, computations) -> int:
  """Bytes that a fusion moves: only a slice, where it takes or updates one."""
  total, written = 0, hlo.size_of(fusion.shape)
  for number, shape in enumerate(operands):
    whole = hlo.size_of(shape)
    if not whole:
      continue
    read, updated = _touched(number, fusion, computations)
    total += whole if read is None else min(read, whole)
    if updated:
      written += updated - whole
  return total + max(0, written)


def _touched(number: int, fusion, computations) -> tuple[int | None, int]:
  """Bytes of an operand read by slices (None: all) and updated in place."""
  called = hlo.CALLED.findall(fusion.text)[0]
  body = computations[hlo.NAME.findall(called)[0]]
  shapes = {i.name: i.shape for i in body}
  read, updated = 0, 0
  names = {
    i.name
    for i in body
    if i.opcode == "parameter" and int(i.text.split(")")[0]) == number
  }
  for user in body:  # the body lists them in the order in which they run
    if not names & set(user.operands):
      continue
    if user.opcode == "bitcast":
      names.add(user.name)
    elif user.opcode == "dynamic-slice":
      read += hlo.size_of(user.shape, on_chip=True)
    elif user.opcode == "dynamic-update-slice" and user.operands[0] in names:
      updated += hlo.size_of(shapes[user.operands[1]], on_chip=True)
    elif user.opcode == "fusion":
      for place, operand in enumerate(user.operands):
        if operand in names:
          inner_read, inner_updated = _touched(place, user, computations)
          if inner_read is None:
            return None, 0
          read, updated = read + inner_read, updated + inner_updated
    else:
      return None, 0
  return read, updated
