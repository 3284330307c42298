"""The program, run in this process as its command line runs it."""

from collections.abc import Iterator
import contextlib
import json
import logging
import pathlib
import sys
from typing import Any
from unittest import mock

from absl import flags
from absl import logging as absl_logging
import numpy as np

import main

FOLDER = pathlib.Path(__file__).parent
ARCHIVE = FOLDER / "old_work.tar.xz"
STEP = 2  # after which the trainings of the archive were interrupted
# Packages whose loggers the program may set up.
_PACKAGES = ("magvit", "evaluation", "input_pipeline", "models", "storage")


def run(*arguments: str) -> None:
  """Runs `python main.py ARGUMENTS`; SystemExit with the message if it fails.

  What the program does to the loggers of this process is undone.
  """
  argv = ["main.py", *arguments]
  flags.FLAGS.unparse_flags()
  with mock.patch.object(sys, "argv", argv), _same_loggers():
    main.main(flags.FLAGS(argv))  # config_flags reads sys.argv


def config(name: str) -> str:
  """The flag that names an experiment of `experiments.py`."""
  return f"--config={FOLDER / 'experiments.py'}:{name}"


@contextlib.contextmanager
def _same_loggers() -> Iterator[None]:
  loggers = [logging.getLogger(name) for name in _PACKAGES]
  before = [(x.propagate, x.level, list(x.handlers)) for x in loggers]
  verbosity = absl_logging.get_verbosity()
  try:
    yield
  finally:
    absl_logging.set_verbosity(verbosity)
    for logger, state in zip(loggers, before, strict=True):
      logger.propagate, logger.level, logger.handlers = state


def clip() -> np.ndarray:
  """A fixed clip, uint8 (1, 5, 16, 16, 3)."""
  shape = (1, 5, 16, 16, 3)
  return (np.arange(np.prod(shape)) * 37 % 256).astype(np.uint8).reshape(shape)


def history(workdir: str) -> list[dict[str, Any]]:
  """The lines of metrics.jsonl: a step each, without what was not logged."""
  path = pathlib.Path(workdir, "metrics.jsonl")
  steps = [json.loads(line) for line in path.read_text().splitlines()]
  newer = ("learning_rate", "steps_per_second", "data_wait")
  return [{k: v for k, v in s.items() if k not in newer} for s in steps]


def scores(workdir: str) -> dict[str, dict[str, float]]:
  """{evaluator: {metric: value}} of the files in results/."""
  return {
    path.stem: json.loads(path.read_text())["metrics"]
    for path in sorted(pathlib.Path(workdir, "results").glob("*.json"))
  }
