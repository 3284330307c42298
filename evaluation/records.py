"""Lines of metrics.jsonl: a training step, and numbers by name.

The file is written line by line, and a run that is killed leaves a torn one. So
a line that says nothing is no error, and readers count it instead.
"""

from typing import Annotated
from typing import Any

from storage import schema

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
