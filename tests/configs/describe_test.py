"""Tests of the page of all fields."""

import ast

import pytest

from configs import base
from configs import describe
from configs import latent_base
from configs import recognition_base


def _paths(config, prefix=""):
  for name, value in config.items():
    if hasattr(value, "items"):
      yield from _paths(value, f"{prefix}{name}.")
    else:
      yield prefix + name


@pytest.mark.parametrize(
  "make",
  [
    base.tokenizer,
    base.masked,
    base.autoregressive,
    latent_base.latent_generator,
    latent_base.masked_diffusion,
    latent_base.next_frame_flow,
    latent_base.diffusion,
    recognition_base.recognition,
  ],
)
def test_every_field_of_every_experiment_has_a_row(make):
  page = describe.page()
  assert not [p for p in _paths(make()) if f"\n| `{p}` | " not in page]


def test_a_field_that_is_set_twice_has_the_last_value_and_one_row():
  of_masked = describe.page().partition("`algorithm = 'masked'`")[2]
  of_masked = of_masked.partition("\n## ")[0]
  assert of_masked.count("`optimizer.weight_decay` | `0.045`") == 1
  assert of_masked.count("`optimizer.weight_decay`") == 1


_FULL = "  c.x = 1  # one" + " word" * 13  # no room for another


@pytest.mark.parametrize(
  "lines, comments",
  [
    (["  c.x = 1  # one", "  c.y = 2  # two"], ["one", "two"]),
    (["  c.x = 1  # one", "  # two", "  c.y = 2"], ["one", "two"]),
    ([_FULL, "  # two", "  c.y = 2"], ["one" + " word" * 13, "two"]),
    (["  # one", "  # or two", "  c.x = 1", "  c.y = 2"], ["one or two", ""]),
    (["  # none", "", "  c.x = (", "    1,", "  )  # one"], ["one"]),
    (["  c.x = 'é'  # one", "  # two"], ["one"]),
  ],
)
def test_a_comment_stands_behind_its_field_or_right_above_it(lines, comments):
  lines = ["def f():", *lines]
  (function,) = ast.parse("\n".join(lines)).body
  fields = describe._fields(function, lines)
  assert [field.comment for field in fields] == comments


def test_every_field_says_what_it_means():
  rows = [r for r in describe.page().splitlines() if r.startswith("| `")]
  assert not [row for row in rows if row.endswith("|  |")]
