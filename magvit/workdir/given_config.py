"""The config that --config names: a file of Python, or one that was stored.

FILE.py or FILE.py:ARG   calls get_config() or get_config(ARG) of the file;
                         configs/NAME.py is ours where the user has none
WORKDIR/config.json      the experiment of a workdir or of an export, once more

Every mistake is one ValueError. `command_line` gives this file to absl's
config flags in place of the one that the user names.
"""

import importlib.util
import inspect
import json
import os
import pathlib
import runpy
import traceback
from typing import Any

import ml_collections

from configs import base
from configs import fields as config_fields
from magvit.workdir import stored_config
from storage import paths

# The folder that holds our configs/, and the package that it is in: none in the
# repository, "magvit." in a wheel.
_ROOT = pathlib.Path(base.__file__).parents[1]
_WITHIN = base.__name__.removesuffix("configs.base")
_HOW = (
  "it must define get_config(), or get_config(arg), that returns an"
  " ml_collections.ConfigDict, best from a function of configs/base.py"
)


def get_config(name: str) -> ml_collections.ConfigDict:
  """Loads the config "FILE", "FILE:ARG" or "WORKDIR/config.json".

  Raises:
    ValueError: no such file; one that fails; a config with a field too few or
      too many. ValueErrors of the file itself are kept.
  """
  name = paths.expand(name)
  file, colon, arg = name.partition(":")
  if not os.path.lexists(file) and pathlib.Path(file).parts[:1] == ("configs",):
    ours = _ROOT / file
    file = str(ours) if ours.is_file() else file
  if os.path.isdir(file):
    stored = os.path.join(file, "config.json")
    remedy = "name a file FILE.py:ARG"
    if os.path.exists(stored):
      remedy = f"for the config in it say --config={stored}"
    raise ValueError(f"--config={name} is a folder: {remedy}")
  if not os.path.isfile(file):
    raise ValueError(
      f"--config={name}: there is no file {file}: name one of configs/, like"
      " configs/tokenizer_video.py:digits, your own, or WORKDIR/config.json"
    )
  if file.endswith(".json"):
    return _from_json(file)
  config = _call(file, (arg,) if colon else ())
  if not isinstance(config, ml_collections.ConfigDict):
    raise ValueError(
      f"{file}: get_config returned {type(config).__name__}: {_HOW}"
    )
  _check(file, json.loads(config.to_json_best_effort()))
  return config


def _call(file: str, arguments: tuple[str, ...]) -> Any:
  """Runs a file and its get_config; errors become one line that says where."""
  try:
    function = runpy.run_path(file).get("get_config")
    if not callable(function):
      raise ValueError(f"{file} has no get_config: {_HOW}")
    _check_arguments(file, function, arguments)
    return function(*arguments)
  except ValueError:
    raise
  except SyntaxError as error:
    raise ValueError(
      f"{error.filename}, line {error.lineno}: {error.msg}: mend the file"
    ) from error
  except Exception as error:  # a file of the user's may raise anything
    places = traceback.extract_tb(error.__traceback__)
    lines = [place.lineno for place in places if place.filename == file]
    where = f", line {lines[-1]}" if lines else ""
    text = f"{type(error).__name__}: {error}"
    remedy = "mend the file"
    if isinstance(error, ModuleNotFoundError) and _is_ours(error.name):
      remedy = f"import {_WITHIN}{error.name}, as it is named where installed"
    raise ValueError(f"{file}{where}: {text}: {remedy}") from error


def _is_ours(module: str | None) -> bool:
  """Whether a wheel has, within its package, a module that a file names."""
  if not module or not _WITHIN:
    return False
  top = module.partition(".")[0]
  return importlib.util.find_spec(f"{_WITHIN}{top}") is not None


def _check_arguments(file: str, function: Any, given: tuple[str, ...]) -> None:
  try:
    inspect.signature(function).bind(*given)
  except TypeError as error:
    remedy = "say --config=FILE:ARG" if not given else "leave :ARG out"
    raise ValueError(
      f"{file}: get_config{inspect.signature(function)} cannot be called with"
      f" {given or 'no argument'}: {remedy}"
    ) from error


def _check(file: str, fields: dict[str, Any]) -> None:
  """Raises ValueError unless these are the fields of configs/base.py."""
  if not isinstance(fields.get("algorithm"), str):
    raise ValueError(f"{file}: the config lacks the field algorithm: {_HOW}")
  known = stored_config.KNOWN.get(fields["algorithm"])
  fault = stored_config.fault(fields, (known or base.common)(), known is None)
  if fault:
    raise ValueError(
      f"{file}: {fault}. Start from a function of configs/base.py, which has"
      " every field, and override"
    )


def _from_json(path: str) -> ml_collections.ConfigDict:
  """The config of a file of ours; fields of later versions get their usual."""
  fields = stored_config.read(path)
  stored_config.check(path, fields)
  known = stored_config.KNOWN.get(fields["algorithm"])
  config = (known or base.common)()
  known_names = {name for name, _ in config_fields.leaves(config)}
  unknown = sorted(
    name for name, _ in config_fields.leaves(fields) if name not in known_names
  )
  if unknown and known is not None:
    raise ValueError(
      f"{path}: the field {unknown[0]} is none of this version: copy the file"
      " and remove it"
    )
  config.update(_with_tuples(fields))
  return config


def _with_tuples(value: Any) -> Any:
  """The value with tuples, as configs have them, in place of JSON's lists."""
  if isinstance(value, dict):
    return {key: _with_tuples(inner) for key, inner in value.items()}
  if isinstance(value, list):
    return tuple(map(_with_tuples, value))
  return value
