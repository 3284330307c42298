"""Tests of the Dockerfile: what it names is there, and its steps run.

Where this was written no base image can be had, so that the long test runs the
steps as a builder would, with the folders of an image in a temporary one.
"""

import os
import pathlib
import re
import shlex
import shutil
import subprocess
import tomllib

import pytest

import hatch_build
import magvit

_ROOT = pathlib.Path(__file__).parents[2]
_PROJECT = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]
_PLACES = re.compile(r"(?<![\w.])/(opt|wheel|source)\b")  # folders of the image


def _steps() -> list[tuple[str, str]]:
  """(instruction, its words) of the Dockerfile, in order."""
  text = (_ROOT / "Dockerfile").read_text()
  lines = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)
  joined = lines.replace("\\\n", " ").splitlines()
  pairs = [line.partition(" ") for line in joined if line.strip()]
  return [(name, words.strip()) for name, _, words in pairs]


def _last_stage() -> dict[str, str]:
  steps = _steps()
  start = max(n for n, (name, _) in enumerate(steps) if name == "FROM")
  return dict(steps[start:])


def test_the_image_runs_the_command_as_a_user_without_rights():
  stage = _last_stage()
  assert stage["USER"] == "magvit"
  assert stage["ENTRYPOINT"] == '["magvit"]'
  assert "magvit" in _PROJECT["scripts"]


def test_what_the_image_installs_is_what_the_package_names():
  (install,) = (w for n, w in _steps() if n == "RUN" and "requirements" in w)
  for platform in ("tpu", "cuda"):
    (requirement,) = _PROJECT["optional-dependencies"][platform]
    assert f'{platform}) device="{requirement}==' in install
  for bucket in ("gcs", "s3"):
    (requirement,) = _PROJECT["optional-dependencies"][bucket]
    assert requirement in install.split()
  names = dict(words.split("=") for name, words in _steps() if name == "ARG")
  assert names["PLATFORM"] == "cpu"
  python = tuple(map(int, names["PYTHON"].split(".")))
  assert (3, 11) <= python < (3, 14)


def test_the_builder_gets_what_the_wheel_is_made_of():
  lines = (_ROOT / ".dockerignore").read_text().splitlines()
  sent = {line[1:] for line in lines if line.startswith("!")}
  assert all((_ROOT / name).exists() for name in sent)
  files = {"main.py", "hatch_build.py", "pyproject.toml", "requirements.txt"}
  texts = {_PROJECT["readme"], *_PROJECT["license-files"]}
  assert sent == {"magvit", *hatch_build.WINGS} | files | texts


def test_the_tag_of_the_image_is_the_version():
  texts = [(_ROOT / "Dockerfile").read_text()]
  texts += [page.read_text() for page in (_ROOT / "docs").glob("**/*.md")]
  tags = {
    tag
    for text in texts
    for tag in re.findall(r"ghcr\.io/OWNER/magvit:([\w.]+)", text)
  }
  assert tags - {"VERSION"} == {magvit.__version__}


@pytest.mark.long
def test_the_steps_make_a_command_that_runs(tmp_path):
  """It needs an index of packages, and a gigabyte of disk."""
  source = tmp_path / "source"
  source.mkdir()
  environment = {
    name: value
    for name, value in os.environ.items()
    if name not in ("PYTHONPATH", "VIRTUAL_ENV")
  }
  here = lambda words: _PLACES.sub(rf"{tmp_path}/\1", words)
  for name, words in _steps():
    if name == "ARG":
      variable, _, value = words.partition("=")
      environment.setdefault(variable, value)
    elif name == "COPY" and "--from" not in words:
      *paths, _ = shlex.split(words)
      _copy(paths, source)
    elif name == "RUN" and not words.startswith("useradd"):
      command = here(re.sub(r"--mount=\S+", "", words))
      subprocess.run(
        ["bash", "-ec", command], cwd=source, env=environment, check=True
      )
  ended = subprocess.run(
    [tmp_path / "opt/magvit/bin/magvit", "--help"],
    cwd=tmp_path,
    env=environment,
    capture_output=True,
    text=True,
    check=False,
  )
  assert "--workdir" in ended.stdout, ended.stderr


def _copy(paths: list[str], target: pathlib.Path) -> None:
  """Copies what the builder is sent of these paths of the repository."""
  lines = (_ROOT / ".dockerignore").read_text().splitlines()
  sent = [line[1:] for line in lines if line.startswith("!")]
  for name in sent if paths == ["."] else paths:
    if (_ROOT / name).is_dir():
      shutil.copytree(_ROOT / name, target / name, dirs_exist_ok=True)
    else:
      shutil.copyfile(_ROOT / name, target / name)
