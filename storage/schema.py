"""JSON files that others may have written, checked against dataclasses.

`load` gives the dataclass that a file describes, or one line of ValueError with
the file, the field, its value and what was expected there. The types of the
fields are the rules: numbers, texts, None, tuples, dicts by name, dataclasses,
unions of them, and Any for JSON of any kind, as it is. A rule in Annotated adds
a range: `Annotated[int, at_least(1)]`. Files are bounded in bytes and in depth
before anything else is done.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
import dataclasses
import functools
import json
import math
import os
import re
import stat
import types
import typing
from typing import Any

from storage import stores

MOST_BYTES = 2**25
MOST_DEPTH = 32  # lists and objects in each other
_SHORT = 60  # characters of a name or value that an error shows
_MOST_DIGITS = 100  # digits of a whole number


@dataclasses.dataclass(frozen=True)
class Rule:
  """A condition on a value of the right type, and words on it."""

  words: str
  holds: Callable[[Any], bool]


def at_least(smallest: float) -> Rule:
  return Rule(f"of at least {smallest}", lambda value: value >= smallest)


def one_of(*values: Any) -> Rule:
  listed = ", ".join(map(repr, values))
  return Rule(f"out of {listed}", lambda value: value in values)


def matches(pattern: str, words: str) -> Rule:
  """A text that a regular expression describes, and words on it."""
  return Rule(words, lambda value: re.fullmatch(pattern, value) is not None)


SHA256 = matches(r"[0-9a-f]{64}", "of 64 hexadecimal digits")
FILE_NAME = Rule(
  "that names a file in the same folder",
  lambda name: name not in ("", ".", "..") and not set("/\\\0") & set(name),
)
FINITE = Rule("that is finite", math.isfinite)


def load(path: str | os.PathLike, kind: Any, remedy: str = "") -> Any:
  """The dataclass, or another type, that a JSON file describes.

  Args:
    path: the file.
    kind: the dataclass or type.
    remedy: what to do about a file that is refused, for the error.

  Raises:
    ValueError: a file that cannot be read, is no JSON or not of that kind.
  """
  return convert(read(path, remedy), kind, os.fspath(path), remedy)


def read(
  path: str | os.PathLike, remedy: str = "", most_bytes: int = MOST_BYTES
) -> Any:
  """The value of a JSON file; ValueError that names the file if there is none.

  A file larger than `most_bytes` is not read.
  """
  name = os.fspath(path)
  try:
    # A pipe would keep its reader waiting for ever.
    if not _is_regular(name):
      raise ValueError(f"{name} is not a regular file{_end(remedy)}")
    size = stores.size(name)
    if size > most_bytes:
      raise ValueError(
        f"{name} has {size} bytes, more than the {most_bytes} that are read"
        f"{_end(remedy)}"
      )
    text = stores.read(name)
  except OSError as error:
    raise ValueError(
      f"cannot read {name} ({error.strerror}){_end(remedy)}"
    ) from error
  return parse(text, name, remedy)


def _is_regular(name: str) -> bool:
  """Whether a file is one of bytes; FileNotFoundError if there is none."""
  return stores.is_url(name) or stat.S_ISREG(os.stat(name).st_mode)


def parse(text: str | bytes, name: str, remedy: str = "") -> Any:
  """The value of JSON text; ValueError that begins with `name`."""
  try:
    value = json.loads(text, object_pairs_hook=_object, parse_int=_whole)
  except RecursionError:
    raise ValueError(_too_deep(name, remedy)) from None
  except ValueError as error:
    raise ValueError(
      f"{name} is not JSON, so it is damaged ({error}){_end(remedy)}"
    ) from error
  layer, depth = [value], 0
  while layer:
    depth += 1
    if depth > MOST_DEPTH:
      raise ValueError(_too_deep(name, remedy))
    layer = [
      inner
      for outer in layer
      for inner in _inside(outer)
      if isinstance(inner, dict | list)
    ]
  return value


def convert(
  value: Any, kind: Any, name: str, remedy: str = "", field: str = ""
) -> Any:
  """A value of JSON as a dataclass or another type.

  Args:
    value: the value, with lists and dicts as `json` gives them.
    kind: the dataclass or type.
    name: name of the file, with which errors begin.
    remedy: what to do about it.
    field: field of the file that has the value; "": all of it.

  Raises:
    ValueError: a value that is not of that kind.
  """
  try:
    return _convert(value, kind, field)
  except _Mismatch as error:
    raise ValueError(f"{name}: {error}{_end(remedy)}") from None


class _Mismatch(Exception):
  """A value that is not of its type."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  fields = dict(pairs)
  if len(fields) < len(pairs):
    names = [name for name, _ in pairs]
    twice = next(name for name in names if names.count(name) > 1)
    raise ValueError(f"it has the field {twice!r} twice")
  return fields


def _whole(digits: str) -> int:
  # No field needs more, and numbers that no float holds break those who show
  # them.
  if len(digits) > _MOST_DIGITS:
    raise ValueError(f"it has a number of {len(digits)} digits")
  return int(digits)


def _inside(value: Any) -> Iterable[Any]:
  return (
    value.values()
    if isinstance(value, dict)
    else value
    if (isinstance(value, list))
    else ()
  )


def _convert(value: Any, kind: Any, field: str) -> Any:
  if kind is Any:
    return value
  origin, arguments = typing.get_origin(kind), typing.get_args(kind)
  if origin is typing.Annotated:
    try:
      converted = _convert(value, arguments[0], field)
    except _Mismatch:  # say the rules, too
      raise _Mismatch(_expected(value, kind, field)) from None
    if not all(rule.holds(converted) for rule in arguments[1:]):
      raise _Mismatch(_expected(value, kind, field))
    return converted
  if origin in (types.UnionType, typing.Union):
    return _one_of_several(value, kind, field)
  if dataclasses.is_dataclass(kind):
    return _dataclass(value, typing.cast(type, kind), field)
  if origin is tuple and isinstance(value, list):
    return _tuple(value, kind, field)
  if origin is dict and isinstance(value, dict):
    return {
      _convert(key, arguments[0], field): _convert(
        inner, arguments[1], _below(field, key)
      )
      for key, inner in value.items()
    }
  if kind is float and type(value) is int:
    return value
  if kind in (bool, int, float, str, types.NoneType) and type(value) is kind:
    return value
  raise _Mismatch(_expected(value, kind, field))


def _one_of_several(value: Any, kind: Any, field: str) -> Any:
  for option in typing.get_args(kind):
    try:
      return _convert(value, option, field)
    except _Mismatch:
      continue
  raise _Mismatch(_expected(value, kind, field))


def _tuple(value: list, kind: Any, field: str) -> tuple:
  kinds = typing.get_args(kind)
  if kinds[1:] == (...,):
    kinds = (kinds[0],) * len(value)
  if len(kinds) != len(value):
    raise _Mismatch(_expected(value, kind, field))
  pairs = enumerate(zip(value, kinds, strict=True))
  return tuple(_convert(v, k, f"{field}[{i}]") for i, (v, k) in pairs)


@functools.cache
def _types(kind: type) -> Mapping[str, Any]:
  return typing.get_type_hints(kind, include_extras=True)


def _dataclass(value: Any, kind: type, field: str) -> Any:
  if not isinstance(value, dict):
    raise _Mismatch(_expected(value, kind, field))
  known = {f.name: f for f in dataclasses.fields(kind)}
  for name in value:
    if name not in known:
      raise _Mismatch(
        f"{_below(field, name)} is unknown; the fields are {', '.join(known)}"
      )
  given = {}
  for name, described in known.items():
    below = _below(field, name)
    if name in value:
      given[name] = _convert(value[name], _types(kind)[name], below)
    elif described.default is dataclasses.MISSING and (
      described.default_factory is dataclasses.MISSING
    ):
      raise _Mismatch(
        f"{below} is missing, expected {_words(_types(kind)[name])}"
      )
  return kind(**given)


def _below(field: str, name: str) -> str:
  # A name may be long, or hold a line feed.
  is_plain = name.isidentifier() and len(name) <= _SHORT
  plain = name if is_plain else _short(name)
  return f"{field}.{plain}" if field else plain


def _expected(value: Any, kind: Any, field: str) -> str:
  return f"{field or 'it'} is {_short(value)}, expected {_words(kind)}"


def _short(value: Any) -> str:
  if isinstance(value, dict):
    return f"an object of {len(value)}"
  if isinstance(value, list):
    return f"a list of {len(value)}"
  if value is None or isinstance(value, bool):
    return json.dumps(value)
  return brief(ascii(value))


def brief(text: object, most: int = _SHORT) -> str:
  """The start of a text of others, like an error of a library, in one line."""
  words = " ".join(str(text).split())
  return words if len(words) <= most else f"{words[: most - 3]}..."


_WORDS = {
  bool: "true or false",
  int: "a whole number",
  float: "a number",
  str: "a text",
  types.NoneType: "null",
  Any: "anything",
}


def _words(kind: Any) -> str:
  """Words on a type, for errors."""
  origin, arguments = typing.get_origin(kind), typing.get_args(kind)
  if origin is typing.Annotated:
    rules = " ".join(rule.words for rule in arguments[1:])
    return f"{_words(arguments[0])} {rules}"
  if origin in (types.UnionType, typing.Union):
    return " or ".join(map(_words, arguments))
  if origin is tuple:
    if arguments[1:] == (...,):
      return f"a list, each {_words(arguments[0])}"
    return f"a list of {len(arguments)}: {', '.join(map(_words, arguments))}"
  if origin is dict:
    return f"an object, each {_words(arguments[1])}"
  if dataclasses.is_dataclass(kind):
    names = (f.name for f in dataclasses.fields(kind))
    return f"an object with {', '.join(names)}"
  return _WORDS[kind]


def _too_deep(name: str, remedy: str) -> str:
  return (
    f"{name} nests lists and objects more than {MOST_DEPTH} deep{_end(remedy)}"
  )


def _end(remedy: str) -> str:
  return f": {remedy}" if remedy else ""
