"""Program whose workers write for a minute: FOLDER."""

import os
import pathlib
import sys
import time

sys.path.insert(0, os.getcwd())

from storage import parts  # noqa: E402
from storage import progress as progress_lib  # noqa: E402

_folder = pathlib.Path()


def start(folder: str, done) -> None:
  global _folder
  del done
  _folder = pathlib.Path(folder)


def write_for_a_minute(name: str) -> None:
  """Writes the time, again and again, in a file named by the process id."""
  path = _folder / f"{os.getpid()}.{name}"
  for _ in range(3000):
    path.write_text(str(time.time()))
    time.sleep(0.02)


def main(folder: str) -> None:
  names = ["a", "b"]
  progress = progress_lib.Progress("x", len(names), "parts")
  list(
    parts.in_workers(write_for_a_minute, names, 2, start, (folder,), progress)
  )


if __name__ == "__main__":
  main(*sys.argv[1:])
