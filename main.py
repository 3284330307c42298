"""Entry point: one experiment, one workdir, one mode.

  python main.py --config=configs/tokenizer_video.py:digits --workdir=DIR
  python main.py --workdir=DIR --mode=evaluate
  python main.py --workdir=DIR --mode=evaluate --protocol=NAME --weights=FILE
  python main.py --workdir=DIR --mode=reconstruct --input=FILE_OR_FOLDER
  python main.py --workdir=DIR --mode=sample --task=TASK --num=N
  python main.py --workdir=DIR --mode=tokenize --output=FOLDER --num=N
  python main.py --workdir=DIR --mode=export --output=FOLDER
  python main.py --config=FILE:ARG --workdir=DIR --mode=compile \
    --topology=v5e:16x16
  python main.py --workdir=DIR --mode=import --source=open_magvit2 --input=FILE

--config may be left out once a workdir was trained: it keeps its own.
"""

import sys

from absl import app
from absl import flags
from ml_collections import config_flags

from magvit import command_line
from magvit.modes import table
from magvit.training import distributed
from magvit.training import metrics
from magvit.training import preemption

_CONFIG = config_flags.DEFINE_config_file(
  "config", None, "Config of the experiment, FILE:ARG; --config.FIELD=VALUE"
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the experiment.")
_MODE = flags.DEFINE_enum(
  "mode", "train", list(table.MODES), command_line.describe(table.MODES)
)
_DISTRIBUTED = flags.DEFINE_bool(
  "distributed", False, "Join the other processes of this job."
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
flags.adopt_module_key_flags(command_line)  # for --help


def run(argv: list[str]) -> None:
  if argv[1:]:
    raise ValueError(f"unknown arguments {argv[1:]}: flags start with --")
  job = (_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
  if _DISTRIBUTED.value:
    distributed.join(*job)
  elif job != (None, None, None):
    raise ValueError("--coordinator and the like need --distributed")
  mode, config = table.MODES[_MODE.value], _CONFIG.value
  options = command_line.read_options(
    _MODE.value, table.MODES, config_given=config is not None
  )
  if _WORKDIR.value is None and getattr(mode.Options, "NEEDS_WORKDIR", True):
    raise ValueError(f"--mode={_MODE.value} needs --workdir=DIR")
  command_line.start_logging()
  mode.run(options, config, _WORKDIR.value)


@distributed.errors_end_the_job()
def main(argv: list[str]) -> None:
  """Errors a user can mend are one line; --verbosity=1 adds the traceback."""
  try:
    run(argv)
  except preemption.Stopped as stopped:
    print(stopped, flush=True)
    sys.exit(preemption.EXIT_CODE)
  except (ValueError, OSError, metrics.NonFiniteError) as error:
    if flags.FLAGS.verbosity >= 1:
      raise
    sys.exit(command_line.one_line(error))
  except KeyboardInterrupt:
    print("interrupted: run the same command again to continue")
    sys.exit(preemption.INTERRUPTED)


if __name__ == "__main__":
  app.run(main, flags_parser=command_line.parse_flags)
