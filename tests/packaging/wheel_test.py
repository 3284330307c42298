"""Tests of the wheel: installed, it works anywhere and is in nobody's way."""

import ast
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
from PIL import Image
import pytest

import hatch_build
import magvit
from magvit.modes import export

_ROOT = pathlib.Path(__file__).parents[2]
_WINGS = "|".join(hatch_build.WINGS)
# Program of a user who has packages of the names of our folders.
_USER = """
import importlib, sys
import magvit

for wing in sys.argv[1:]:
  assert importlib.import_module(wing).MINE
  ours = importlib.import_module(f"magvit.{wing}")
  assert not hasattr(ours, "MINE")
import models.mine
import magvit.models.network
print(magvit.__version__, magvit.__file__)
"""
_ENCODE = """
import sys
import magvit
import numpy as np

tokenizer = magvit.load_tokenizer(sys.argv[1])
np.save(sys.argv[3], tokenizer.encode(np.load(sys.argv[2])))
"""
_OWN_CONFIG = """
from {configs} import base

def get_config():
  config = base.tokenizer()
  config.num_steps = config.batch_size = 1
  return config
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
  """A folder with the installed wheel, and nothing else."""
  folder = tmp_path_factory.mktemp("wheel")
  pip = [sys.executable, "-m", "pip", "--quiet"]
  offline = ("--no-deps", "--no-index")
  build = ("--no-build-isolation", f"--wheel-dir={folder}", str(_ROOT))
  subprocess.run([*pip, "wheel", *offline, *build], check=True)
  (wheel,) = folder.glob("*.whl")
  target = (f"--target={folder / 'site'}", str(wheel))
  subprocess.run([*pip, "install", *offline, *target], check=True)
  return folder / "site"


def _run(site, cwd, *command: str, check: bool = True):
  """Runs a command of the installed package, far from the repository."""
  return subprocess.run(
    command,
    cwd=cwd,
    env={**os.environ, "PYTHONPATH": str(site)},
    capture_output=True,
    text=True,
    check=check,
  )


def _python(site, cwd, *arguments: str):
  return _run(site, cwd, sys.executable, *arguments).stdout


def _magvit(site, cwd, *arguments: str, code: int):
  ended = _run(site, cwd, str(site / "bin/magvit"), *arguments, check=False)
  assert ended.returncode == code, ended.stderr
  return ended


def _modules(site):
  return sorted(site.glob("magvit/**/*.py"))


@pytest.mark.slow
def test_every_file_of_the_wings_is_installed_line_for_line(site):
  listed = subprocess.run(
    ["git", "ls-files", "main.py", "magvit", *hatch_build.WINGS],
    cwd=_ROOT,
    capture_output=True,
    text=True,
    check=True,
  )
  names = set(listed.stdout.split()) - {"configs/describe.py"}
  if not names:
    pytest.skip("these sources are not in a repository of git")
  for name in names:
    path = site / "magvit" / name.removeprefix("magvit/")
    source = (_ROOT / name).read_text()
    assert source.count("\n") == path.read_text().count("\n"), name
  installed = [p for p in _files(site) if p.suffix != ".pyc"]
  assert len(installed) == len(names)
  tops = {path.name for path in site.iterdir()}
  version = magvit.__version__
  assert tops == {"magvit", f"magvit-{version}.dist-info", "bin"}


def _files(site):
  return [path for path in site.glob("magvit/**/*") if path.is_file()]


@pytest.mark.slow
def test_what_the_modules_say_to_type_is_what_is_installed(site):
  for path in _modules(site):
    for node in ast.walk(ast.parse(path.read_text())):
      if isinstance(node, ast.Constant) and isinstance(node.value, str):
        wrong = re.search(rf"-m ({_WINGS})\.|python main\.py", node.value)
        assert not wrong, (path, node.lineno, node.value)


@pytest.mark.slow
def test_packages_of_the_user_keep_their_names(site, tmp_path):
  for wing in hatch_build.WINGS:
    (tmp_path / wing).mkdir()
    (tmp_path / wing / "__init__.py").write_text("MINE = True\n")
  (tmp_path / "models" / "mine.py").write_text("")
  version, file = _python(
    site, tmp_path, "-c", _USER, *hatch_build.WINGS
  ).split()
  assert version == magvit.__version__
  assert pathlib.Path(file).is_relative_to(site)


@pytest.mark.slow
def test_the_commands_have_the_flags_of_the_programs(site, tmp_path):
  help_ = _magvit(site, tmp_path, "--help", code=1).stdout  # absl ends with 1
  assert "--workdir" in help_ and "--config" in help_
  assert "magvit --mode=evaluate --workdir=DIR" in help_
  report = _run(site, tmp_path, str(site / "bin/magvit-report"), "--help")
  assert report.stdout.startswith("usage: magvit-report ")


@pytest.mark.slow
def test_configs_are_known_by_name_from_any_folder(site, tmp_path):
  row = "--config=configs/tokenizer_video.py"
  ended = _magvit(site, tmp_path, f"{row}:digits", code=1)
  assert ended.stderr == "error: --mode=train needs --workdir=DIR\n"
  ended = _magvit(site, tmp_path, f"{row}:digitz", code=1)
  assert ended.stderr.startswith("error: unknown variant 'digitz'")
  ended = _magvit(site, tmp_path, "--config=configs/nothing.py", code=1)
  assert "there is no file configs/nothing.py" in ended.stderr
  (tmp_path / "configs").mkdir()
  file = tmp_path / "configs" / "tokenizer_video.py"
  file.write_text("def get_config(row):\n  raise ValueError(f'my {row}')\n")
  ended = _magvit(site, tmp_path, f"{row}:digits", code=1)
  assert ended.stderr == "error: my digits\n"


@pytest.mark.slow
def test_a_config_of_ones_own_imports_ours_from_the_package(site, tmp_path):
  file = tmp_path / "own.py"
  file.write_text(_OWN_CONFIG.format(configs="magvit.configs"))
  ended = _magvit(site, tmp_path, f"--config={file}", code=1)
  assert ended.stderr == "error: --mode=train needs --workdir=DIR\n"
  file.write_text(_OWN_CONFIG.format(configs="configs"))
  ended = _magvit(site, tmp_path, f"--config={file}", code=1)
  assert "line 2: ModuleNotFoundError" in ended.stderr
  assert "import magvit.configs, as it is named where" in ended.stderr


@pytest.mark.slow
def test_worker_processes_find_the_package(site, tmp_path):
  folder = tmp_path / "pictures" / "a"
  folder.mkdir(parents=True)
  for shade in range(9):
    pixels = np.full((8, 8, 3), shade * 20, np.uint8)
    Image.fromarray(pixels).save(folder / f"{shade}.png")
  arguments = ("--format=classes", "--input=pictures", "--output=shards")
  _python(
    site,
    tmp_path,
    *("-m", "magvit.input_pipeline.prepare", *arguments),
    *("--workers=2", "--examples_per_shard=4"),
  )
  assert len(list(tmp_path.glob("shards/train/*.arrayrecord"))) == 2


@pytest.mark.slow
def test_the_installed_tokenizer_has_the_same_ids(
  site, tiny_tokenizer_workdir, tmp_path
):
  video = np.random.default_rng(0).random((2, 5, 16, 16, 3), np.float32)
  np.save(tmp_path / "video.npy", video)
  _python(
    site, tmp_path, "-c", _ENCODE, tiny_tokenizer_workdir, "video.npy", "ids"
  )
  ids = magvit.load_tokenizer(tiny_tokenizer_workdir).encode(video)
  np.testing.assert_array_equal(np.load(tmp_path / "ids.npy"), ids)


@pytest.mark.long
def test_the_wheel_brings_what_it_needs_into_a_fresh_environment(
  site, tiny_tokenizer_workdir, tmp_path
):
  """It needs an index of packages, and a gigabyte of disk."""
  (wheel,) = site.parent.glob("*.whl")
  programs, cwd = tmp_path / "env" / "bin", tmp_path / "elsewhere"
  environment = {
    name: value
    for name, value in os.environ.items()
    if name not in ("PYTHONPATH", "VIRTUAL_ENV")
  }

  def run(program, *arguments, code=0):
    ended = subprocess.run(
      [str(programs / program), *arguments],
      cwd=cwd,
      env=environment,
      capture_output=True,
      text=True,
      check=False,
    )
    assert ended.returncode == code, ended.stderr
    return ended.stdout

  (cwd / "models").mkdir(parents=True)
  (cwd / "models" / "__init__.py").write_text("MINE = True\n")
  (cwd / "models" / "mine.py").write_text("")
  subprocess.run([sys.executable, "-m", "venv", tmp_path / "env"], check=True)
  run("pip", "install", "--quiet", str(wheel))
  run("pip", "check")
  version, file = run("python", "-c", _USER, "models").split()
  assert version == magvit.__version__
  assert pathlib.Path(file).is_relative_to(tmp_path / "env")
  assert "--workdir" in run("magvit", "--help", code=1)  # absl ends with 1
  assert run("magvit-report", "--help").startswith("usage: magvit-report ")
  export.export(tiny_tokenizer_workdir, str(tmp_path / "exported"))
  video = np.random.default_rng(0).random((2, 5, 16, 16, 3), np.float32)
  np.save(cwd / "video.npy", video)
  run("python", "-c", _ENCODE, str(tmp_path / "exported"), "video.npy", "ids")
  ids = magvit.load_tokenizer(tiny_tokenizer_workdir).encode(video)
  np.testing.assert_array_equal(np.load(cwd / "ids.npy"), ids)


def test_an_import_that_a_wheel_cannot_hold_is_refused():
  for source in ("import models.network\n", "import os, models\n"):
    with pytest.raises(ValueError, match="own.py, line 1: a wheel has no"):
      hatch_build.moved(source, "own.py")


def test_imports_and_commands_are_moved_line_for_line():
  source = (
    '"""Run python -m models.weights.fetch, or python main.py --help."""\n'
    "import models  # noqa: F401\n"
    "from models.tokenizer import cnn\n"
    "from configs import (\n  base,\n)\n"
    "def f():\n  from storage import files as f\n"
    "from modelsmith import models\n"
  )
  assert hatch_build.moved(source, "x.py") == (
    '"""Run python -m magvit.models.weights.fetch, or magvit --help."""\n'
    "from magvit import models  # noqa: F401\n"
    "from magvit.models.tokenizer import cnn\n"
    "from magvit.configs import (\n  base,\n)\n"
    "def f():\n  from magvit.storage import files as f\n"
    "from modelsmith import models\n"
  )


def test_a_file_of_an_unknown_kind_is_refused(tmp_path):
  (tmp_path / "magvit").mkdir()
  (tmp_path / "main.py").write_text("")
  (tmp_path / "magvit" / "notes.txt").write_text("")
  with pytest.raises(ValueError, match="notes.txt is of no kind"):
    hatch_build.write(tmp_path, tmp_path / "out")
