"""Words on results of other files that a new result takes the place of."""

import dataclasses
import logging
from typing import Any

from evaluation import evaluators
from storage import files
from storage import schema

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class _Sources:
  """The fields of a result that say which files were measured."""

  file: str | None = None
  folder: str | None = None
  reference: str | None = None


def say(workdir: str, result: evaluators.Result) -> None:
  """Logs if a result of the same name measured another input or reference."""
  path = files.inside(workdir, "results", f"{result.evaluator}.json")
  try:
    old = schema.load(path, dict[str, Any]).get("protocol", {})
    before = _sources(old, path)
  except ValueError:  # there is none, or it is damaged
    return
  now = _sources(result.protocol, path)
  if before != now:
    fields = dataclasses.asdict(before).values()
    names = " against ".join(name for name in fields if name)
    log.warning("%s replaces the scores of %s", path, names or "the model")


def _sources(protocol: Any, path: str) -> _Sources:
  protocol = schema.convert(protocol, dict[str, Any], path)
  made = schema.convert(protocol.get("made_clips") or {}, dict[str, Any], path)
  fields = {
    "file": made.get("file"),
    "folder": made.get("folder"),
    "reference": protocol.get("reference"),
  }
  return schema.convert(fields, _Sources, path)
