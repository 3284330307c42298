"""Held-out files of a folder that has no folder for them, by their names.

A file is held out if a hash of its path below the folder falls below a share.
So it stays in its split whatever other files come or go, and on any machine. In
a set so small that no hash does, the smallest one is held out; where all do,
the largest one trains.
"""

from collections.abc import Sequence
import hashlib
import os
import unicodedata


def check_share(field: str, share: float) -> None:
  """Raises ValueError that names the field for a share outside (0, 1)."""
  if not 0 < share < 1:
    raise ValueError(f"{field}={share:g} must be above 0 and below 1")


def is_held_out(names: Sequence[str], share: float) -> list[bool]:
  """Whether each file is held out; of two files or more, some are not all are.

  Args:
    names: distinct paths below the folder.
    share: share in (0, 1) that is held out, about.

  Raises:
    ValueError: fewer than two files.
  """
  if len(names) < 2:
    raise ValueError(f"{len(names)} files cannot be split into two parts")
  places = [_place(name) for name in names]
  order = sorted(range(len(names)), key=lambda i: (places[i], names[i]))
  chosen = [place < share for place in places]
  chosen[order[0]], chosen[order[-1]] = True, False
  return chosen


def _place(name: str) -> float:
  """A number in [0, 1) that is the file's on every system."""
  # Some systems store an accent as a character of its own.
  known = unicodedata.normalize("NFC", name.replace(os.sep, "/"))
  digest = hashlib.sha256(os.fsencode(known)).digest()
  return int.from_bytes(digest[:4], "big") / 2**32
