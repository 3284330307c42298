"""Records of a network's settings, read from the sections of a config."""

from collections.abc import Mapping
import dataclasses
from typing import Any
from typing import TypeVar

Record = TypeVar("Record")


def read(record: type[Record], section: Mapping[str, Any]) -> Record:
  """Reads a dataclass from a section, whose other fields are ignored."""
  return record(**{name: section[name] for name in _names(record)})


def split(
  record: type[Record], section: Mapping[str, Any]
) -> tuple[Record, dict[str, Any]]:
  """Splits a section into (its `record`, a dict of the other fields)."""
  names = _names(record)
  rest = {name: x for name, x in section.items() if name not in names}
  return read(record, section), rest


def _names(record) -> list[str]:
  return [field.name for field in dataclasses.fields(record)]
