"""What the report shows of results/*.json: tables, and words on damage."""

import dataclasses
import logging
import pathlib
from typing import Annotated
from typing import Any

from evaluation.show import markup
from evaluation.show import words
from storage import listing
from storage import schema

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class _Result:
  """What the page reads of results/*.json, which may say more."""

  evaluator: str = ""
  step: Annotated[int, schema.at_least(0)] | None = None
  metrics: dict[str, Any] = dataclasses.field(default_factory=dict)
  protocol: dict[str, Any] = dataclasses.field(default_factory=dict)


def read(folder: pathlib.Path) -> tuple[list[dict[str, Any]], list[str]]:
  """(results in the order of names and steps, a line on each damaged file)."""
  results, damaged = [], []
  paths = folder.glob("*.json")
  for path in sorted(paths, key=lambda path: listing.natural(path.name)):
    try:
      results.append(_read_result(path))
    except ValueError as error:
      damaged.append(" ".join(str(error).split()))
      log.error("left out of the report: %s", damaged[-1])
  results.sort(key=lambda r: (r.get("evaluator", ""), r.get("step", 0)))
  return results, damaged


def _read_result(path):
  """The result in a file; a file of something else raises ValueError."""
  result = schema.load(path, dict[str, Any], "write it again")
  fields = {f.name for f in dataclasses.fields(_Result)}
  known = {name: value for name, value in result.items() if name in fields}
  schema.convert(known, _Result, str(path), "write it again")
  return result


def is_protocol(result):
  """Whether others than training's own evaluation made a result."""
  name, protocol = result.get("evaluator", ""), result.get("protocol", {})
  return "protocol" in protocol or name.startswith("media_")


def cells(result):
  """(label, value, unit, clips, meaning) of each score, for a table."""
  protocol = result.get("protocol", {})
  clips = protocol.get("examples", "")
  for name, value in result.get("metrics", {}).items():
    said = words.score(name)
    yield said.label, markup.plain(value), said.unit, clips, said.meaning
  left_out = protocol.get("left_out")
  for name, reason in (left_out if isinstance(left_out, dict) else {}).items():
    yield words.score(name).label, "–", "", "", f"not measured: {reason}"


def flat(fields, prefix=""):
  """(name, text) of each field of nested JSON, without brackets."""
  for name, value in fields.items():
    if name == "left_out" or value in (None, "", [], {}):
      continue
    if isinstance(value, dict):
      yield from flat(value, f"{prefix}{name}.")
    elif isinstance(value, list):
      yield f"{prefix}{name}", ", ".join(map(markup.plain, value))
    else:
      yield f"{prefix}{name}", markup.plain(value)
