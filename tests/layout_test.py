"""Tests of the source tree itself."""

import ast
import pathlib

import pytest

_ROOT = pathlib.Path(__file__).parents[1]
_MAY_IMPORT = {  # of our own packages
  "models": {"models"},
  "input_pipeline": {"input_pipeline"},
  "evaluation": {"evaluation", "models"},
  "configs": {"configs"},
  "magvit": {"magvit", "evaluation", "input_pipeline", "models"},
}


def _sources():
  for package in _MAY_IMPORT:
    yield from sorted((_ROOT / package).glob("**/*.py"))


def _imported_packages(path):
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      yield from (alias.name.split(".")[0] for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      yield node.module.split(".")[0]


@pytest.mark.parametrize("path", list(_sources()), ids=str)
def test_imports_run_one_way_and_files_stay_short(path):
  ours = set(_imported_packages(path)) & {*_MAY_IMPORT, "main", "tests"}
  assert ours <= _MAY_IMPORT[path.relative_to(_ROOT).parts[0]]
  assert len(path.read_text().splitlines()) <= 400


def test_main_is_short():
  assert len((_ROOT / "main.py").read_text().splitlines()) <= 170


def test_only_the_boundary_splits_and_merges_modules():
  for path in _sources():
    if path.name != "network.py":
      text = path.read_text()
      for call in ("nnx.split", "nnx.merge", "nnx.jit", "nnx.Optimizer"):
        assert call not in text, path
