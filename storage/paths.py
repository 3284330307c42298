"""Paths as people write them."""

import argparse
import os
import re

from storage import store_calls
from storage import stores

_VARIABLE = re.compile(r"\$(\w+|\{[^}]*\})")


def expand(path: str | os.PathLike, urls: bool = False) -> str:
  """Replaces a leading ~ or ~USER and variables $NAME, ${NAME} by their values.

  Shells do so with the start of a word alone, and so not in --flag=~/folder.

  Args:
    path: a path, or the URL of an object store.
    urls: whether URLs are read and written there.

  Raises:
    ValueError: an unknown user or a variable that is not set, which would make
      a folder of that very name; a URL where none is read, or of no kind of
      store; or what is no path in text.
  """
  text = os.fspath(path) if isinstance(path, os.PathLike) else path
  if not isinstance(text, str):
    raise ValueError(f"{path!r} must be a path in text, not {type(text)}")
  is_url = stores.is_url(text)
  if is_url and not urls:
    raise ValueError(
      f"{text} is an address, and files are read and written by their path"
      " alone here: mount the bucket, or copy it to a disk, and name that"
      " folder"
    )
  if is_url:
    store_calls.check_kind(text)
  home = text if is_url else os.path.expanduser(text)
  if home.startswith("~") and not os.path.lexists(home):
    user = home.partition(os.sep)[0]
    raise ValueError(
      f"{text}: {user} is the home of no user: write the folder out, or"
      f" ./{text} for one of that name"
    )
  for match in _VARIABLE.finditer(home):
    variable = match[1].strip("{}")
    if variable not in os.environ and (is_url or not os.path.lexists(home)):
      raise ValueError(
        f"{text}: the variable {variable} is not set: set it, or write the path"
        " out"
      )
  return os.path.expandvars(home)


def user_cache() -> str:
  """The user's cache folder, $XDG_CACHE_HOME or ~/.cache; perhaps relative."""
  return os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")


def argument(text: str) -> str:
  """Expands a path in the argument of a program; a `type` of argparse."""
  return _argument(text, urls=False)


def argument_or_url(text: str) -> str:
  """As `argument`, of programs that read and write object stores, too."""
  return _argument(text, urls=True)


def _argument(text: str, urls: bool) -> str:
  try:
    return expand(text, urls)
  except ValueError as error:
    raise argparse.ArgumentTypeError(str(error)) from error
