"""Mistakes of the user as one line each."""

import sys

from absl import flags


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
