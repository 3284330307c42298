"""The terminal: flags of modes, mistakes as one line each, progress lines.

A mode has a frozen dataclass `Options`, whose fields are flags, and
`run(options, config, workdir)`, as magvit/modes/table.py lists them.
`define_flags` makes the flags of all modes, `read_options` the options of one;
a flag that is not given keeps its default. Until the flags are known to be
right, nothing is imported that takes long.
"""

from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import dataclasses
import io
import logging
import pathlib
import sys
import types
import typing
from typing import Any

from absl import app
from absl import flags
from absl import logging as absl_logging

from configs import fields as config_fields
import evaluation
import input_pipeline
import models
import storage
from storage import interrupts
from storage import paths

# Packages whose lines are shown. In a wheel the others are within magvit.
_PACKAGES = (
  *(evaluation.__name__, input_pipeline.__name__, __name__.partition(".")[0]),
  *(models.__name__, storage.__name__),
)

# File whose get_config reads every config, with one line for each mistake.
_CONFIG_READER = pathlib.Path(__file__).parent / "workdir/given_config.py"

# Flags belong to the program that has them defined here: --help lists those.
flags.disclaim_key_flags()


def option(
  help: str,
  default: Any = None,
  needed: str = "",
  choices: tuple[str, ...] | None = None,
  allowed: config_fields.Range | None = None,
  is_path: bool = False,
) -> Any:
  """Declares a field of a mode's Options, and with it a flag of that name.

  Args:
    help: meaning of the flag in this mode: a phrase without a full stop.
    default: value where the flag is not given.
    needed: value to ask for, like "FOLDER", if the mode cannot do without.
    choices: values that are accepted; None: all of the field's type.
    allowed: numbers that are accepted; every number needs one.
    is_path: whether ~ and $VARIABLES are replaced, as `storage/paths.py` says.
  """
  metadata = {
    "help": help,
    "needed": needed,
    "choices": choices,
    "allowed": allowed,
    "is_path": is_path,
  }
  return dataclasses.field(default=default, metadata=metadata)


class _Path(flags.ArgumentParser):
  """Parses the path of a file or folder."""

  def parse(self, argument: str) -> str:
    return paths.expand(argument, urls=True)


def define_path(name: str, help: str) -> flags.FlagHolder:
  """Defines a flag for a path, None where it is not given."""
  serializer = flags.ArgumentSerializer()
  return flags.DEFINE(_Path(), name, None, help, serializer=serializer)


def describe(modes: Mapping[str, Any]) -> str:
  """Help of --mode: the first line of what each mode's Options says."""
  lines = (
    f"--mode={name}: {mode.Options.__doc__.partition(chr(10))[0]}"
    for name, mode in modes.items()
  )
  return "\n".join(["What to do.", *lines])


def define_flags(modes: Mapping[str, Any]) -> None:
  """Defines the flags of all modes.

  Their help has a line for each mode that reads the flag.
  """
  helps, fields = {}, {}
  for mode, module in modes.items():
    prefix = f"--mode={mode}: " if len(modes) > 1 else ""
    for field in dataclasses.fields(module.Options):
      line = f"{prefix}{field.metadata['help']}."
      helps.setdefault(field.name, []).append(line)
      fields.setdefault(field.name, (module.Options, field))
  for name, (options, field) in fields.items():
    _define(name, _kind(options, name), field, "\n".join(helps[name]))


_DEFINITIONS = {
  bool: flags.DEFINE_bool,
  int: flags.DEFINE_integer,
  float: flags.DEFINE_float,
  str: flags.DEFINE_string,
}


def _kind(options: type, name: str) -> Any:
  """Type of a field, without the None that it may be."""
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
  elif field.metadata["is_path"]:
    define_path(name, help)
  else:
    _DEFINITIONS[kind](name, default, help)


def read_options(
  mode: str, modes: Mapping[str, Any], config_given: bool
) -> Any:
  """Reads the options of a mode from the flags.

  Raises:
    ValueError: a flag of another mode is given, or one of this mode is missing.
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
    raise ValueError(
      f"--{min(given)} needs --{subject}, without which --mode={mode} reads no"
      " other flag"
    )
  if getattr(options, "NEEDS_CONFIG", False) and not config_given:
    raise ValueError(f"--mode={mode} needs --config=FILE:ARG")
  for field in dataclasses.fields(options):
    if field.metadata["needed"] and field.name not in given:
      needed = f"--{field.name}={field.metadata['needed']}"
      raise ValueError(f"--mode={mode} needs {needed}")
  return options(**{name: _value(name, options) for name in given})


def _value(name: str, options: type) -> Any:
  """Converts the value of a given flag to the field's type, and checks it."""
  value = flags.FLAGS[name].value
  (field,) = (f for f in dataclasses.fields(options) if f.name == name)
  if isinstance(value, list):
    value = _parts(f"--{name}", value, _kind(options, name), field)
  if field.metadata["allowed"] is not None:
    for part in value if isinstance(value, tuple) else (value,):
      field.metadata["allowed"].check(f"--{name}", part)
  return value


def _parts(
  name: str, given: list[str], kind: Any, field: dataclasses.Field
) -> tuple[Any, ...]:
  """Converts the parts of a flag's list."""
  if field.metadata["is_path"]:
    return tuple(map(paths.expand, given))
  try:
    return tuple(map(typing.get_args(kind)[0], given))
  except ValueError as error:
    raise ValueError(
      f"{name}={','.join(given)} must be whole numbers separated by commas"
    ) from error


def check_given(
  mode: str, options: type, config: Any | None, workdir: str | None
) -> None:
  """Raises ValueError for a --workdir or --config that is missing or not read.

  Args:
    mode: name of the mode.
    options: the Options of the mode.
    config: value of --config, or None.
    workdir: value of --workdir, or None.
  """
  needs_workdir = getattr(options, "NEEDS_WORKDIR", True)
  if needs_workdir and workdir is None:
    raise ValueError(f"--mode={mode} needs --workdir=DIR")
  if not needs_workdir and workdir is not None:
    raise ValueError(
      f"--mode={mode} reads no --workdir={workdir}: leave it out"
    )
  if config is not None and not getattr(options, "READS_CONFIG", True):
    raise ValueError(f"--mode={mode} reads no --config: leave it out")


def run_alone(name: str, mode: Any) -> None:
  """Runs one mode as a program of its own; mistakes are one line each."""
  app.define_help_flags()
  if getattr(mode.Options, "NEEDS_WORKDIR", True):
    define_path("workdir", "Folder of the trained model.")
  define_flags({name: mode})
  workdir = None
  rest = parse_flags(sys.argv)[1:]
  with mistakes_in_one_line():
    if rest:
      raise ValueError(f"unknown arguments {rest}: flags start with --")
    options = read_options(name, {name: mode}, config_given=False)
    if "workdir" in flags.FLAGS:
      workdir = flags.FLAGS.workdir
    check_given(name, mode.Options, None, workdir)
    run_mode = mode.load()
    start_logging(mode.Options)
    run_mode(options, None, workdir)


@contextlib.contextmanager
def mistakes_in_one_line(*others: type[Exception]) -> Iterator[None]:
  """Ends the program by one line for errors that a user can mend, and Ctrl-C.

  --verbosity=1 adds a traceback.

  Args:
    *others: classes of such errors beside ValueError and OSError.
  """
  with interrupts.in_one_line():
    try:
      yield
    except (ValueError, OSError, *others) as error:
      if flags.FLAGS.verbosity >= 1:
        raise
      sys.exit(one_line(error))


def parse_flags(argv: list[str]) -> list[str]:
  """Parses as absl does, but reports mistakes, also in a config, in one line.

  Returns the arguments that are no flags.
  """
  try:
    return flags.FLAGS(_with_config_expanded(argv))
  except (flags.Error, AttributeError, KeyError, OSError, ValueError) as error:
    if isinstance(error, flags.UnrecognizedFlagError):
      field = error.flagname.removeprefix("config.")
      if field != error.flagname and not _is_given("config", argv):
        sys.exit(
          f"error: --config.{field} needs --config=FILE:ARG, whose field it"
          " changes"
        )
    while "Traceback" in str(error) and error.__context__ is not None:
      error = error.__context__
    # ml_collections has a KeyError, or puts it into another error.
    missing = error
    if isinstance(error, AttributeError) and error.args:
      missing = error.args[0]
    if isinstance(missing, KeyError):
      lines = str(missing.args[0]).splitlines()  # the name, and what is near it
      sys.exit(f"error: the config has no field {': '.join(lines)}")
    sys.exit(one_line(error))


def _with_config_expanded(argv: list[str]) -> list[str]:
  """Lets our reader take --config, whose file absl would read in parsing."""
  expanded, is_value = [], False
  for argument in argv:
    flag, equals, path = argument.partition("=")
    is_config = flag.lstrip("-") == "config" and flag.startswith("-")
    if is_config and equals:
      argument = f"{flag}={_loaded(path)}"
    elif is_value:
      argument = _loaded(argument)
    is_value = is_config and not equals
    expanded.append(argument)
  return expanded


def _loaded(name: str) -> str:
  """The config as absl is to load it: through our reader of configs."""
  return f"{_CONFIG_READER}:{paths.expand(name)}"


def _is_given(name: str, argv: list[str]) -> bool:
  flag = f"--{name}"
  return any(argument.partition("=")[0] == flag for argument in argv)


def reason(error: Exception) -> str:
  """One line; errors that are not meant for users are told by their class."""
  text = " ".join(str(error).split())
  known = isinstance(error, ValueError | OSError)
  return text if known else f"{type(error).__name__}: {text}".rstrip(": ")


def one_line(error: BaseException) -> str:
  return "error: " + " ".join(str(error).split())


def start_logging(options: type) -> None:
  """Shows what our packages log, from process 0, with the time of day.

  Other packages show errors alone, unless --verbosity says otherwise. A mode
  whose `options` say that it computes nothing only prints.
  """
  if not getattr(options, "COMPUTES", True):
    return
  from storage import processes  # It imports JAX: not before flags are right.

  if not flags.FLAGS["verbosity"].present:
    absl_logging.set_verbosity(absl_logging.ERROR)  # orbax logs much
    for name in ("absl", "asyncio"):  # and each error that it raises, in full
      logging.getLogger(name).setLevel(logging.CRITICAL)
  if isinstance(sys.stdout, io.TextIOWrapper):
    # Names of files may hold bytes that the terminal's encoding has not.
    sys.stdout.reconfigure(errors="backslashreplace")
  handler = logging.StreamHandler(sys.stdout)
  handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%X"))
  for package in _PACKAGES:
    logger = logging.getLogger(package)
    logger.propagate = False
    logger.setLevel(logging.INFO)
    if processes.is_first():
      logger.addHandler(handler)
