"""Tests of Ctrl-C while a program starts: one line, wherever it is then."""

import pathlib
import subprocess
import sys

import pytest

_ROOT = pathlib.Path(__file__).parents[1]
# Runs a program, and sends it Ctrl-C the moment it imports a module.
_INTERRUPTED_PROGRAM = """
import os, runpy, signal, sys

class Finder:
  def find_spec(self, name, path=None, target=None):
    if name == module:
      os.kill(os.getpid(), signal.SIGINT)

module, name, *arguments = sys.argv[1:]
sys.argv = [name, *arguments]
sys.meta_path.insert(0, Finder())
sys.path.insert(0, os.getcwd())
if name.endswith(".py"):
  runpy.run_path(name, run_name="__main__")
else:
  runpy.run_module(name, run_name="__main__", alter_sys=True)
"""


def _interrupt(module, *program):
  result = subprocess.run(
    [sys.executable, "-c", _INTERRUPTED_PROGRAM, module, *program],
    cwd=_ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  assert (result.stdout, result.stderr) == ("", "interrupted\n")
  assert result.returncode == 130


@pytest.mark.parametrize(
  "module, program",
  [
    ("absl", "main.py"),
    ("jax", "main.py --mode=evaluate --workdir=none"),
    ("numpy", "magvit.compress --input=none --output=none"),
    ("numpy", "magvit.decompress --input=a --output=b --workdir=none"),
    ("numpy", "models.weights.convert"),
    ("numpy", "evaluation.show.report"),
    ("numpy", "input_pipeline.prepare"),
  ],
)
def test_ctrl_c_while_importing_is_one_line(module, program):
  _interrupt(module, *program.split())


@pytest.mark.slow
def test_ctrl_c_while_reading_the_config_is_one_line(tmp_path):
  config = tmp_path / "config.py"
  config.write_text("import marker\n")
  _interrupt("marker", "main.py", f"--config={config}", "--workdir=none")
