"""Fields of a config as the rest of the program reads them."""

import ml_collections

from configs import fields
from storage import paths

_ON_DISK = ("dataset.lists",)  # the other fields may name object stores


def resolved(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """Copies a config, with ~ and $VARIABLES of its paths replaced.

  Raises:
    ValueError: a number that is out of the range of its field, or a path that
      cannot be expanded; the field is named.
  """
  fields.check(config)
  config = config.copy_and_resolve_references()
  for name in (*fields.PATHS, *fields.WEIGHTED_PATHS):
    section, field = config, name
    while "." in field and section is not None:
      head, _, field = field.partition(".")
      section = section.get(head)
    if section is not None and field in section:
      weighted = name in fields.WEIGHTED_PATHS
      section[field] = _expanded(name, section[field], weighted)
  return config


def _expanded(name: str, value, weighted: bool):
  """The value of a field: a path, or a sequence of "WEIGHT:FOLDER"."""
  parts = value if weighted else (value,)
  if not all(isinstance(part, str) for part in parts):
    kind = "texts WEIGHT:FOLDER" if weighted else "a text, the path"
    raise ValueError(f"{name}={value!r} must be {kind}")
  try:
    if not weighted:
      return paths.expand(value, urls=name not in _ON_DISK)
    pairs = (part.partition(":") for part in value)
    return tuple(
      f"{weight}{colon}{paths.expand(folder, urls=True)}"
      for weight, colon, folder in pairs
    )
  except ValueError as error:
    raise ValueError(f"{name}={error}") from error
