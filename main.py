"""Entry point: one experiment, one workdir, one mode.

  python main.py --config=configs/tokenizer_video.py:digits --workdir=DIR
  python main.py --workdir=DIR --mode=evaluate

--config may be left out once a workdir was trained: it keeps its own.
"""

import logging
import sys

from absl import app
from absl import flags
from absl import logging as absl_logging
import jax
from ml_collections import config_flags

from magvit import checkpoint
from magvit import metrics
from magvit import train

MODES = ("train", "evaluate", "sample", "reconstruct")

_CONFIG = config_flags.DEFINE_config_file(
  "config", None, "FILE:ARG, e.g. configs/tokenizer_video.py:digits"
)
_WORKDIR = flags.DEFINE_string(
  "workdir", None, "Directory of checkpoints, metrics, results and report."
)
_MODE = flags.DEFINE_enum("mode", "train", MODES, "What to do.")
_DISTRIBUTED = flags.DEFINE_bool(
  "distributed", False, "Join the other processes of a TPU pod or Slurm job."
)
flags.mark_flag_as_required("workdir")


def run(argv: list[str]) -> None:
  if argv[1:]:
    raise ValueError(f"unknown arguments {argv[1:]}: flags start with --")
  if _DISTRIBUTED.value:
    jax.distributed.initialize()
  _configure_logging()
  config, workdir = _CONFIG.value, _WORKDIR.value
  if _MODE.value == "train":
    if config is None:
      raise ValueError("--mode=train needs --config=FILE:ARG")
    train.train(config, workdir)
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
    sys.exit(f"error: {error}")
  except KeyboardInterrupt:
    sys.exit("interrupted: run the same command again to continue")


def _configure_logging() -> None:
  if not flags.FLAGS["verbosity"].present:
    absl_logging.set_verbosity(absl_logging.WARNING)  # orbax is talkative
  handler = logging.StreamHandler(sys.stdout)
  handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
  logger = logging.getLogger("magvit")
  logger.addHandler(handler)
  logger.propagate = False
  logger.setLevel(logging.INFO if jax.process_index() == 0 else logging.WARNING)


if __name__ == "__main__":
  app.run(main)
