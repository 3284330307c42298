"""Entry point: one experiment, one workdir, one mode.

  python main.py --config=configs/tokenizer_video.py:digits --workdir=DIR
  python main.py --workdir=DIR --mode=evaluate
  python main.py --workdir=DIR --mode=import --source=open_magvit2 --input=FILE

--config may be left out once a workdir was trained: it keeps its own.
"""

import sys

from absl import app
from absl import flags
from absl import logging as absl_logging
import jax
from ml_collections import config_flags

from configs import tokenizer_image
from configs import tokenizer_video
from magvit import checkpoint
from magvit import importer
from magvit import metrics
from magvit import train

_MODES = ("train", "evaluate", "sample", "reconstruct", "import")
_CONFIG = config_flags.DEFINE_config_file("config", None, "FILE:ARG to run.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the run.")
_MODE = flags.DEFINE_enum("mode", "train", _MODES, "What to do.")
_SOURCE = flags.DEFINE_enum(
  "source", None, importer.SOURCES, "Whose weights --mode=import reads."
)
_INPUT = flags.DEFINE_string("input", None, "The file to read.")
_DISTRIBUTED = flags.DEFINE_bool(
  "distributed", False, "Join the other processes of a TPU pod or Slurm job."
)
flags.mark_flag_as_required(_WORKDIR.name)


def run(argv: list[str]) -> None:
  if argv[1:]:
    raise ValueError(f"unknown arguments {argv[1:]}: flags start with --")
  if _DISTRIBUTED.value:
    jax.distributed.initialize()
  config, workdir = _CONFIG.value, _WORKDIR.value
  if not flags.FLAGS["verbosity"].present:
    absl_logging.set_verbosity(absl_logging.ERROR)  # orbax is talkative
  metrics.log_progress_to_stdout()
  if _MODE.value == "train":
    if config is None:
      raise ValueError("--mode=train needs --config=FILE:ARG")
    train.train(config, workdir)
    return
  if _MODE.value == "import":
    configs = {
      "image": tokenizer_image.get_config("open_magvit2"),
      "video": tokenizer_video.get_config("open_magvit2"),
    }
    importer.import_weights(_SOURCE.value, _INPUT.value, configs, workdir)
    return
  stored = checkpoint.read_config(workdir)
  if config is not None:
    checkpoint.check_same_experiment(stored, config, workdir)
  train.run_offline(_MODE.value, config or stored, workdir)


def main(argv: list[str]) -> None:
  """Errors a user can mend are one line; --verbosity=1 adds the traceback."""
  try:
    run(argv)
  except (ValueError, OSError, metrics.NonFiniteError) as error:
    if flags.FLAGS.verbosity >= 1:
      raise
    sys.exit(one_line(error))
  except KeyboardInterrupt:
    sys.exit("interrupted: run the same command again to continue")


def parse_flags(argv: list[str]) -> list[str]:
  """As absl does; a mistake in a config is one line, too."""
  try:
    return flags.FLAGS(argv)
  except (flags.Error, AttributeError, OSError) as error:
    while "Traceback" in str(error) and error.__context__ is not None:
      error = error.__context__
    sys.exit(one_line(error))


def one_line(error: Exception) -> str:
  return "error: " + " ".join(str(error).split())


if __name__ == "__main__":
  app.run(main, flags_parser=parse_flags)
