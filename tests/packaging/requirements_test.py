"""Tests that pyproject.toml, requirements.txt and the docs say one thing."""

import os
import pathlib
import re
import subprocess
import tomllib

from packaging import requirements
from packaging import version
import pytest

import magvit

_ROOT = pathlib.Path(__file__).parents[2]
_PROJECT = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]


def _pinned(name: str) -> dict[str, str]:
  """Package -> the one version that a file of requirements names."""
  lines = (_ROOT / name).read_text().splitlines()
  pairs = [x.partition("==") for x in lines if x and x[0] not in "#-"]
  return {package: pin for package, _, pin in pairs}


@pytest.mark.parametrize(
  "file, lines",
  [
    ("requirements.txt", _PROJECT["dependencies"]),
    ("requirements-dev.txt", _PROJECT["optional-dependencies"]["dev"]),
  ],
)
def test_the_lowest_version_of_each_range_is_the_tested_one(file, lines):
  ranges = {}
  for line in lines:
    requirement = requirements.Requirement(line)
    (lowest,) = (s.version for s in requirement.specifier if s.operator == ">=")
    ranges[requirement.name] = lowest
  assert ranges == _pinned(file)


def test_every_extra_that_is_stated_is_there():
  extras = set(_PROJECT["optional-dependencies"])
  assert {"tpu", "cuda", "gcs", "s3", "torch", "film", "dev"} == extras
  pages = (_ROOT / "docs").glob("**/*.md")
  named = {
    extra
    for page in (_ROOT / "README.md", *pages)
    for group in re.findall(r"magvit\[([\w,]+)\]", page.read_text())
    for extra in group.split(",")
  }
  assert named <= extras and {"tpu", "cuda"} <= named


def test_the_pages_name_the_pythons_and_the_jax_that_are_allowed():
  page = (_ROOT / "docs" / "getting_started.md").read_text()
  lowest, end = re.findall(r"\d+\.\d+", _PROJECT["requires-python"])
  last = f"3.{int(end.partition('.')[2]) - 1}"
  assert f"Python {lowest} to {last}" in page
  (jax,) = (
    requirements.Requirement(line)
    for line in _PROJECT["dependencies"]
    if line.startswith("jax>")
  )
  bounds = {s.operator: s.version for s in jax.specifier}
  assert f"jax from {bounds['>=']} to below {bounds['<']}" in page


def test_the_version_is_one():
  assert str(version.Version(magvit.__version__)) == magvit.__version__
  cited = (_ROOT / "CITATION.cff").read_text()
  assert f"\nversion: {magvit.__version__}\n" in cited


def test_a_python_that_does_not_run_is_named_and_passed_over(tmp_path):
  """pyenv has a command for each Python, also where it does not run it."""
  shim = tmp_path / "python3.99"
  shim.write_text("#!/bin/sh\necho not this one >&2\nexit 127\n")
  shim.chmod(0o755)
  ended = subprocess.run(
    ["make", "--silent", "test-versions", "VERSIONS=3.98 3.99"],
    cwd=_ROOT,
    env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
    capture_output=True,
    text=True,
    check=False,
  )
  assert ended.returncode != 0
  assert ended.stdout.splitlines() == [
    "Python 3.98: not at hand, not tested",
    "Python 3.99: not at hand, not tested",
    "no Python at hand",
  ]
