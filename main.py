"""Entry point: one experiment, one workdir, one mode.

  python main.py --config=configs/tokenizer_video.py:digits --workdir=DIR
  python main.py --workdir=DIR --mode=evaluate
  python main.py --workdir=DIR --mode=import --source=open_magvit2 --input=FILE
  python main.py --workdir=DIR --mode=tokenize --output=FOLDER --num=N

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
from magvit import errors
from magvit import importer
from magvit import media
from magvit import metrics
from magvit import tokenize
from magvit import train

_MODES = ("train", "evaluate", "sample", "reconstruct", "import", "tokenize")
_TOKENIZERS = (tokenizer_image, tokenizer_video)
_CONFIG = config_flags.DEFINE_config_file("config", None, "FILE:ARG to run.")
_WORKDIR = flags.DEFINE_string("workdir", None, "The run.", required=True)
_MODE = flags.DEFINE_enum("mode", "train", _MODES, "What to do.")
_SOURCE = flags.DEFINE_enum("source", None, importer.SOURCES, "Whose weights.")
_INPUT = flags.DEFINE_string("input", None, "What to import or reconstruct.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder for tokens.")
_SPLIT = flags.DEFINE_string("split", "train", "What to tokenize.")
_NUM = flags.DEFINE_integer("num", None, "How many clips to tokenize.")
_TASKS = flags.DEFINE_list("tasks", None, "Whose conditions to tokenize.")
_ONLY_FOR = {  # flag -> modes that read it
  "input": ("reconstruct", "import"),
  **dict.fromkeys(("output", "split", "num", "tasks"), ("tokenize",)),
}
_DISTRIBUTED = flags.DEFINE_bool("distributed", False, "Join a pod's job.")


def run(argv: list[str]) -> None:
  if argv[1:]:
    raise ValueError(f"unknown arguments {argv[1:]}: flags start with --")
  if _DISTRIBUTED.value:
    jax.distributed.initialize()
  config, workdir, mode = _CONFIG.value, _WORKDIR.value, _MODE.value
  for flag, modes in _ONLY_FOR.items():
    if flags.FLAGS[flag].present and mode not in modes:
      wanted = " or ".join(modes)
      raise ValueError(f"--{flag} needs --mode={wanted}, not --mode={mode}")
  if not flags.FLAGS["verbosity"].present:
    absl_logging.set_verbosity(absl_logging.ERROR)  # orbax is talkative
  metrics.log_progress_to_stdout()
  if mode == "train":
    if config is None:
      raise ValueError("--mode=train needs --config=FILE:ARG")
    return train.train(config, workdir)
  if mode == "import":
    configs = [m.get_config("open_magvit2") for m in _TOKENIZERS]
    source, path = _SOURCE.value, _INPUT.value
    return importer.import_weights(source, path, *configs, workdir)
  if mode == "tokenize":
    if _OUTPUT.value is None:
      raise ValueError("--mode=tokenize needs --output=FOLDER for the tokens")
    what = (_SPLIT.value, _NUM.value, _TASKS.value)
    return tokenize.tokenize(workdir, _OUTPUT.value, config, *what)
  stored = checkpoint.read_config(workdir)
  if config is not None:
    checkpoint.check_same_experiment(stored, config, workdir)
  if _INPUT.value is not None:
    return media.reconstruct(workdir, _INPUT.value)
  return train.run_offline(mode, config or stored, workdir)


def main(argv: list[str]) -> None:
  """Errors a user can mend are one line; --verbosity=1 adds the traceback."""
  try:
    run(argv)
  except (ValueError, OSError, metrics.NonFiniteError) as error:
    if flags.FLAGS.verbosity >= 1:
      raise
    sys.exit(errors.one_line(error))
  except KeyboardInterrupt:
    sys.exit("interrupted: run the same command again to continue")


if __name__ == "__main__":
  app.run(main, flags_parser=errors.parse_flags)
