"""Bytes that a compiled TPU program moves, read from the program's text.

XLA's own analysis takes the body of a loop once; here it counts as often as it
runs. Arrays count with their padding to the tiles of the memory, and those that
the compiler keeps on the chip not at all.
"""

from collections import Counter
from collections.abc import Sequence
import dataclasses
import math
import re

_BYTES = {
  **dict.fromkeys(("pred", "s8", "u8", "f8e4m3fn", "f8e5m2"), 1),
  **dict.fromkeys(("bf16", "f16", "s16", "u16"), 2),
  **dict.fromkeys(("f32", "s32", "u32"), 4),
  **dict.fromkeys(("f64", "s64", "u64"), 8),
}
COLLECTIVES = (
  *("all-reduce", "all-gather", "reduce-scatter", "all-to-all"),
  *("collective-permute", "ragged-all-to-all"),
)
_MOVE_NOTHING = {  # opcodes without traffic, or whose parts are counted
  *("parameter", "constant", "get-tuple-element", "tuple", "bitcast"),
  *("while", "conditional", "call", "after-all", "partition-id", "copy-done"),
  *("replica-id", "opt-barrier", "async-start", "async-done"),
}
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\](?:\{([^}]*)\})?")
_CALLED = re.compile(
  r"(?:calls|body|condition|to_apply|branch_computations"
  r"|true_computation|false_computation)=\{?((?:%[\w.\-]+(?:, )?)+)"
)
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_CONDITION = re.compile(r"condition=(%[\w.\-]+)")
_NAME = re.compile(r"%[\w.\-]+")
_CYCLES = re.compile(r'"estimated_cycles":"?(\d+)')
_KERNEL = 'custom_call_target="tpu_custom_call"'


@dataclasses.dataclass(frozen=True)
class Traffic:
  """Traffic of one device."""

  bytes: int  # bytes read from and written to its memory
  collective_count: dict[str, int]  # number of runs, by kind of collective
  collective_bytes: dict[str, int]  # size of the results, by kind
  # Cycles that the compiler expects of all instructions, in turn; a kernel of
  # our own has none.
  cycles: int
  kernels: int  # number of runs of our own kernels


@dataclasses.dataclass(frozen=True)
class _Instruction:
  name: str
  shape: str
  opcode: str
  operands: tuple[str, ...]
  text: str  # rest of the line, after the operands


def traffic(text: str) -> Traffic:
  """Reads the traffic from `jax.stages.Compiled.as_text()`."""
  computations, entry = _parse(text)
  runs = _runs(computations, entry)
  moved, count, size = 0, Counter(), Counter()
  cycles, kernels = 0, 0
  for name, times in runs.items():
    body = computations[name]
    fused = times.fused
    shapes = {i.name: i.shape for i in body}
    for instruction in body:
      kind = instruction.opcode.removesuffix("-start")
      if kind in COLLECTIVES:
        count[kind] += times.times
        result = _result(instruction)
        size[kind] += times.times * _size(result, on_chip=True)
      estimate = _CYCLES.search(instruction.text)
      cycles += times.times * int(estimate[1]) if estimate else 0
      kernels += times.times * (_KERNEL in instruction.text)
      if not fused:
        moved += times.times * _moved(instruction, shapes, computations)
  return Traffic(moved, dict(count), dict(size), cycles, kernels)


@dataclasses.dataclass
class _Run:
  times: int = 0
  fused: bool = False  # whether the computation is part of a fusion


def _runs(computations, entry: str) -> dict[str, _Run]:
  """Counts how often each computation runs, by name."""
  runs: dict[str, _Run] = {}

  def visit(name: str, times: int, fused: bool) -> None:
    run = runs.setdefault(name, _Run())
    run.times += times
    run.fused = fused
    for instruction in computations[name]:
      repeated = _trips(instruction, computations)
      inside = fused or instruction.opcode in ("fusion", "reduce", "scatter")
      for names in _CALLED.findall(instruction.text):
        for called in _NAME.findall(names):
          if called in computations:
            visit(called, times * repeated, inside)

  visit(entry, 1, False)
  return runs


def _trips(instruction: _Instruction, computations) -> int:
  """Number of runs of a loop: JAX counts from 0 up to a constant; else 1."""
  if known := _TRIPS.search(instruction.text):
    return int(known[1])
  condition = _CONDITION.search(instruction.text)
  if condition is None:
    return 1
  body = {i.name: i for i in computations[condition[1]]}
  for compare in body.values():
    if compare.opcode == "compare" and "direction=LT" in compare.text:
      limit = body.get(compare.operands[1])
      if limit is not None and limit.opcode == "constant":
        return int(limit.text.split(")")[0])
  return 1


def _moved(instruction: _Instruction, shapes, computations) -> int:
  """Bytes of memory that an instruction reads and writes."""
  if instruction.opcode in _MOVE_NOTHING or instruction.opcode.endswith(
    "-done"
  ):
    return 0
  operands = [shapes.get(name, "") for name in instruction.operands]
  if instruction.opcode == "custom-call" and not operands:
    return 0  # a buffer, not yet filled
  if instruction.opcode == "dynamic-slice":
    return 2 * _size(instruction.shape)
  if instruction.opcode == "dynamic-update-slice":
    return 2 * _size(operands[1])
  if instruction.opcode == "copy-start":
    return _size(operands[0]) + _size(_result(instruction))
  if instruction.opcode != "fusion":
    return sum(map(_size, operands)) + _size(_result(instruction))
  return _moved_by_fusion(operands, instruction, computations)


def _moved_by_fusion(operands: Sequence[str], fusion, computations) -> int:
  """Bytes that a fusion moves: only a slice, where it takes or updates one."""
  total, written = 0, _size(fusion.shape)
  for number, shape in enumerate(operands):
    whole = _size(shape)
    if not whole:
      continue
    read, updated = _touched(number, fusion, computations)
    total += whole if read is None else min(read, whole)
    if updated:
      written += updated - whole
  return total + max(0, written)


def _touched(number: int, fusion, computations) -> tuple[int | None, int]:
  """Bytes of an operand read by slices (None: all) and updated in place."""
  called = _CALLED.findall(fusion.text)[0]
  body = computations[_NAME.findall(called)[0]]
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
      read += _size(user.shape, on_chip=True)
    elif user.opcode == "dynamic-update-slice" and user.operands[0] in names:
      updated += _size(shapes[user.operands[1]], on_chip=True)
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


def _result(instruction: _Instruction) -> str:
  """The shape of an instruction's result; a start's once it is done."""
  if not instruction.opcode.endswith("-start"):
    return instruction.shape
  arrays = [m[0] for m in _ARRAY.finditer(instruction.shape)]
  # A collective has (operand, result, context...), a copy (result, operand,
  # ...).
  first = 0 if instruction.opcode == "copy-start" else 1
  return arrays[min(first, len(arrays) - 1)]


def _size(shape: str, on_chip: bool = False) -> int:
  """Bytes in memory of an array, or of a tuple of them, padded to tiles.

  An array that lies on the chip takes none, unless `on_chip` is set.
  """
  total = 0
  for dtype, dims, layout in _ARRAY.findall(shape):
    if dtype not in _BYTES or ("S(" in layout and not on_chip):
      continue
    sizes = [int(d) for d in dims.split(",") if d]
    order, _, tiling = layout.partition(":")
    tile = re.match(r"T\(([\d,]+)\)", tiling)
    if tile and sizes:
      minor = [int(d) for d in order.split(",")]
      for d, step in zip(minor, tile[1].split(",")[::-1], strict=False):
        sizes[d] = -(-sizes[d] // int(step)) * int(step)
    total += math.prod(sizes) * _BYTES[dtype]
  return total


def _parse(text: str) -> tuple[dict[str, list[_Instruction]], str]:
  """(instructions by computation, the name of the entry)."""
  computations: dict[str, list[_Instruction]] = {}
  entry, current = "", None
  for line in text.splitlines():
    if line.endswith("{") and " = " not in line.split("->")[0]:
      name = _NAME.search(line)
      if name is None:
        continue
      current = computations.setdefault(name[0], [])
      entry = name[0] if line.startswith("ENTRY") else entry
    elif line.startswith("}"):
      current = None
    elif current is not None and " = " in line:
      current.append(_instruction(line))
  return computations, entry


def _instruction(line: str) -> _Instruction:
  name, rest = line.strip().removeprefix("ROOT ").split(" = ", 1)
  end = _closing(rest) if rest.startswith("(") else rest.index(" ")
  shape, rest = rest[:end], rest[end:].lstrip()
  opcode, _, arguments = rest.partition("(")
  end = _closing("(" + arguments) - 2
  operands = tuple(_NAME.findall(arguments[:end]))
  # A parameter's number and a constant stand where others have operands.
  literal = opcode in ("parameter", "constant")
  after = arguments if literal else arguments[end + 1 :]
  return _Instruction(name, shape, opcode, operands, after)


def _closing(text: str) -> int:
  """Place behind the bracket that closes the first one."""
  depth = 0
  for place, character in enumerate(text):
    depth += (character == "(") - (character == ")")
    if not depth:
      return place + 1
  raise ValueError(f"unbalanced brackets: {text[:80]}")
