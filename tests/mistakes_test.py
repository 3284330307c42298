"""Tests that each of many mistakes is one line that names its remedy."""

import os

import pytest

import main
from tests import main_test
from tests import mistakes


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
  folder = tmp_path_factory.mktemp("mistakes")
  mistakes.prepare(folder)
  return folder


def _tree(*folders):
  return [sorted(map(str, folder.rglob("*"))) for folder in folders]


@pytest.mark.parametrize("name", list(mistakes.MISTAKES))
def test_a_mistake_is_one_line_and_writes_nothing(
  name, filled, tmp_path, tiny_tokenizer_workdir, tiny_generator_workdir
):
  arguments = mistakes.arguments(
    name,
    tmp=str(filled),
    run=str(tmp_path / "run"),
    tokenizer=tiny_tokenizer_workdir,
    generator=tiny_generator_workdir,
  )
  before = _tree(filled)
  with pytest.raises(SystemExit) as end:
    main.main(main_test.parse(*arguments))
  message = end.value.code  # a string: printed, and exit code 1
  assert isinstance(message, str) and message.startswith("error: ")
  assert "\n" not in message
  for words in mistakes.MISTAKES[name][1]:
    assert words in message
  assert _tree(filled) == before
  assert not (tmp_path / "run").exists()
  assert not os.path.exists("gs:")
