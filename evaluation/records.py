"""Lines of metrics.jsonl: a training step, and numbers by name.

The file is written line by line, and a run that is killed leaves a torn one. So
a line that says nothing is no error, and readers count it instead.
"""

import os
from typing import Annotated
from typing import Any

import numpy as np

from storage import schema
from storage import stores

_TAIL = 2**18  # bytes of the file that surely hold its last line
_STEP = Annotated[int, schema.at_least(0)]
_VALUE = float | tuple[float, ...]


def read_line(line: str) -> tuple[int, dict[str, float | tuple]] | None:
  """(step, {name: number, or one of each channel}); None for a damaged line.

  Texts and the like, which no curve shows, are left out.
  """
  try:
    fields = schema.convert(schema.parse(line, "line"), dict[str, Any], "line")
    step = schema.convert(fields.pop("step", None), _STEP, "line")
  except ValueError:
    return None
  values = {}
  for name, value in fields.items():
    try:
      number = schema.convert(value, _VALUE, "line")
    except ValueError:
      continue
    if number != ():
      values[name] = number
  return step, values


def last_step(path: str | os.PathLike) -> int:
  """The newest step of training in the last lines of metrics.jsonl; 0: none."""
  if not stores.is_file(path):
    return 0
  with stores.opened(path) as f:
    f.seek(max(stores.size(os.fspath(path)) - _TAIL, 0))
    lines = f.read().decode(errors="replace").splitlines()
  read = filter(None, map(read_line, lines))
  return max((step for step, _ in read), default=0)


def read_metrics(
  path: str | os.PathLike,
) -> tuple[dict[str, dict[int, float | tuple]], int]:
  """({metric: {step: value}}, number of damaged lines) of metrics.jsonl.

  A run that was killed and resumed repeats steps: the later line counts. The
  last line may be torn because the run is just writing it, which is no damage;
  a torn line further up is left from a killed run.
  """
  if not stores.is_file(path):
    return {}, 0
  metrics, damaged = {}, set()
  # The text after the last newline is empty or torn.
  with open(stores.fetched(path), errors="replace") as f:
    lines = f.read().split("\n")
  for row, line in enumerate(lines):
    read = read_line(line)
    if read is None:
      damaged.add(row)
      continue
    step, values = read
    values.pop("time", None)
    for name, value in values.items():
      curve = metrics.setdefault(name, {})
      if curve and np.shape(next(iter(curve.values()))) != np.shape(value):
        damaged.add(row)  # another number of channels than before
        continue
      curve[step] = value
  return metrics, len([row for row in damaged if row + 1 < len(lines)])
