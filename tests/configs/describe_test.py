"""Tests of the page of all fields."""

import pytest

from configs import base
from configs import describe


def _paths(config, prefix=""):
  for name, value in config.items():
    if hasattr(value, "items"):
      yield from _paths(value, f"{prefix}{name}.")
    else:
      yield prefix + name


@pytest.mark.parametrize(
  "make", [base.tokenizer, base.masked, base.autoregressive]
)
def test_every_field_of_every_experiment_has_a_row(make):
  page = describe.page()
  assert not [p for p in _paths(make()) if f"\n| `{p}` | " not in page]


def test_a_field_that_is_set_twice_has_the_last_value_and_one_row():
  of_masked = describe.page().partition("`algorithm = 'masked'`")[2]
  of_masked = of_masked.partition("\n## ")[0]
  assert of_masked.count("`optimizer.weight_decay` | `0.045`") == 1
  assert of_masked.count("`optimizer.weight_decay`") == 1


_FULL = "  c.x = 1  # " + "word " * 13 + "words"  # no room for another


@pytest.mark.parametrize(
  "lines, after, below",
  [
    ([_FULL, "  # go on", "  c.y = 2"], ["go on"], []),
    ([_FULL, "", "  # other", "  c.y = 2"], [], ["other"]),
    (["  c.x = 1  # short", "  # other", "  c.y = 2"], [], ["other"]),
    (["  c.x = 1", "  # one", "  # two", "  c.y = 2"], [], ["one", "two"]),
  ],
)
def test_lines_of_comment_go_on_only_after_a_full_line(lines, after, below):
  behind = lines[0].partition("#")[2]
  of_field, of_next = describe._comments(lines, 0, behind and f"#{behind}")
  assert of_field[bool(behind) :] == after  # its own line comes first
  assert of_next == below
