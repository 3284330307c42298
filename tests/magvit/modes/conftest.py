"""Fixtures of stored tokens, for tests that write them or train on them."""

import shutil

import pytest

from tests import token_folders


@pytest.fixture(scope="session")
def folder(tiny_tokenizer_workdir, tmp_path_factory):
  """Tokens of 40 clips in three shards, made by one process."""
  path = tmp_path_factory.mktemp("tokens") / "digits"
  token_folders.write(tiny_tokenizer_workdir, path)
  return path


@pytest.fixture
def fast(monkeypatch):
  """Replaces the network, and reads a tokenizer once."""
  token_folders.replace_network(monkeypatch)


@pytest.fixture
def fast_folder(fast, tiny_tokenizer_workdir, tmp_path):
  """The same as `folder`, with other ids."""
  path = tmp_path / "digits"
  token_folders.write(tiny_tokenizer_workdir, path)
  return path


@pytest.fixture
def copied(fast_folder, tmp_path):
  return shutil.copytree(fast_folder, tmp_path / "copied")
