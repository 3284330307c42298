"""Ctrl-C ends a program in one line, whatever it is doing.

A program imports for seconds. A KeyboardInterrupt in that time would reach no
handler of ours, and libraries turn it into errors of theirs, so that the first
thing a program does is to take the signal itself.
"""

from collections.abc import Iterator
import contextlib
import os
import signal
import sys
from typing import Any

INTERRUPTED = 130  # exit code, 128 + SIGINT


def end_at_once() -> None:
  """Lets Ctrl-C end the process in one line, until there is work to clean up.

  A program calls this before its other imports, if it is __main__.
  """
  signal.signal(signal.SIGINT, _end)


@contextlib.contextmanager
def in_one_line() -> Iterator[None]:
  """Lets Ctrl-C unwind the block, so that it cleans up, and then the program.

  It ends with a line in place of a traceback, and the exit code INTERRUPTED.
  """
  try:
    if signal.getsignal(signal.SIGINT) is _end:
      signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
  except KeyboardInterrupt:
    print("interrupted: run the same command again to continue")
    sys.exit(INTERRUPTED)


def _end(number: int, frame: Any) -> None:
  del number, frame
  # Buffers of sys.stderr may be in use by the code that was interrupted.
  os.write(2, b"interrupted\n")
  os._exit(INTERRUPTED)
