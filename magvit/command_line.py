"""The terminal: mistakes of the user as one line each, and progress lines."""

import logging
import sys

from absl import flags

from storage import processes

_PACKAGES = ("evaluation", "input_pipeline", "magvit", "models", "storage")


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


def log_progress_to_stdout() -> None:
  """Shows what our packages log, from process 0, with the time of day."""
  handler = logging.StreamHandler(sys.stdout)
  handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%X"))
  for package in _PACKAGES:
    logger = logging.getLogger(package)
    logger.propagate = False
    logger.setLevel(logging.INFO)
    if processes.is_first():
      logger.addHandler(handler)
