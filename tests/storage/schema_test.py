"""Tests of storage/schema.py: a dataclass or one line of error."""

import dataclasses
import json
import os
from typing import Annotated
from typing import Any

import numpy as np
import pytest

from storage import schema


@dataclasses.dataclass(frozen=True)
class _Part:
  name: Annotated[str, schema.FILE_NAME]
  sizes: tuple[int, int]


@dataclasses.dataclass(frozen=True)
class _Record:
  count: Annotated[int, schema.at_least(1)]
  rate: Annotated[float, schema.FINITE]
  kind: Annotated[str, schema.one_of("a", "b")]
  parts: tuple[_Part, ...]
  notes: dict[str, str | None]
  free: Any
  whole: bool = True


_FIELDS = {
  "count": 2,
  "rate": 0.5,
  "kind": "a",
  "parts": [{"name": "x.png", "sizes": [1, 2]}],
  "notes": {"k": "v", "n": None},
  "free": {"list": [1, [2]]},
}
_RECORD = _Record(
  *(2, 0.5, "a", (_Part("x.png", (1, 2)),), {"k": "v", "n": None}),
  {"list": [1, [2]]},
)


def _load(tmp_path, text):
  path = tmp_path / "a.json"
  path.write_bytes(text if isinstance(text, bytes) else text.encode())
  return schema.load(path, _Record, "make it again")


def test_a_file_of_the_right_kind_is_the_dataclass(tmp_path):
  assert _load(tmp_path, json.dumps(_FIELDS)) == _RECORD
  assert _load(tmp_path, json.dumps({**_FIELDS, "rate": 1})).rate == 1


@pytest.mark.parametrize(
  "changes, message",
  [
    ({"count": "2"}, "count is '2', expected a whole number of at least 1"),
    ({"count": True}, "count is true, expected a whole number"),
    ({"count": 0}, "count is 0, expected a whole number of at least 1"),
    ({"rate": float("nan")}, "rate is nan, expected a number that is finite"),
    ({"kind": "c\n"}, r"kind is 'c\n', expected a text out of 'a', 'b'"),
    ({"parts": {}}, "parts is an object of 0, expected a list, each an object"),
    ({"parts": [3]}, "parts[0] is 3, expected an object with name, sizes"),
    ({"parts": [{}]}, "parts[0].name is missing, expected a text that names"),
    (
      {"parts": [{"name": "../x", "sizes": [1, 2]}]},
      "parts[0].name is '../x', expected a text that names a file in the same",
    ),
    (
      {"parts": [{"name": "x", "sizes": [1]}]},
      "parts[0].sizes is a list of 1, expected a list of 2: a whole number",
    ),
    ({"notes": {"k": 1}}, "notes.k is 1, expected a text or null"),
    ({"whole": None}, "whole is null, expected true or false"),
    ({"odd\n": 1}, r"'odd\n' is unknown; the fields are count, rate, kind"),
  ],
)
def test_what_is_not_of_its_type_is_named(tmp_path, changes, message):
  text = json.dumps({**_FIELDS, **changes})
  with pytest.raises(ValueError) as error:
    _load(tmp_path, text)
  assert str(error.value).startswith(f"{tmp_path}/a.json: {message}")
  assert str(error.value).endswith(": make it again")


@pytest.mark.parametrize(
  "text, message",
  [
    ("", "not JSON, so it is damaged (Expecting value"),
    ("{", "not JSON, so it is damaged (Expecting property name"),
    (b"\xff\xfe{}\x80", "not JSON, so it is damaged ("),
    (
      '{"a": 1, "a": 2}',
      "not JSON, so it is damaged (it has the field 'a' twice",
    ),
    ("[" * 40 + "]" * 40, "nests lists and objects more than 32 deep"),
    ("[" * 10**6 + "]" * 10**6, "nests lists and objects more than 32 deep"),
    ('{"a":' * 10**5, "nests lists and objects more than 32 deep"),
    ("1" * 101, "(it has a number of 101 digits)"),
    ("[]", "it is a list of 0, expected an object with count"),
    ("null", "it is null, expected an object"),
  ],
)
def test_what_is_no_such_json_is_one_line(tmp_path, text, message):
  with pytest.raises(ValueError) as error:
    _load(tmp_path, text)
  assert message in str(error.value)
  assert str(error.value).startswith(f"{tmp_path}/a.json")
  assert "\n" not in str(error.value)


def test_pipes_folders_missing_and_large_files_are_not_read(tmp_path):
  os.mkfifo(tmp_path / "pipe")
  for name, message in (
    ("pipe", "is not a regular file"),
    (".", "cannot read .*directory|is not a regular file"),
    ("missing", "cannot read .*missing .No such file"),
  ):
    with pytest.raises(ValueError, match=message):
      schema.read(tmp_path / name)
  (tmp_path / "large").write_text(" " * 100 + "1")
  with pytest.raises(ValueError, match="has 101 bytes, more than the 100"):
    schema.read(tmp_path / "large", most_bytes=100)


_VALUES = (None, True, -1, 2**70, 1e400, "", "..", "é\n\0", [], {}, [[1]])


def _mutated(value, rng):
  """A copy of a value of JSON in which something is of another kind."""
  if rng.random() < 0.2 or not isinstance(value, dict | list) or not value:
    return _VALUES[rng.integers(len(_VALUES))]
  keys = list(value) if isinstance(value, dict) else list(range(len(value)))
  key = keys[rng.integers(len(keys))]
  copy = value.copy()
  if rng.random() < 0.2:
    del copy[key]
  else:
    copy[key] = _mutated(copy[key], rng)
  return copy


def test_mutated_files_are_one_line_or_the_dataclass(tmp_path):
  rng, refused = np.random.default_rng(0), 0
  for number in range(500):
    text = json.dumps(_mutated(_FIELDS, rng)).encode()
    if number % 3 == 0:
      damaged = bytearray(text)
      damaged[rng.integers(len(text))] = rng.integers(256)
      text = bytes(damaged)
    try:
      assert isinstance(_load(tmp_path, text), _Record)
    except ValueError as error:
      assert str(error).startswith(f"{tmp_path}/a.json")
      assert "\n" not in str(error)
      refused += 1
  assert refused > 300
