"""Paths as people write them."""

import argparse
import os
import re

_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://")
_VARIABLE = re.compile(r"\$(\w+|\{[^}]*\})")


def expand(path: str | os.PathLike) -> str:
  """Replaces a leading ~ or ~USER and variables $NAME, ${NAME} by their values.

  Shells do so with the start of a word alone, and so not in --flag=~/folder.

  Raises:
    ValueError: an unknown user or a variable that is not set, which would make
      a folder of that very name, as would an address like gs://bucket/folder;
      or what is no path in text.
  """
  text = os.fspath(path) if isinstance(path, os.PathLike) else path
  if not isinstance(text, str):
    raise ValueError(f"{path!r} must be a path in text, not {type(text)}")
  if _URL.match(text):
    raise ValueError(
      f"{text} is an address, and files are read and written by their path"
      " alone: mount the bucket, or copy it to a disk, and name that folder"
    )
  home = os.path.expanduser(text)
  if home.startswith("~") and not os.path.lexists(home):
    user = home.partition(os.sep)[0]
    raise ValueError(
      f"{text}: {user} is the home of no user: write the folder out, or"
      f" ./{text} for one of that name"
    )
  for match in _VARIABLE.finditer(home):
    variable = match[1].strip("{}")
    if variable not in os.environ and not os.path.lexists(home):
      raise ValueError(
        f"{text}: the variable {variable} is not set: set it, or write the path"
        " out"
      )
  return os.path.expandvars(home)


def argument(text: str) -> str:
  """Expands the argument of a program; a `type` of argparse."""
  try:
    return expand(text)
  except ValueError as error:
    raise argparse.ArgumentTypeError(str(error)) from error
