"""Tests of paths of models, as magvit/api.py and storage/paths.py take them."""

import pathlib

import pytest

import magvit


def test_paths_have_homes_and_variables(tiny_tokenizer_workdir, monkeypatch):
  home, _, name = tiny_tokenizer_workdir.rpartition("/")
  monkeypatch.setenv("HOME", home)
  monkeypatch.setenv("RUN", name)
  tokenizer = magvit.load_tokenizer("~/$RUN")
  assert tokenizer.config.name == "tiny tokenizer"
  with pytest.raises(ValueError, match="the variable NO_RUN is not set"):
    magvit.load_tokenizer("~/$NO_RUN")
  with pytest.raises(ValueError, match=f"^{home}/{name} .*does not generate"):
    magvit.load_generator(f"~/{name}")


def test_paths_are_objects_or_text(tiny_generator_workdir, monkeypatch):
  path = pathlib.Path(tiny_generator_workdir)
  monkeypatch.setenv("HOME", str(path.parent))
  for given in (path, f"~/{path.name}", pathlib.Path("~") / path.name):
    assert magvit.load_tokenizer(given).path == str(path / "tokenizer")
    assert magvit.load_generator(given).path == str(path)


@pytest.mark.parametrize(
  "path, message",
  [
    (None, "None must be a path in text"),
    (7, "7 must be a path in text"),
    (b"run", "b'run' must be a path in text"),
    ("nowhere://bucket/run", "in no such kind of store"),
    ("~no-such-user/run", "~no-such-user is the home of no user"),
    (pathlib.Path("no/such"), "=no/such (is not a directory|holds no)"),
  ],
)
@pytest.mark.parametrize(
  "load",
  [
    magvit.load_tokenizer,
    magvit.load_generator,
    lambda path: magvit.load_program(path, "encode"),
  ],
  ids=["tokenizer", "generator", "program"],
)
def test_what_is_no_path_is_refused(load, path, message):
  with pytest.raises(ValueError, match=message):
    load(path)
