"""Tests of storage/paths.py."""

import pathlib

import pytest

from storage import paths


def test_homes_and_variables_are_replaced(monkeypatch):
  monkeypatch.setenv("HOME", "/home/me")
  monkeypatch.setenv("DATA", "/data")
  assert paths.expand("~/x") == "/home/me/x"
  assert paths.expand(pathlib.Path("~/x")) == "/home/me/x"
  assert paths.expand("$DATA/a/${DATA}") == "/data/a//data"
  assert paths.expand("~") == "/home/me"
  for same in ("", "none", "a~/b", "./~/x", "/a/b c", "a$", "$", "a/$/b"):
    assert paths.expand(same) == same


@pytest.mark.parametrize("url", ["gs://b/$DATA/~", "s3://b", "https://a/~me"])
def test_addresses_are_no_paths(url):
  with pytest.raises(ValueError, match="is an address, .*mount the bucket"):
    paths.expand(url)


def test_what_cannot_be_expanded_makes_no_folder_of_that_name(
  monkeypatch, tmp_path
):
  monkeypatch.delenv("NOTHING", raising=False)
  monkeypatch.chdir(tmp_path)
  for path in ("$NOTHING/x", "a${NOTHING}"):
    with pytest.raises(ValueError, match="variable NOTHING is not set"):
      paths.expand(path)
  with pytest.raises(ValueError, match="~nobody-here is the home of no user"):
    paths.expand("~nobody-here/x")
  (tmp_path / "price$NOTHING").touch()
  assert paths.expand("price$NOTHING") == "price$NOTHING"


@pytest.mark.parametrize("path", [None, 5, b"x", ["x"]])
def test_what_is_no_path_in_text_is_refused(path):
  with pytest.raises(ValueError, match="must be a path in text, not <class"):
    paths.expand(path)
