"""Tests of storage/interrupts.py: signals to programs that do not answer."""

import contextlib
import pathlib
import signal
import subprocess
import sys

import pytest

from storage import interrupts

_ROOT = pathlib.Path(__file__).parents[2]

# A program in a call in which Python answers no signal, as compiling is.
_BUSY = """
import ctypes, threading
from storage import interrupts
interrupts._PATIENCE = 0.1
interrupts.end_at_once()
libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)

def hang():
  threading.Timer(0.3, say("busy")).start()  # once the call has begun
  libc.pthread_mutex_lock(mutex)
  libc.pthread_mutex_lock(mutex)  # it is locked already: this never returns

def say(text):
  return lambda: print(text, flush=True)

with interrupts.in_one_line():
"""
_AT_WORK = f"""{_BUSY}
  with interrupts.before_the_end(say("unlocked")):
    hang()
"""
_WITH_UNSAVED_WORK = f"""{_BUSY}
  with interrupts.before_the_end(say("unlocked")):
    with interrupts.answered_later(say("stopping soon")):
      hang()
"""
# The main thread answers at once, and what it cleans up then hangs.
_HELD_UP = f"""{_BUSY}
  import time
  try:
    print("busy", flush=True)
    while True:
      time.sleep(0.01)
  except KeyboardInterrupt:
    hang()
"""
# All is cleaned up, and a thread of a library keeps the program from its exit.
_HELD_UP_AT_EXIT = f"""{_BUSY}
  threading.Thread(target=hang).start()
  threading.Event().wait()
"""
_INTERRUPTED = "interrupted: run the same command again to continue\n"


@contextlib.contextmanager
def _started(code):
  with subprocess.Popen(
    [sys.executable, "-c", code],
    cwd=_ROOT,
    stdout=subprocess.PIPE,
    text=True,
  ) as process:
    try:
      assert _read_line(process) == "busy\n"
      yield process
    finally:
      process.kill()


def _read_line(process):
  assert process.stdout is not None
  return process.stdout.readline()


def test_ctrl_c_ends_a_program_that_python_cannot_interrupt():
  with _started(_AT_WORK) as process:
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
  assert output == f"unlocked\n{_INTERRUPTED}"
  assert process.returncode == 130


def test_work_to_save_is_announced_and_a_second_ctrl_c_ends_it():
  with _started(_WITH_UNSAVED_WORK) as process:
    process.send_signal(signal.SIGINT)
    assert _read_line(process) == "stopping soon\n"
    process.send_signal(signal.SIGTERM)  # asks for the same: it ends nothing
    with pytest.raises(subprocess.TimeoutExpired):
      process.wait(timeout=0.5)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
  assert output == f"unlocked\n{_INTERRUPTED}"
  assert process.returncode == 130


@pytest.mark.parametrize(
  "code", [_HELD_UP, _HELD_UP_AT_EXIT], ids=["cleaning up", "at exit"]
)
def test_an_end_that_is_held_up_comes_all_the_same(code):
  with _started(code) as process:
    process.send_signal(signal.SIGINT)
    while _INTERRUPTED not in _read_line(process):
      assert process.poll() is None
    assert process.wait(timeout=60) == 130


def test_blocks_leave_signals_as_they_were():
  before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
  with interrupts.in_one_line(), interrupts.before_the_end(lambda: None):
    assert signal.getsignal(signal.SIGTERM) is not before[1]
  after = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
  assert after == before and signal.set_wakeup_fd(-1) == -1
