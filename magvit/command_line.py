"""The terminal: flags of modes, mistakes as one line each, progress lines.

A mode is a module with a frozen dataclass `Options`, whose fields are flags,
and `run(options, config, workdir)`. `define_flags` makes the flags of all
modes, `read_options` the options of one; what is not given keeps its default.
"""

from collections.abc import Mapping
import dataclasses
import logging
import sys
import types
import typing
from typing import Any

from absl import flags
from absl import logging as absl_logging

from storage import processes

_PACKAGES = ("evaluation", "input_pipeline", "magvit", "models", "storage")


def option(
  help: str,
  default: Any = None,
  needed: str = "",
  choices: tuple[str, ...] | None = None,
) -> Any:
  """A field of a mode's Options, which is a flag of the same name.

  Args:
    help: what the flag says in this mode: a phrase without a full stop.
    default: its value if it is not given.
    needed: what to give, like "FOLDER", if the mode cannot do without it.
    choices: the values it may take; None: any of the field's type.
  """
  metadata = {"help": help, "needed": needed, "choices": choices}
  return dataclasses.field(default=default, metadata=metadata)


def describe(modes: Mapping[str, Any]) -> str:
  """What each mode does: the first lines of their files."""
  lines = (module.__doc__.partition("\n")[0] for module in modes.values())
  return "What to do. " + " ".join(lines)


def define_flags(modes: Mapping[str, Any]) -> None:
  """Defines the flags of all modes; one that several read says what in each."""
  helps, fields = {}, {}
  for mode, module in modes.items():
    for field in dataclasses.fields(module.Options):
      helps.setdefault(field.name, []).append(
        f"--mode={mode}: {field.metadata['help']}."
      )
      fields.setdefault(field.name, (module.Options, field))
  for name, (options, field) in fields.items():
    _define(name, _kind(options, name), field, " ".join(helps[name]))


_DEFINITIONS = {
  bool: flags.DEFINE_bool,
  int: flags.DEFINE_integer,
  float: flags.DEFINE_float,
  str: flags.DEFINE_string,
}


def _kind(options: type, name: str) -> Any:
  """The type of a field, without the None that it may be."""
  kind = typing.get_type_hints(options)[name]
  if typing.get_origin(kind) is types.UnionType:
    (kind,) = (t for t in typing.get_args(kind) if t is not type(None))
  return kind


def _define(name: str, kind: Any, field: dataclasses.Field, help: str) -> None:
  choices, default = field.metadata["choices"], typing.cast(Any, field.default)
  if choices:
    flags.DEFINE_enum(name, default, choices, help)
  elif typing.get_origin(kind) is tuple:
    default = None if default is None else [str(part) for part in default]
    flags.DEFINE_list(name, default, help)
  else:
    _DEFINITIONS[kind](name, default, help)


def read_options(
  mode: str, modes: Mapping[str, Any], config_given: bool
) -> Any:
  """The options of a mode, from the flags.

  Raises:
    ValueError: a flag of another mode, or one that is missing; it is named.
  """
  options = modes[mode].Options
  names = {field.name for field in dataclasses.fields(options)}
  readers = {}
  for other, module in sorted(modes.items()):
    for field in dataclasses.fields(module.Options):
      readers.setdefault(field.name, []).append(other)
  given = {name for name in readers if flags.FLAGS[name].present}
  for name in sorted(given - names):
    wanted = " or ".join(readers[name])
    raise ValueError(f"--{name} needs --mode={wanted}, not --mode={mode}")
  subject = getattr(options, "SUBJECT", None)
  if given and subject and subject not in given:
    raise ValueError(f"--{min(given)} needs --{subject}: what to {mode}")
  if getattr(options, "NEEDS_CONFIG", False) and not config_given:
    raise ValueError(f"--mode={mode} needs --config=FILE:ARG")
  for field in dataclasses.fields(options):
    if field.metadata["needed"] and field.name not in given:
      needed = f"--{field.name}={field.metadata['needed']}"
      raise ValueError(f"--mode={mode} needs {needed}")
  return options(**{name: _value(name, options) for name in given})


def _value(name: str, options: type) -> Any:
  """A given flag's value, in the field's type."""
  value = flags.FLAGS[name].value
  if not isinstance(value, list):
    return value
  part_type = typing.get_args(_kind(options, name))[0]
  try:
    return tuple(part_type(part) for part in value)
  except ValueError as error:
    raise ValueError(
      f"--{name}={','.join(value)} must be whole numbers with commas"
    ) from error


def run_alone(mode: str, module: Any) -> None:
  """Runs one mode as a program of its own; its mistakes are one line each."""
  flags.DEFINE_string("workdir", None, "The folder of the trained model.")
  define_flags({mode: module})
  try:
    rest = parse_flags(sys.argv)[1:]
    if rest:
      raise ValueError(f"unknown arguments {rest}: flags start with --")
    options = read_options(mode, {mode: module}, config_given=False)
    start_logging()
    module.run(options, None, flags.FLAGS.workdir)
  except (ValueError, OSError) as error:
    sys.exit(one_line(error))


def parse_flags(argv: list[str]) -> list[str]:
  """As absl does; a mistake in a config is one line, too."""
  try:
    return flags.FLAGS(argv)
  except (flags.Error, AttributeError, OSError) as error:
    while "Traceback" in str(error) and error.__context__ is not None:
      error = error.__context__
    sys.exit(one_line(error))


def one_line(error: BaseException) -> str:
  return "error: " + " ".join(str(error).split())


def start_logging() -> None:
  """Shows what our packages log, from process 0, with the time of day.

  Libraries are silent up to errors, unless --verbosity says otherwise.
  """
  if not flags.FLAGS["verbosity"].present:
    absl_logging.set_verbosity(absl_logging.ERROR)  # orbax is talkative
  handler = logging.StreamHandler(sys.stdout)
  handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%X"))
  for package in _PACKAGES:
    logger = logging.getLogger(package)
    logger.propagate = False
    logger.setLevel(logging.INFO)
    if processes.is_first():
      logger.addHandler(handler)
