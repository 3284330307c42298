"""Tests of magvit/workdir/stored_config.py."""

import json

import numpy as np
import pytest

from configs import base
from configs import recognition_base
from magvit.workdir import folder as workdir_lib
from magvit.workdir import stored_config

_KINDS = [
  base.tokenizer,
  base.masked,
  base.autoregressive,
  recognition_base.recognition,
]


def _fields(kind):
  return json.loads(kind().to_json())


def _read(tmp_path, fields):
  (tmp_path / "config.json").write_text(json.dumps(fields))
  return _checked(str(tmp_path / "config.json"))


def _checked(path):
  fields = stored_config.read(path)
  stored_config.check(path, fields)
  return fields


@pytest.mark.parametrize("kind", _KINDS)
def test_a_config_comes_back(tmp_path, kind):
  assert _read(tmp_path, _fields(kind)) == _fields(kind)


def test_configs_of_earlier_versions_lack_fields_that_came_later(tmp_path):
  fields = _fields(base.tokenizer)
  del fields["dataset"]["held_out"], fields["evaluation"]
  fields["retired"] = 1
  assert _read(tmp_path, fields) == fields


@pytest.mark.parametrize(
  "section, field, value, message",
  [
    ("quantizer", "bits", "18", "quantizer.bits is '18', expected a whole"),
    ("quantizer", "bits", True, "quantizer.bits is True, expected a whole"),
    ("quantizer", "bits", 2**64, "quantizer.bits is 18446744073709551616, exp"),
    ("quantizer", "bits", None, "quantizer.bits is None"),
    ("quantizer", "more", 1, "the field 'quantizer.more' is unknown"),
    ("loss", "r1", float("nan"), "loss.r1 is nan, expected a finite number"),
    ("tokenizer", "causal", 1, "tokenizer.causal is 1, expected true or false"),
    ("tokenizer", "channel_multipliers", 4, "is no list"),
    ("tokenizer", "channel_multipliers", [1] * 2000, "is no list of at most"),
    ("tokenizer", "channel_multipliers", [1, "2"], r"pliers\[1\] is '2', exp"),
    ("tokenizer", "transformer", [], "transformer is no object of fields"),
  ],
)
def test_a_field_of_another_kind_is_named(
  tmp_path, section, field, value, message
):
  fields = _fields(base.tokenizer)
  fields[section][field] = value
  with pytest.raises(ValueError, match=f"config.json is no config.*{message}"):
    _read(tmp_path, fields)


@pytest.mark.parametrize(
  "text",
  ["", "[]", "{}", '{"algorithm": 1}', "[" * 10**5, '{"algorithm": "masked"}'],
)
def test_what_is_no_config_is_one_line(tmp_path, text):
  (tmp_path / "config.json").write_text(text)
  with pytest.raises(ValueError, match="config.json.*name the direct") as error:
    workdir_lib.read_config(str(tmp_path))
  assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", _KINDS)
def test_mutated_configs_are_one_line_or_read(tmp_path, kind):
  rng, refused = np.random.default_rng(0), 0
  path = tmp_path / "config.json"
  values = (None, True, -1, 2**70, "x", [], {}, [[1]], float("inf"))
  for _ in range(150):
    fields = _fields(kind)
    section = fields
    while True:
      key = list(section)[rng.integers(len(section))]
      if not isinstance(section[key], dict) or rng.random() < 0.2:
        break
      section = section[key]
    if rng.random() < 0.2:
      del section[key]
    else:
      section[key] = values[rng.integers(len(values))]
    path.write_text(json.dumps(fields))
    try:
      assert _checked(str(path))["algorithm"]
    except ValueError as error:
      assert str(error).startswith(str(path)) and "\n" not in str(error)
      refused += 1
  assert refused > 60
