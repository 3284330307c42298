"""Trains models and works with trained ones: one experiment a workdir.

  python main.py --config=configs/tokenizer_video.py:digits --workdir=DIR
  python main.py --mode=evaluate --workdir=DIR [--protocol=NAME --weights=FILE]
  python main.py --mode=status --workdir=DIR
  python main.py --mode=reconstruct --workdir=DIR --input=FILE_OR_FOLDER
  python main.py --mode=sample --workdir=DIR --task=TASK --num=N
  python main.py --mode=tokenize --workdir=DIR --output=FOLDER --num=N
  python main.py --mode=export --workdir=DIR --output=FOLDER
  python main.py --mode=import --workdir=DIR --source=open_magvit2 --input=FILE
  python main.py --mode=compile --config=FILE:ARG --workdir=DIR --topology=NAME

A workdir keeps the config that it was trained with, so that all modes but train
and compile do without --config. README.md leads to a page on each mode.
"""

import sys

from storage import interrupts

if __name__ == "__main__":
  interrupts.end_at_once()  # the other imports take a while

from absl import app
from absl import flags
from ml_collections import config_flags

from magvit import command_line
from magvit.modes import table
from magvit.training import endings
from magvit.workdir import fields

_CONFIG = config_flags.DEFINE_config_file(
  "config",
  None,
  "Config of the experiment, FILE:ARG; --config.FIELD=VALUE changes a field.",
)
_WORKDIR = command_line.define_path("workdir", "Folder of the experiment.")
_MODE = flags.DEFINE_enum(
  "mode", "train", list(table.MODES), command_line.describe(table.MODES)
)
_DISTRIBUTED = flags.DEFINE_bool(
  "distributed", False, "Whether to join the other processes of a job."
)
_COORDINATOR = flags.DEFINE_string(
  "coordinator", None, "Address of the job's process 0, HOST:PORT."
)
_PROCESSES = flags.DEFINE_integer(
  "processes", None, "Number of processes in the job."
)
_PROCESS = flags.DEFINE_integer(
  "process", None, "Number of this process in the job, from 0."
)
command_line.define_flags(table.MODES)


def run(argv: list[str]) -> None:
  if argv[1:]:
    raise ValueError(f"unknown arguments {argv[1:]}: flags start with --")
  job = (_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
  if not _DISTRIBUTED.value and job != (None, None, None):
    raise ValueError("--coordinator and --process(es) need --distributed")
  mode = table.MODES[_MODE.value]
  config = _CONFIG.value and fields.resolved(_CONFIG.value)
  options = command_line.read_options(
    _MODE.value, table.MODES, config_given=config is not None
  )
  command_line.check_given(_MODE.value, mode.Options, config, _WORKDIR.value)
  run_mode = mode.load()  # The flags are right, and so the seconds well spent.
  if _DISTRIBUTED.value:
    from magvit.training import distributed  # It imports JAX.

    distributed.join(*job)
  command_line.start_logging(mode.Options)
  run_mode(options, config, _WORKDIR.value)


@endings.errors_end_the_job()
def main(argv: list[str]) -> None:
  """Errors a user can mend become one line; --verbosity=1 adds a traceback."""
  try:
    with command_line.mistakes_in_one_line(endings.NonFiniteError):
      run(argv)
  except endings.Stopped as stopped:
    print(stopped, flush=True)
    sys.exit(endings.EXIT_CODE)


if __name__ == "__main__":
  app.run(main, flags_parser=command_line.parse_flags)
