"""Sides of a contest, each trained in a process and a folder of its own."""

import ast
from collections.abc import Mapping
import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import ml_collections

from benchmarks import clocked
from magvit.workdir import folder as workdir_lib
from storage import files


def set_field(config: ml_collections.ConfigDict, given: str) -> None:
  """Sets the field of a flag --set=FIELD=VALUE, like "loss.entropy=0".

  Raises:
    ValueError: the config has no such field, or it takes no such value.
  """
  name, _, text = given.partition("=")
  *sections, field = name.split(".")
  try:
    value = ast.literal_eval(text)
  except (SyntaxError, ValueError):
    value = text
  try:
    for section in sections:
      config = config[section]
    config[field]  # a new field would be added
    config[field] = value
  except (KeyError, TypeError) as error:
    raise ValueError(
      f"--set={given}: the config has no field {name} that takes this"
      " (docs/configs.md)"
    ) from error


def run(
  module: str,
  folder: pathlib.Path,
  settings: clocked.Settings,
  config: ml_collections.ConfigDict,
  environment: Mapping[str, str],
) -> None:
  """Runs `python -m MODULE FOLDER`, unless the side is finished there.

  FOLDER gets settings.json and config.json; the module writes history.json.

  Args:
    module: trains the side of a folder.
    folder: folder of the side.
    settings: a dataclass of plain values.
    config: of the side.
    environment: variables that differ from this process's.

  Raises:
    ValueError: the folder holds a run of others, or the side failed.
  """
  if is_finished(folder, settings, config):
    print(f"{settings.side}: finished in {folder} before")
    return
  folder.mkdir(parents=True, exist_ok=True)
  files.write_json(folder / "settings.json", dataclasses.asdict(settings))
  workdir_lib.write_config(str(folder), config)
  command = [sys.executable, "-m", module, str(folder)]
  if subprocess.run(command, env={**os.environ, **environment}).returncode:
    raise ValueError(
      f"{settings.side} did not finish: its last lines, above, say why; the"
      " same command goes on with what is left"
    )


def is_finished(
  folder: pathlib.Path,
  settings: clocked.Settings,
  config: ml_collections.ConfigDict,
) -> bool:
  """Whether a folder holds the whole run of these settings.

  Raises:
    ValueError: it holds a run of others.
  """
  path = folder / "history.json"
  if not path.exists():
    return False
  history = json.loads(path.read_text())
  plain = json.loads(json.dumps(dataclasses.asdict(settings)))
  given = {**plain, "config": json.loads(config.to_json())}
  stored = {
    **history["settings"],
    "config": json.loads((folder / "config.json").read_text()),
  }
  differing = [name for name in given if given[name] != stored.get(name)]
  if differing:
    raise ValueError(
      f"{path} is of a run with another {', '.join(differing)}: name another"
      f" --output, or remove {folder}"
    )
  return history["finished"]
