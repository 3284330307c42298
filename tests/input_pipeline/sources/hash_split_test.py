"""Tests of the split by names: a file stays where it is."""

import unicodedata

import pytest

from input_pipeline.sources import hash_split

_NAMES = [f"a/{number}.jpg" for number in range(1000)]


def _chosen(names, share=0.1):
  held_out = hash_split.is_held_out(names, share)
  return {name for name, out in zip(names, held_out, strict=True) if out}


def test_a_file_stays_in_its_split_whatever_comes_and_goes():
  whole = _chosen(_NAMES)
  assert 70 < len(whole) < 130
  assert _chosen(_NAMES[::-1]) == whole
  assert _chosen(_NAMES[500:]) == whole & set(_NAMES[500:])
  assert whole < _chosen(_NAMES, 0.2)


def test_the_split_is_that_of_every_machine_and_version():
  names = ["1.jpg", "2.jpg", "3.jpg", "4.jpg", "cats/1.jpg", "cats/2.jpg"]
  assert _chosen(names, 0.5) == {"1.jpg", "cats/2.jpg"}
  accents = ["\u00e9.jpg", "x.jpg", "y.jpg", "z.jpg"]
  for share in (0.2, 0.4, 0.6, 0.8):
    composed = hash_split.is_held_out(accents, share)
    apart = [unicodedata.normalize("NFD", name) for name in accents]
    assert apart != accents
    assert hash_split.is_held_out(apart, share) == composed


@pytest.mark.parametrize("share", [1e-9, 0.1, 1 - 1e-9])
def test_both_splits_have_a_file(share):
  for count in (2, 3, 12):
    held_out = _chosen(_NAMES[:count], share)
    assert 1 <= len(held_out) < count
  with pytest.raises(ValueError, match="1 files cannot be split"):
    hash_split.is_held_out(["a"], share)
