"""Reader of the commands in our pages, for tests: would they be refused?

Commands are read as the programs read them, and never run.
"""

import ast
import dataclasses
import functools
import importlib.util
import pathlib
import re
import runpy
import shlex
import subprocess
import sys

from absl import flags

import hatch_build
from magvit.modes import table
from magvit.workdir import stored_config
import main  # noqa: F401  defines the flags

_ROOT = pathlib.Path(__file__).parents[1]
WINGS = (
  *("benchmarks", "configs", "docs", "evaluation", "input_pipeline"),
  *("magvit", "models", "storage", "tests"),
)
_PLACEHOLDER = re.compile(r"[A-Z][A-Z0-9_:.]*|\.\.\.")  # DIR, FILE:ARG, ...
# A command of ours; `magvit` is main.py, where the package is installed.
_COMMAND = re.compile(
  r"(?:python (?=main\.py|-m)|(?<![\w./=-])(?=magvit --))"
  r"(main\.py|magvit|-m [\w.]+)(?= |$|\")"
)
# Programs of others, with the options that we use, as their references have
# them: Docker, the Google Cloud CLI, kubectl, Slurm and xpk 1.13.1. A command
# needs those with an exclamation mark.
_FOREIGN = {
  "docker build": "build-arg tag!",
  "docker push": "",
  "gcloud compute tpus tpu-vm create": "zone! version! accelerator-type spot",
  "gcloud compute tpus tpu-vm delete": "zone! quiet",
  "gcloud compute tpus tpu-vm describe": "zone! format",
  "gcloud compute tpus tpu-vm ssh": "zone! worker command",
  "gcloud container node-pools create": (
    "cluster! location! node-locations machine-type tpu-topology num-nodes spot"
  ),
  "gcloud container node-pools delete": "cluster! location!",
  "gcloud storage cp": "recursive",
  "git clone": "",
  "kubectl apply": "filename!",
  "kubectl delete": "",
  "kubectl describe": "",
  "kubectl get": "",
  "kubectl logs": "follow selector",
  "sbatch": (
    "job-name nodes ntasks-per-node gres time requeue open-mode signal"
  ),
  "scontrol requeue": "",
  "squeue": "name",
  "srun": "kill-on-bad-exit ntasks gpus-per-task",
  "xpk cluster create": "cluster! tpu-type! num-slices spot zone project",
  "xpk cluster delete": "cluster! zone project",
  "xpk workload create": (
    "workload! cluster! command! tpu-type! num-slices max-restarts"
    " restart-on-exit-codes termination-grace-period-seconds docker-image"
    " docker-image-pull-secret"
  ),
  "xpk workload delete": "workload! cluster!",
  "xpk workload list": "cluster! filter-by-job",
}
# First words of lines that are commands of ours, of pip, or of the shell.
_PLAIN = {"magvit", "make", "nohup", "pip", "python", "source", "tail"}


def foreign_flags() -> set[str]:
  """Options of all programs of others that our pages name."""
  options = " ".join(_FOREIGN.values())
  return {word.rstrip("!") for word in options.split()}


def foreign_faults(line: str) -> list[str]:
  """Reasons why a program of somebody else would refuse a line."""
  words = shlex.split(line, comments=True)
  names = [n for n in _FOREIGN if words[: len(n.split())] == n.split()]
  if not names:
    plain = not words or words[0].rpartition("/")[2] in _PLAIN
    return [] if plain else [f"no program is known for: {line}"]
  name = max(names, key=len)
  words = words[len(name.split()) :]
  if name == "srun":  # what stands behind the program are options of that
    words = words[: words.index("magvit")]
  given = {w[2:].partition("=")[0] for w in words if w.startswith("--")}
  spec = _FOREIGN[name].split()
  known = {word.rstrip("!") for word in spec}
  needed = {word.rstrip("!") for word in spec if word.endswith("!")}
  return [
    *(f"{name} is not known to take --{x}" for x in sorted(given - known)),
    *(f"{name} needs --{x}" for x in sorted(needed - given)),
  ]


def _readers() -> dict[str, tuple[str, ...]]:
  """Flag of main.py -> the modes that read it; the others serve all modes."""
  readers = {}
  for mode, module in table.MODES.items():
    for field in dataclasses.fields(module.Options):
      readers[field.name] = (*readers.get(field.name, ()), mode)
  return readers


@functools.cache
def _get_config(name: str):
  """Reads the config of FILE:ARG; raises if there is none."""
  file, _, argument = name.partition(":")
  get_config = runpy.run_path(str(_ROOT / file))["get_config"]
  return get_config(argument) if argument else get_config()


@functools.cache
def base_configs():
  return [make() for make in stored_config.KNOWN.values()]


def _is_placeholder(value: str) -> bool:
  return _PLACEHOLDER.fullmatch(value) is not None


def _field(config, path: str):
  for name in path.split("."):
    config = config[name]
  return config


def field_faults(configs, path: str, value: str | None) -> list[str]:
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


def main_faults(arguments: list[str]) -> list[str]:
  """Reasons why main.py would refuse these arguments."""
  if not all(argument.startswith("--") for argument in arguments):
    return [f"arguments {arguments} must begin with --"]
  given = [a[2:].partition("=")[::2] for a in arguments]
  values, faults = dict(given), []
  mode, name = values.get("mode", "train"), values.get("config", "...")
  configs = base_configs()
  if not _is_placeholder(name):
    try:
      configs = [_get_config(name)]
    except (OSError, KeyError, ValueError) as error:
      faults.append(f"--config={name}: {error}")
  for flag, value in given:
    if flag.startswith("config."):
      faults += field_faults(configs, flag.partition(".")[2], value)
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
  module = in_the_repository(module)
  if module.split(".")[0] not in WINGS:  # pytest, with files to run
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


def in_the_repository(name: str) -> str:
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


def faults(line: str) -> list[str]:
  """Reasons why the commands of a line would be refused."""
  faults = []
  if line.startswith("make "):
    faults += _make_faults(shlex.split(line, comments=True)[1:])
  for match in _COMMAND.finditer(line):
    tail = re.split(r"\s(?:2?>|\||&)", line[match.end() :])[0]
    if line[: match.start()].count('"') % 2:  # within --command="..."
      tail = tail.partition('"')[0]
    arguments = shlex.split(tail, comments=True)
    if match[1] in ("main.py", "magvit"):
      faults += main_faults(arguments)
    else:
      faults += _module_faults(match[1].removeprefix("-m "), arguments)
  return [f"{fault}, in: {line}" for fault in faults]
