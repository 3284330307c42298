"""Tests of magvit/tokenizer/fingerprint.py: what makes tokenizers differ."""

import json

import ml_collections
import numpy as np

from magvit.tokenizer import fingerprint
from tests import tiny


def test_a_fingerprint_is_of_config_names_and_bytes_and_nothing_else():
  config = tiny.tokenizer()
  params = {"b": {"kernel": np.ones((2, 3), np.float32)}, "a": np.zeros(2)}
  of = lambda params, **changes: fingerprint.fingerprint(
    _changed(config, changes), params
  )
  assert of(params) == of({"a": np.zeros(2), "b": params["b"]})
  assert of(params) == of(params, name="another", num_steps=1)
  stored = ml_collections.ConfigDict(json.loads(config.to_json()))
  assert of(params) == fingerprint.fingerprint(stored, params)
  assert of(params) != of(params, **{"quantizer.bits": 7})
  for remat in ("auto", "all,off"):  # runs of before have "off" there
    assert of(params, **{"tokenizer.remat": remat}) == of(
      params, **{"tokenizer.remat": "off"}
    )
  assert of(params) != of(params, **{"tokenizer.padding": "zero"})
  for other in (
    {**params, "a": np.full(2, -0.0)},
    {**params, "a": np.zeros((2, 1))},
    {**params, "a": np.zeros(2, np.int64)},
    {"b": params["b"], "c": params["a"]},
  ):
    assert of(params) != of(other)
  assert len(of(params)) == 64


def test_fields_that_came_later_count_when_they_are_used():
  """Files coded by a generator of before stay readable."""
  config, params = tiny.masked(""), {"a": np.zeros(2)}
  of = lambda config: fingerprint.fingerprint(
    config, params, ("transformer", "sampling")
  )
  old = ml_collections.ConfigDict(config.to_dict())
  del old.transformer.condition_hints
  del old.sampling.carry_detail
  assert of(config) == of(old)
  for field in ("transformer.condition_hints", "sampling.carry_detail"):
    assert of(_changed(config, {field: True})) != of(old)
  assert of(_changed(config, {"transformer.dropout": 0.5})) != of(old)


def _changed(config, changes):
  changed = ml_collections.ConfigDict(config.to_dict())
  changed.update_from_flattened_dict(changes)
  return changed
