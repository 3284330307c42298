"""Tests of storage/compile_cache.py."""

import os
import pathlib
import subprocess
import sys

import pytest

from storage import compile_cache

_ROOT = pathlib.Path(__file__).parents[2]
_VARIABLE = "JAX_COMPILATION_CACHE_DIR"


def test_a_folder_that_is_named_is_taken(monkeypatch):
  monkeypatch.setenv(_VARIABLE, "elsewhere")
  compile_cache.keep()
  assert os.environ[_VARIABLE] == "elsewhere"


@pytest.mark.parametrize(
  "program",
  [
    "from storage import compile_cache; compile_cache.keep(); import jax;",
    "import jax; from storage import compile_cache; compile_cache.keep();",
  ],
)
def test_a_program_is_kept_below_the_users_cache(program, tmp_path):
  """JAX writes a program there, whether or not it is imported before."""
  program += "jax.jit(lambda x: x + 1)(1.0)"
  # The tests keep programs however small they are (tests/conftest.py).
  environment = {k: v for k, v in os.environ.items() if k != _VARIABLE}
  environment["XDG_CACHE_HOME"] = str(tmp_path)
  subprocess.run(
    [sys.executable, "-c", program], env=environment, check=True, cwd=_ROOT
  )
  (folder,) = (tmp_path / "magvit" / "xla").iterdir()
  assert list(folder.iterdir())


def test_programs_are_kept_in_a_folder_from_then_on(tmp_path):
  """A process of its own: JAX stays with the first folder that it has used."""
  program = (
    "import jax; from storage import compile_cache;"
    "before = lambda x: x * 5 + 1; after = lambda x: x * 7 + 3;"
    "before.__name__, after.__name__ = 'before', 'after';"
    "jax.jit(before)(1.0);"
    f"compile_cache.keep_in({str(tmp_path / 'programs')!r});"
    "jax.jit(after)(1.0)"
  )
  environment = {**os.environ, _VARIABLE: str(tmp_path / "first")}
  subprocess.run(
    [sys.executable, "-c", program], env=environment, check=True, cwd=_ROOT
  )
  (folder,) = (tmp_path / "programs").iterdir()
  assert list(folder.glob("jit_after*")) and not list(folder.glob("*before*"))
  assert list((tmp_path / "first").glob("jit_before*"))


def test_a_home_that_is_no_path_is_left_alone(monkeypatch):
  monkeypatch.delenv(_VARIABLE)
  monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
  compile_cache.keep()
  assert _VARIABLE not in os.environ
