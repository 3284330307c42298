"""What a reader of files that others may have made is, for the fuzzer."""

from collections.abc import Callable
import dataclasses
import pathlib
from typing import Any


@dataclasses.dataclass(frozen=True)
class Reader:
  """A reader under test.

  Attributes:
    name: its name in READERS.
    make: writes the seed into a folder.
    read: reads such a folder; what it returns can be compared.
    targets: patterns of the files that are changed.
    mend: makes the checksums of a changed file (folder, path) true again.
    exact: whether checksums promise that what can be read is as it was, as long
      as they are not mended.
    sealed: whether that holds even then.
    alone: whether the changed file is read without the others of the seed, but
      for those of the same name with another suffix.
  """

  name: str
  make: Callable[[pathlib.Path], None]
  read: Callable[[pathlib.Path], Any]
  targets: tuple[str, ...] = ("*",)
  mend: Callable[[pathlib.Path, pathlib.Path], None] | None = None
  exact: bool = False
  sealed: bool = False
  alone: bool = False


class Inconsistent(Exception):
  """What was read contradicts itself, or what a reader promises."""


def check(holds: bool, words: str) -> None:
  if not holds:
    raise Inconsistent(words)
