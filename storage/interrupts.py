"""Ctrl-C and SIGTERM end a program in one line, whatever it is doing.

A program imports for seconds. A KeyboardInterrupt in that time would reach no
handler of ours, and libraries turn it into errors of theirs, so that the first
thing a program does is to take the signal itself (`end_at_once`).

Later, Python calls handlers between two instructions of the main thread, and a
compiler, or a wait for a device, can hold that thread for minutes. So Python
also writes each signal to a pipe as it comes, and a thread, the watch, reads
it: it ends the program if the main thread has not done so within seconds. The
GIL is free in such calls, so that the thread runs.
"""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import dataclasses
import os
import select
import signal
import sys
import threading
import time
from typing import Any

INTERRUPTED = 130  # exit code, 128 + SIGINT

_PATIENCE = 3.0  # seconds that the main thread has for an end of its own
_LAST_ACTS = 10.0  # seconds that all last acts have: a disk may not answer
_ENDING = (signal.SIGINT, signal.SIGTERM)
_CLOSE = b"\0"  # no signal has this number


def end_at_once() -> None:
  """Lets Ctrl-C end the process in one line, until there is work to clean up.

  A program calls this before its other imports, if it is __main__.
  """
  signal.signal(signal.SIGINT, _end)


@contextlib.contextmanager
def at_once() -> Iterator[None]:
  """Lets Ctrl-C end the process in one line during a block that imports."""
  previous = signal.getsignal(signal.SIGINT)
  if previous is signal.default_int_handler and _in_main_thread():
    signal.signal(signal.SIGINT, _end)
    try:
      yield
    finally:
      signal.signal(signal.SIGINT, previous)
  else:
    yield


@contextlib.contextmanager
def in_one_line() -> Iterator[None]:
  """Lets Ctrl-C unwind the block, so that it cleans up, and then the program.

  It ends with a line in place of a traceback, and the exit code INTERRUPTED;
  after a few seconds also if the block is held up where Python cannot
  interrupt it.
  """
  with contextlib.ExitStack() as stack:
    before = signal.getsignal(signal.SIGINT)
    try:
      if before is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)
      stack.enter_context(_watch.ending_on_ctrl_c())
      yield
    except KeyboardInterrupt:
      print("interrupted: run the same command again to continue")
      if before is _end:
        # All is cleaned up. An ordinary exit would wait for threads of
        # libraries, and JAX's may crash in it while they compile.
        _flush()
        os._exit(INTERRUPTED)
      sys.exit(INTERRUPTED)


@contextlib.contextmanager
def before_the_end(act: Callable[[], None]) -> Iterator[None]:
  """Calls `act` before a signal ends the process inside the block.

  SIGTERM then ends the process at once, as it does by default, but after the
  act, unless others take the signal within the block.
  """
  with contextlib.ExitStack() as stack:
    if _in_main_thread():
      _watch.acts.append(act)
      stack.callback(_watch.acts.remove, act)
      stack.enter_context(_watch.running())
      if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _left_to_the_watch)
        stack.callback(signal.signal, signal.SIGTERM, signal.SIG_DFL)
    yield


@contextlib.contextmanager
def answered_later(announce: Callable[[], None]) -> Iterator[None]:
  """Leaves the first signal to the block, which has something to save.

  Args:
    announce: says at once, in another thread, what will follow. A second Ctrl-C
      ends the process as it does outside the block.
  """
  before, _watch.announce = _watch.announce, announce
  try:
    yield
  finally:
    _watch.announce = before


def end_now(code: int) -> None:
  """Ends the process at once, after the acts of `before_the_end`.

  For a thread that finds that the main thread hangs: an ordinary exit would
  wait for it.
  """
  _watch.end(code)


def _end(number: int, frame: Any) -> None:
  del number, frame
  # Buffers of sys.stderr may be in use by the code that was interrupted.
  os.write(2, b"interrupted\n")
  os._exit(INTERRUPTED)


def _left_to_the_watch(number: int, frame: Any) -> None:
  """Handles SIGTERM by not handling it: the watch does."""


def _flush() -> None:
  for stream in (sys.stdout, sys.stderr):
    with contextlib.suppress(ValueError, OSError):
      stream.flush()


def _in_main_thread() -> bool:
  return threading.current_thread() is threading.main_thread()


@dataclasses.dataclass
class _Watch:
  """The thread that sees signals as they come, and what it knows."""

  acts: list[Callable[[], None]] = dataclasses.field(default_factory=list)
  announce: Callable[[], None] | None = None
  users: int = 0  # blocks that need the thread
  ends_on_ctrl_c: int = 0  # blocks in which Ctrl-C ends the program
  writing: int = -1  # end of the pipe that Python writes to

  @contextlib.contextmanager
  def ending_on_ctrl_c(self) -> Iterator[None]:
    with self.running():
      self.ends_on_ctrl_c += 1
      try:
        yield
      finally:
        self.ends_on_ctrl_c -= 1

  @contextlib.contextmanager
  def running(self) -> Iterator[None]:
    """Runs the thread inside the block; in the main thread alone."""
    if not _in_main_thread():
      yield
      return
    with contextlib.ExitStack() as stack:
      if not self.users:
        stack.enter_context(self._started())
      self.users += 1
      stack.callback(setattr, self, "users", self.users - 1)
      yield

  @contextlib.contextmanager
  def _started(self) -> Iterator[None]:
    reading, self.writing = os.pipe()
    os.set_blocking(self.writing, False)
    before = signal.set_wakeup_fd(self.writing, warn_on_full_buffer=False)
    thread = threading.Thread(
      target=self._run, args=(reading,), name="signals", daemon=True
    )
    thread.start()
    try:
      yield
    finally:
      signal.set_wakeup_fd(before)
      os.write(self.writing, _CLOSE)
      thread.join()
      os.close(reading)
      os.close(self.writing)

  def _run(self, reading: int) -> None:
    end, left_alone = None, set()  # time to end at; signals left to a block
    while True:
      left = None if end is None else max(0.0, end - time.monotonic())
      ready, _, _ = select.select([reading], [], [], left)
      if not ready:
        self.end(INTERRUPTED)
      numbers = os.read(reading, 512)
      if _CLOSE in numbers:
        return
      for number in numbers:
        announce = self.announce if number in _ENDING else None
        if announce is not None and number not in left_alone:
          if not left_alone:
            announce()
          left_alone.add(number)
        elif number == signal.SIGTERM:
          if signal.getsignal(signal.SIGTERM) is _left_to_the_watch:
            self.end(128 + signal.SIGTERM)  # as a shell reports it
        elif number == signal.SIGINT and self.ends_on_ctrl_c and end is None:
          end = time.monotonic() + _PATIENCE

  def end(self, code: int) -> None:
    """Ends the process, whatever the main thread is in."""
    acting = threading.Thread(target=self._act, name="last acts", daemon=True)
    acting.start()
    acting.join(_LAST_ACTS)
    _flush()
    if code == INTERRUPTED:
      with contextlib.suppress(OSError):
        os.write(1, b"interrupted: run the same command again to continue\n")
    os._exit(code)

  def _act(self) -> None:
    for act in reversed(self.acts):
      act()


_watch = _Watch()


def _forget_in_child() -> None:
  """Keeps a signal to a forked child from ending its parent, too."""
  if _watch.users:
    signal.set_wakeup_fd(-1)
    if signal.getsignal(signal.SIGTERM) is _left_to_the_watch:
      signal.signal(signal.SIGTERM, signal.SIG_DFL)


os.register_at_fork(after_in_child=_forget_in_child)
