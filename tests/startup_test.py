"""Tests of what programs import before their flags are known to be right.

A new import among these makes each --help and each typo wait for it. Put it
where it is used, or into a module that is imported after the flags.
"""

import pathlib
import subprocess
import sys

import pytest

_ROOT = pathlib.Path(__file__).parents[1]
_FLAGS = {"absl", "ml_collections", "yaml"}  # ml_collections reads configs
# What takes longest to import: JAX's networks and checkpoints, data, charts.
_SLOW = {
  *("flax", "grain", "jax", "matplotlib", "ml_collections", "optax", "orbax"),
  *("scipy", "skimage", "sklearn", "tensorboardX", "tensorstore"),
}
# Runs a program, and prints the packages that it had imported by its end.
_PROBE = """
import atexit, runpy, sys

def print_packages():
  tops = {name.partition(".")[0] for name in sys.modules}
  paths = {top: getattr(sys.modules.get(top), "__path__", []) for top in tops}
  print("\\nPACKAGES", *(
    top for top in sorted(tops)
    if not top.startswith("_") and any("site-packages" in p for p in paths[top])
  ))

atexit.register(print_packages)
sys.path.insert(0, "")
program, sys.argv = sys.argv[1], sys.argv[1:]
if program == "main.py":
  runpy.run_path(program, run_name="__main__")
else:
  runpy.run_module(program, run_name="__main__", alter_sys=True)
"""


def _run(*command: str) -> tuple[subprocess.CompletedProcess[str], set[str]]:
  """(how the program ended, third-party packages that it had imported)."""
  ended = subprocess.run(
    [sys.executable, "-c", _PROBE, *command],
    cwd=_ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  line = ended.stdout.rpartition("\nPACKAGES")[2]
  return ended, set(line.split())


@pytest.mark.parametrize(
  "arguments, expected",
  [
    ("--help", "--workdir"),
    ("--workdri=x", "workdri"),
    ("--mode=evalute --workdir=x", "--mode=evalute"),
    ("--mode=evaluate", "--mode=evaluate needs --workdir=DIR"),
    ("--mode=evaluate --workdir=x --split=train", "--split needs --mode="),
    ("--mode=sample --workdir=x --task=x --num=0", "--num=0 must be at least"),
    ("--mode=tokenize --workdir=x", "needs --output=FOLDER"),
    ("--workdir=x", "needs --config=FILE:ARG"),
    ("--workdir=x --config=configs/masked.py:digitz", "unknown variant"),
    (
      "--workdir=x --config=configs/masked.py:digits --config.num_step=3",
      "num_step",
    ),
    (
      "--workdir=x --config=configs/masked.py:digits --config.num_steps=0",
      "num_steps=0 must be at least 1",
    ),
    (
      "--mode=import --workdir=x --input=a --config=configs/masked.py:digits",
      "--mode=import reads no --config",
    ),
    ("--workdir=x --process=0", "need --distributed"),
  ],
)
def test_mistakes_in_flags_wait_for_no_import(arguments, expected):
  ended, packages = _run("main.py", *arguments.split())
  assert expected in ended.stdout + ended.stderr
  assert packages == _FLAGS


def test_the_status_of_a_run_waits_for_no_slow_import(tmp_path):
  (tmp_path / "config.json").write_text("{}")
  command = ("main.py", "--mode=status", f"--workdir={tmp_path}")
  ended, packages = _run(*command)
  assert "its training has not begun" in ended.stdout
  assert packages == _FLAGS | {"numpy"}


@pytest.mark.parametrize(
  "program, packages",
  [
    ("magvit.compress", _FLAGS),
    ("magvit.decompress", _FLAGS),
    ("configs.describe", _FLAGS),
    ("magvit.__init__", set()),  # as `import magvit` does
  ],
)
def test_programs_show_their_help_with_few_imports(program, packages):
  ended, imported = _run(program, "--help")
  assert ended.returncode in (0, 1)  # absl's --help ends with 1
  assert "Traceback" not in ended.stderr
  assert imported == packages


@pytest.mark.parametrize(
  "program, slow",
  [
    ("input_pipeline.prepare", {"grain", "jax", "orbax", "tensorstore"}),
    ("evaluation.show.report", set()),
    ("models.weights.convert", {"flax", "jax", "optax", "tensorboardX"}),
  ],
)
def test_programs_that_import_first_import_no_more_than_they_did(program, slow):
  """Each showed its help within 1.4 s of CPU time with these packages."""
  ended, imported = _run(program, "--help")
  assert ended.returncode == 0 and "usage:" in ended.stdout
  assert imported & _SLOW <= slow
