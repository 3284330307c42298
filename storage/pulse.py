"""Signs of life of a process, and one last act before SIGTERM ends it."""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import os
import select
import signal
import sys
import threading


@contextlib.contextmanager
def kept(
  beat: Callable[[], None], seconds: float, last: Callable[[], None]
) -> Iterator[None]:
  """Calls `beat` every so many seconds inside a `with`, beside all else.

  SIGTERM ends the process at once, as it does by default, but after `last`;
  also while the main thread compiles or computes, where it answers no signal.
  Within the block others may take the signal in place of this.

  Args:
    beat: gives a sign of life; called in another thread.
    seconds: time between two calls.
    last: called in another thread before SIGTERM ends the process.
  """
  reading, writing = os.pipe()
  os.set_blocking(writing, False)
  ended = threading.Event()

  def run() -> None:
    while True:
      ready, _, _ = select.select([reading], [], [], seconds)
      if ended.is_set():
        return
      if not ready:
        beat()
      elif signal.SIGTERM in os.read(reading, 512):
        if signal.getsignal(signal.SIGTERM) is _left_to_the_thread:
          last()
          _end()

  thread = threading.Thread(target=run, name="pulse", daemon=True)
  thread.start()
  try:
    with _signals_to(writing):
      yield
  finally:
    ended.set()
    os.write(writing, b"\0")
    thread.join()
    os.close(reading)
    os.close(writing)


def _left_to_the_thread(number: int, frame) -> None:
  """Handles SIGTERM by not handling it: the thread does."""


def _end() -> None:
  for stream in (sys.stdout, sys.stderr):
    with contextlib.suppress(ValueError, OSError):
      stream.flush()
  os._exit(128 + signal.SIGTERM)  # as a shell reports it


@contextlib.contextmanager
def _signals_to(writing: int) -> Iterator[None]:
  """Lets Python write the number of each signal to a pipe as it comes.

  Its handlers, in contrast, wait until the main thread is back in Python.
  """
  is_main = threading.current_thread() is threading.main_thread()
  if not is_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
    yield  # signals are the caller's
    return
  before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
  signal.signal(signal.SIGTERM, _left_to_the_thread)
  try:
    yield
  finally:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.set_wakeup_fd(before)


def _forget_in_child() -> None:
  """Keeps a signal to a forked child from ending its parent, too."""
  if signal.getsignal(signal.SIGTERM) is _left_to_the_thread:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


os.register_at_fork(after_in_child=_forget_in_child)
