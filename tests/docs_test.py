"""Tests of README.md and docs/: links lead somewhere, commands would run.

Commands are read as the programs read them, and never run.
"""

import ast
import dataclasses
import functools
import importlib.util
import pathlib
import pkgutil
import re
import runpy
import shlex
import subprocess
import sys

from absl import flags
import ml_collections
import pytest

from configs import describe
import hatch_build
from magvit.modes import table
from magvit.workdir import stored_config
import main  # noqa: F401  defines the flags
from tests import markdown

_ROOT = pathlib.Path(__file__).parents[1]
_PAGES = (
  "README.md",
  *sorted(f"docs/{path.name}" for path in _ROOT.glob("docs/*.md")),
)
_WINGS = (
  *("benchmarks", "configs", "docs", "evaluation", "input_pipeline"),
  *("magvit", "models", "storage", "tests"),
)
_PLACEHOLDER = re.compile(r"[A-Z][A-Z0-9_:.]*|\.\.\.")  # DIR, FILE:ARG, ...
# A command of ours; `magvit` is main.py, where the package is installed.
_COMMAND = re.compile(
  r"(?:python (?=main\.py|-m)|(?<![\w./=-])(?=magvit --))"
  r"(main\.py|magvit|-m [\w.]+)(?= |$|\")"
)
# Flags of xpk and Slurm.
_FOREIGN_FLAGS = {"max-restarts", "num-slices", "signal"}


def _readers() -> dict[str, tuple[str, ...]]:
  """Flag of main.py -> the modes that read it; the others serve all modes."""
  readers = {}
  for mode, module in table.MODES.items():
    for field in dataclasses.fields(module.Options):
      readers[field.name] = (*readers.get(field.name, ()), mode)
  return readers


@functools.cache
def _page(name: str) -> markdown.Page:
  return markdown.parse((_ROOT / name).read_text())


@functools.cache
def _get_config(name: str):
  """Reads the config of FILE:ARG; raises if there is none."""
  file, _, argument = name.partition(":")
  get_config = runpy.run_path(str(_ROOT / file))["get_config"]
  return get_config(argument) if argument else get_config()


@functools.cache
def _base_configs():
  return [make() for make in stored_config.KNOWN.values()]


def _is_section(path: str) -> bool:
  """Whether a path like "dataset.size" begins with a section of a config."""
  sections = [config.get(path.split(".")[0]) for config in _base_configs()]
  return any(isinstance(s, ml_collections.ConfigDict) for s in sections)


def _is_placeholder(value: str) -> bool:
  return _PLACEHOLDER.fullmatch(value) is not None


def _field(config, path: str):
  for name in path.split("."):
    config = config[name]
  return config


def _field_faults(configs, path: str, value: str | None) -> list[str]:
  """Reasons why no config takes `--config.PATH=VALUE`; [] if one does."""
  defaults = []
  for config in configs:
    try:
      defaults.append(_field(config, path))
    except (KeyError, AttributeError, TypeError):
      continue
  if not defaults:
    return [f"no field {path}"]
  if value is None or _is_placeholder(value) or isinstance(defaults[0], str):
    return []
  kinds = tuple({type(d) for d in defaults} | {int})
  try:
    fits = isinstance(ast.literal_eval(value), kinds)
  except (SyntaxError, ValueError):
    fits = False
  return [] if fits else [f"{path}={value} is no {type(defaults[0]).__name__}"]


def _main_faults(arguments: list[str]) -> list[str]:
  """Reasons why main.py would refuse these arguments."""
  if not all(argument.startswith("--") for argument in arguments):
    return [f"arguments {arguments} must begin with --"]
  given = [a[2:].partition("=")[::2] for a in arguments]
  values, faults = dict(given), []
  mode, name = values.get("mode", "train"), values.get("config", "...")
  configs = _base_configs()
  if not _is_placeholder(name):
    try:
      configs = [_get_config(name)]
    except (OSError, KeyError, ValueError) as error:
      faults.append(f"--config={name}: {error}")
  for flag, value in given:
    if flag.startswith("config."):
      faults += _field_faults(configs, flag.partition(".")[2], value)
    elif flag not in flags.FLAGS:
      faults.append(f"main.py knows no --{flag}")
    elif mode not in _readers().get(flag, (mode,)):
      faults.append(f"--mode={mode} takes no --{flag}")
    elif flag != "config" and value and not _is_placeholder(value):
      try:
        flags.FLAGS[flag].parser.parse(value)
      except ValueError as error:
        faults.append(f"--{flag}={value}: {error}")
  return faults


@functools.cache
def _help(module: str) -> str:
  command = [sys.executable, "-m", module, "--help"]
  result = subprocess.run(
    command, cwd=_ROOT, capture_output=True, text=True, check=False
  )
  # argparse ends with 0, absl with 1, as after an error, which has no help.
  assert result.returncode in (0, 1) and result.stdout, result.stderr
  return result.stdout


def _module_faults(module: str, arguments: list[str]) -> list[str]:
  """Reasons why `python -m MODULE` would refuse these arguments.

  Flags of our programs are strings in their files; the help of a program that
  derives its flags has the others.
  """
  module = _in_the_repository(module)
  if module.split(".")[0] not in _WINGS:  # pytest, with files to run
    installed = importlib.util.find_spec(module) is not None
    files = [a for a in arguments if a.endswith(".py")]
    missing = [f"no file {a}" for a in files if not (_ROOT / a).exists()]
    return missing if installed else [f"no module {module}"]
  file = _ROOT / (module.replace(".", "/") + ".py")
  if not file.exists():
    return [f"no module {module}"]
  names = [a.partition("=")[0] for a in arguments if a.startswith("--")]
  source = file.read_text()
  missing = [name for name in names if f'"{name}"' not in source]
  if missing:
    known = re.findall(r"--\w+", _help(module))
    missing = [name for name in missing if name not in known]
  return [f"{module} knows no {name}" for name in missing]


def _in_the_repository(name: str) -> str:
  """The name here of a module that an installed package has within it."""
  inner = name.removeprefix("magvit.")
  return inner if inner.split(".")[0] in hatch_build.WINGS else name


def _make_faults(words: list[str]) -> list[str]:
  text = (_ROOT / "Makefile").read_text()
  targets = set(re.findall(r"^([\w-]+):", text, re.MULTILINE))
  return [
    f"no make target {word}"
    for word in words
    if "=" not in word and word not in targets
  ]


def _faults(line: str) -> list[str]:
  """Reasons why the commands of a line would be refused."""
  faults = []
  if line.startswith("make "):
    faults += _make_faults(shlex.split(line, comments=True)[1:])
  for match in _COMMAND.finditer(line):
    tail = line[match.end() :]
    if line[: match.start()].count('"') % 2:  # within --command="..."
      tail = tail.partition('"')[0]
    arguments = shlex.split(tail, comments=True)
    if match[1] in ("main.py", "magvit"):
      faults += _main_faults(arguments)
    else:
      faults += _module_faults(match[1].removeprefix("-m "), arguments)
  return [f"{fault}, in: {line}" for fault in faults]


@functools.cache
def _known_flags() -> set[str]:
  """Flags of main.py and of every other program of ours."""
  known = set(flags.FLAGS) | _FOREIGN_FLAGS
  for wing in set(_WINGS) - {"tests"}:
    for file in (_ROOT / wing).glob("**/*.py"):
      known |= set(re.findall(r'"--(\w+)"', file.read_text()))
  return known


def _span_faults(span: str) -> list[str]:
  """Reasons why a command, flag, path or field in the text is none of ours."""
  faults = _faults(span)
  flag = re.match(r'--([\w.-]+?)(?:="?([^\s"]+)"?)?(?=[\s,]|$)', span)
  section = re.fullmatch(r"([a-z]+(?:\.[a-z_0-9]+)+)(?:=(\S+))?", span)
  path = re.fullmatch(r"((\w+)/[\w./-]*)(?::(\w+))?", span)
  if flag and flag[1].startswith("config."):
    faults += _field_faults(_base_configs(), flag[1][len("config.") :], flag[2])
  elif flag and flag[1] not in _known_flags():
    faults.append(f"no program knows --{flag[1]}")
  elif flag and flag[1] == "mode" and flag[2]:
    faults += _main_faults([span.split()[0].rstrip(",")])
  elif section and _is_section(span) and not span.endswith(".py"):
    faults += _field_faults(_base_configs(), section[1], section[2])
  elif span.startswith("magvit."):
    try:
      pkgutil.resolve_name(_in_the_repository(span.partition("(")[0]))
    except (ImportError, AttributeError) as error:
      faults.append(f"{span}: {error}")
  elif path and path[2] in _WINGS and not (_ROOT / path[1]).exists():
    faults.append(f"no file {path[1]}")
  elif path and path[3]:
    faults += _main_faults([f"--config={span}"])
  return faults


def _link_faults(name: str, link: str) -> list[str]:
  """Reasons why a link of a page leads nowhere."""
  target, _, anchor = link.partition("#")
  file = (_ROOT / name).parent / target if target else _ROOT / name
  if not file.exists():
    return [f"{name} links to {target}, which is not there"]
  if anchor and anchor not in markdown.parse(file.read_text()).anchors:
    return [f"{name} links to {link}, and {file.name} has no such heading"]
  return []


def _all(faults) -> list[str]:
  return [fault for some in faults for fault in some]


@pytest.mark.parametrize("name", (*_PAGES, "benchmarks/README.md"))
def test_every_link_leads_to_a_file_and_a_heading(name):
  links = [x for x in _page(name).links if not x.startswith("http")]
  assert not _all(_link_faults(name, link) for link in links)


@pytest.mark.parametrize("name", _PAGES)
def test_every_command_would_be_accepted(name):
  assert not _all(map(_faults, _page(name).lines_of_code))


@pytest.mark.parametrize("name", _PAGES)
def test_every_flag_field_and_path_in_the_text_exists(name):
  assert not _all(map(_span_faults, _page(name).spans))


@pytest.mark.parametrize("name", _PAGES)
def test_python_in_a_page_is_python_and_names_what_there_is(name):
  for language, text in _page(name).code:
    if language == "python":
      ast.parse(text)
      for called in re.findall(r"\b(magvit(?:\.\w+)+)", text):
        pkgutil.resolve_name(called)


def test_the_readme_is_short_and_leads_to_every_page():
  assert len((_ROOT / "README.md").read_text().splitlines()) <= 150
  linked = {link.partition("#")[0] for link in _page("README.md").links}
  assert set(_PAGES) - {"README.md"} <= linked


def test_the_page_of_fields_is_the_generated_one():
  page = (_ROOT / "docs" / "configs.md").read_text()
  assert page == describe.page(), "write it: python -m configs.describe"


@pytest.mark.parametrize(
  "line, fault",
  [
    ("python main.py --workdri=x", "no --workdri"),
    ("python main.py --workdir=x --mode=trian", "--mode=trian"),
    ("python main.py --workdir=x --num=5", "--mode=train takes no --num"),
    ("python main.py --mode=sample --num=many", "--num=many"),
    ("python main.py --config=configs/masked.py:digitz", "digitz"),
    ("python main.py --config=configs/none.py:digits", "none.py"),
    ("python main.py --config=... --config.dataset.sise=3", "dataset.sise"),
    ("python main.py --config.dataset.size=large", "dataset.size=large"),
    (
      "python main.py --config=configs/tokenizer_video.py:digits"
      " --config.transformer.width=3",
      "transformer.width",
    ),
    ('ssh --command="cd x && python main.py --nothing" # it', "no --nothing"),
    ("magvit --mode=trian --workdir=x", "--mode=trian"),
    ("python -m magvit.nothing", "no module magvit.nothing"),
    ("python -m magvit.models.nothing", "no module models.nothing"),
    ("python -m input_pipeline.prepare --inputs=x", "no --inputs"),
    ("python -m pytest tests/nothing_test.py -s", "no file tests/nothing"),
    ("make demos", "no make target demos"),
  ],
)
def test_a_command_that_would_be_refused_is_noticed(line, fault):
  (message,) = _faults(line)
  assert fault in message


@pytest.mark.parametrize(
  "span, fault",
  [
    ("--config.mesh.fsdb=4", "mesh.fsdb"),
    ("--lables", "--lables"),
    ("--mode=trian", "trian"),
    ("dataset.sise", "dataset.sise"),
    ("models/nothing.py", "models/nothing.py"),
    ("configs/masked.py:digitz", "digitz"),
    ("magvit.load_nothing(FOLDER)", "load_nothing"),
  ],
)
def test_a_name_that_does_not_exist_is_noticed(span, fault):
  (message,) = _span_faults(span)
  assert fault in message


@pytest.mark.parametrize(
  "link", ["docs/nothing.md", "docs/faq.md#nothing", "#nothing"]
)
def test_a_link_that_leads_nowhere_is_noticed(link):
  (message,) = _link_faults("README.md", link)
  assert "nothing" in message
