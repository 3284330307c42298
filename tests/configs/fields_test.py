"""Tests of configs/fields.py."""

import math

import ml_collections
import pytest

from configs import base
from configs import fields
from configs import latent_base
from configs import recognition_base

_MAKERS = (
  base.tokenizer,
  base.masked,
  base.autoregressive,
  latent_base.latent_generator,
  latent_base.masked_diffusion,
  latent_base.next_frame_flow,
  latent_base.diffusion,
  recognition_base.recognition,
)


def _numbers(node, prefix=""):
  """Names of the fields that hold a number, or a tuple of them."""
  for key, value in node.items():
    if isinstance(value, ml_collections.ConfigDict):
      yield from _numbers(value, f"{prefix}{key}.")
    else:
      first = value[0] if isinstance(value, tuple) and value else value
      if isinstance(first, (int, float)) and not isinstance(first, bool):
        yield prefix + key


def test_every_number_of_every_config_has_a_range():
  named = {name for maker in _MAKERS for name in _numbers(maker())}
  ranged = {
    f"{section}.{field}".lstrip(".")
    for section, ranges in fields.RANGES.items()
    for field in ranges
  }
  assert named == ranged


def test_every_path_is_a_field():
  configs = [maker() for maker in _MAKERS]
  names = {
    name.removesuffix(".") for config in configs for name in _paths(config)
  }
  assert names >= {*fields.PATHS, *fields.WEIGHTED_PATHS}
  # What is named like a path is one.
  likely = ("path", "weights", "workdir", "_from", "lists", "tokens")
  flags = {"codebook_from_data"}
  assert {name for name in names - flags if name.endswith(likely)} <= {
    *fields.PATHS
  }


def _paths(node, prefix=""):
  for key, value in node.items():
    if isinstance(value, ml_collections.ConfigDict):
      yield from _paths(value, f"{prefix}{key}.")
    else:
      yield prefix + key


@pytest.mark.parametrize("maker", _MAKERS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -2])
def test_no_number_may_be_absurd(maker, value):
  for name in _numbers(maker()):
    config = {}
    *sections, field = name.split(".")
    node = config
    for section in sections:
      node = node.setdefault(section, {})
    node[field] = value
    with pytest.raises(ValueError, match=f"^{name}={value} must be"):
      fields.check(config)


@pytest.mark.parametrize(
  "allowed, inside, outside",
  [
    (fields.COUNT, [1, 2**31 - 1], [0, -1, 1.0, True, "1", None, 2**31]),
    (fields.SEED, [0, 2**32 - 1], [-1, 2**32]),
    (fields.Range(0), [0, 1e300, 10**9], [-1e-9, math.nan, 10**400, "0", []]),
    (fields.Range(0, 1, low_open=True), [1e-9, 1], [0, 1.1, math.nan]),
    (fields.Range(0, 1, high_open=True), [0, 0.999], [1, -0.1, math.nan]),
  ],
)
def test_ranges_hold_their_ends_unless_open(allowed, inside, outside):
  for value in inside:
    allowed.check("x", value)
  for value in outside:
    with pytest.raises(ValueError, match="^x=.* must be "):
      allowed.check("x", value)


def test_numbers_without_a_range_are_finite():
  fields.check({"other": {"field": 1.0}, "word": "nan", "none": None})
  with pytest.raises(ValueError, match="other.field=nan must be a finite"):
    fields.check({"other": {"field": (0, math.nan)}})


def test_a_choice_of_remat_is_one_or_one_for_each_level():
  config = base.tokenizer()
  config.num_steps = config.batch_size = config.dataset.eval_examples = 1
  for value in ("auto", "off", "dots", "all", "all,dots,off,off"):
    config.tokenizer.remat = value
    fields.check(config)
  for value in ("some", "all,off", "auto,off,off,off", ""):
    config.tokenizer.remat = value
    match = f"^tokenizer.remat={value!r} must be .*'all,off,off,off'$"
    with pytest.raises(ValueError, match=match):
      fields.check(config)
