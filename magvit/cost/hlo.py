"""Text of a compiled program (HLO): instructions, and how often each runs."""

import dataclasses
import math
import re

_BYTES = {
  **dict.fromkeys(("pred", "s8", "u8", "f8e4m3fn", "f8e5m2"), 1),
  **dict.fromkeys(("bf16", "f16", "s16", "u16"), 2),
  **dict.fromkeys(("f32", "s32", "u32"), 4),
  **dict.fromkeys(("f64", "s64", "u64"), 8),
}
ARRAY = re.compile(r"(\w+)\[([\d,]*)\](?:\{([^}]*)\})?")
CALLED = re.compile(
  r"(?:calls|body|condition|to_apply|branch_computations"
  r"|true_computation|false_computation)=\{?((?:%[\w.\-]+(?:, )?)+)"
)
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_CONDITION = re.compile(r"condition=(%[\w.\-]+)")
NAME = re.compile(r"%[\w.\-]+")


@dataclasses.dataclass(frozen=True)
class Instruction:
  name: str
  shape: str
  opcode: str
  operands: tuple[str, ...]
  text: str  # rest of the line, after the operands


@dataclasses.dataclass
class Run:
  times: int = 0
  fused: bool = False  # whether the computation is part of a fusion


def count_runs(computations, entry: str) -> dict[str, Run]:
  """Counts how often each computation runs, by name."""
  runs: dict[str, Run] = {}

  def visit(name: str, times: int, fused: bool) -> None:
    run = runs.setdefault(name, Run())
    run.times += times
    run.fused = fused
    for instruction in computations[name]:
      repeated = _trips(instruction, computations)
      inside = fused or instruction.opcode in ("fusion", "reduce", "scatter")
      for names in CALLED.findall(instruction.text):
        for called in NAME.findall(names):
          if called in computations:
            visit(called, times * repeated, inside)

  visit(entry, 1, False)
  return runs


def _trips(instruction: Instruction, computations) -> int:
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


def result_of(instruction: Instruction) -> str:
  """The shape of an instruction's result; a start's once it is done."""
  if not instruction.opcode.endswith("-start"):
    return instruction.shape
  arrays = [m[0] for m in ARRAY.finditer(instruction.shape)]
  # A collective has (operand, result, context...), a copy (result, operand,
  # ...).
  first = 0 if instruction.opcode == "copy-start" else 1
  return arrays[min(first, len(arrays) - 1)]


def first_of(instruction: Instruction) -> str:
  """The shape of the first array of an instruction's results."""
  array = ARRAY.search(instruction.shape)
  return array[0] if array else ""


def size_of(shape: str, on_chip: bool = False) -> int:
  """Bytes in memory of an array, or of a tuple of them, padded to tiles.

  An array that lies on the chip takes none, unless `on_chip` is set.
  """
  total = 0
  for dtype, dims, layout in ARRAY.findall(shape):
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


def parse(text: str) -> tuple[dict[str, list[Instruction]], str]:
  """(instructions by computation, the name of the entry)."""
  computations: dict[str, list[Instruction]] = {}
  entry, current = "", None
  for line in text.splitlines():
    if line.endswith("{") and " = " not in line.split("->")[0]:
      name = NAME.search(line)
      if name is None:
        continue
      current = computations.setdefault(name[0], [])
      entry = name[0] if line.startswith("ENTRY") else entry
    elif line.startswith("}"):
      current = None
    elif current is not None and " = " in line:
      current.append(_instruction(line))
  return computations, entry


def _instruction(line: str) -> Instruction:
  name, rest = line.strip().removeprefix("ROOT ").split(" = ", 1)
  end = _closing(rest) if rest.startswith("(") else rest.index(" ")
  shape, rest = rest[:end], rest[end:].lstrip()
  opcode, _, arguments = rest.partition("(")
  end = _closing("(" + arguments) - 2
  operands = tuple(NAME.findall(arguments[:end]))
  # A parameter's number and a constant stand where others have operands.
  literal = opcode in ("parameter", "constant")
  after = arguments if literal else arguments[end + 1 :]
  return Instruction(name, shape, opcode, operands, after)


def _closing(text: str) -> int:
  """Place behind the bracket that closes the first one."""
  depth = 0
  for place, character in enumerate(text):
    depth += (character == "(") - (character == ")")
    if not depth:
      return place + 1
  raise ValueError(f"unbalanced brackets: {text[:80]}")
