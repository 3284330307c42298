"""Tests of --config: own files, stored experiments, a line for each mistake."""

import pytest

from configs import base
from magvit.workdir import folder as workdir_lib
from magvit.workdir import given_config
from tests import tiny

_OWN = """
from configs import base
def get_config():
  c = base.masked()
  c.num_steps = 3
  return c
"""


def test_a_file_of_ones_own_serves(tmp_path):
  path = tmp_path / "my.py"
  path.write_text(_OWN)
  config = given_config.get_config(str(path))
  assert (config.algorithm, config.num_steps) == ("masked", 3)
  path.write_text(_OWN.replace("get_config()", "get_config(arg)"))
  assert given_config.get_config(f"{path}:x").num_steps == 3


@pytest.mark.parametrize(
  "text, expected",
  [
    ("x = (", "my.py, line 1: '.' was never closed: mend the file"),
    ("", "my.py has no get_config: it must define get_config"),
    ("import nothing", "line 1: ModuleNotFoundError: .*'nothing'"),
    ("def get_config():\n  raise KeyError('a b')", "line 2: KeyError: 'a b'"),
    ("def get_config():\n  return {}", "returned dict: it must define"),
    (_OWN.replace("get_config()", "get_config(a)"), "say --config=FILE:ARG"),
    (_OWN.replace("num_steps", "num_step"), "'num_step' is unknown .did you"),
    (_OWN.replace("c.num_steps = 3", "del c.seed"), "field seed is missing"),
    (_OWN.replace("= 3", "= 'three'"), "line 5: TypeError: .*'num_steps'"),
    (
      _OWN.replace("c.num_steps = 3", "del c.dataset"),
      "field dataset.* is missing",
    ),
  ],
)
def test_mistakes_in_a_file_say_where_and_what(tmp_path, text, expected):
  path = tmp_path / "my.py"
  path.write_text(text)
  with pytest.raises(ValueError, match=expected):
    given_config.get_config(str(path))


def test_values_of_a_file_are_its_errors(tmp_path):
  path = tmp_path / "my.py"
  path.write_text("def get_config():\n  raise ValueError('unknown row')")
  with pytest.raises(ValueError, match="^unknown row$"):
    given_config.get_config(str(path))
  with pytest.raises(ValueError, match="leave :ARG out"):
    given_config.get_config(f"{path}:x")


def test_the_config_of_a_workdir_serves_again(tmp_path):
  config = tiny.tokenizer()
  config.mesh.rules = ((r"/a$", ("tensor", None)),)
  workdir_lib.write_config(str(tmp_path), config)
  again = given_config.get_config(f"{tmp_path}/config.json")
  assert again.to_dict() == config.to_dict()
  with pytest.raises(ValueError, match=f"folder: .*{tmp_path}/config.json"):
    given_config.get_config(str(tmp_path))


def test_a_config_of_an_earlier_version_gets_the_usual_value(tmp_path):
  config = tiny.tokenizer()
  del config.dataset.held_out
  config.dataset.old = 1
  workdir_lib.write_config(str(tmp_path), config)
  with pytest.raises(ValueError, match="dataset.old is none of this version"):
    given_config.get_config(f"{tmp_path}/config.json")
  del config.dataset.old
  workdir_lib.write_config(str(tmp_path), config)
  again = given_config.get_config(f"{tmp_path}/config.json")
  assert again.dataset.held_out == base.tokenizer().dataset.held_out


@pytest.mark.parametrize("text", ["{}", "[1]", "{", '{"algorithm": 7}'])
def test_a_file_of_something_else_is_no_config(tmp_path, text):
  (tmp_path / "config.json").write_text(text)
  with pytest.raises(ValueError, match="config.json"):
    given_config.get_config(f"{tmp_path}/config.json")


def test_the_number_of_steps_is_free_before_the_cosine(
  tiny_tokenizer_workdir, monkeypatch
):
  config = tiny.tokenizer()
  config.num_steps = 900  # the workdir has done 1 step, the warm-up has 2
  workdir_lib.check_workdir(tiny_tokenizer_workdir, config)
  weights = workdir_lib.weights_lib
  monkeypatch.setattr(weights, "latest_step", lambda workdir: 3)
  workdir_lib.check_workdir(tiny_tokenizer_workdir, config)
  monkeypatch.setattr(weights, "latest_step", lambda workdir: 4)
  match = "has done 4 steps of num_steps=6, .* 900: .*config.init_from=/"
  with pytest.raises(ValueError, match=match):
    workdir_lib.check_workdir(tiny_tokenizer_workdir, config)
  config.seed = 1
  with pytest.raises(ValueError, match="another experiment: num_steps is 6"):
    workdir_lib.check_workdir(tiny_tokenizer_workdir, config)
