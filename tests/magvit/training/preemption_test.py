"""Tests of magvit/training/preemption.py: what signals do, and when."""

import os
import signal

import pytest

from magvit.training import preemption


@pytest.fixture(autouse=True)
def _ctrl_c():
  """Handles Ctrl-C as in a terminal: a script's background jobs ignore it."""
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  yield
  signal.signal(signal.SIGINT, before)


def _send(number):
  os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_noted_and_the_handlers_come_back(number):
  before = signal.getsignal(number)
  with preemption.Listener() as listener:
    assert not listener.should_stop()
    _send(number)
    assert listener.should_stop() and listener.should_stop()
  assert signal.getsignal(number) is before


def test_a_second_sigterm_changes_nothing_and_a_second_ctrl_c_interrupts():
  with preemption.Listener() as listener:
    _send(signal.SIGTERM)
    _send(signal.SIGTERM)
    _send(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
      _send(signal.SIGINT)
      listener.should_stop()


def test_a_signal_ends_long_work_at_once():
  with preemption.Listener() as listener:
    with listener.suspended():
      pass
    with pytest.raises(KeyboardInterrupt):
      with listener.suspended():
        _send(signal.SIGINT)
        signal.sigtimedwait([], 1)  # the handler runs before this returns
    assert not listener.should_stop()


def test_a_signal_before_long_work_is_not_forgotten():
  with preemption.Listener() as listener:
    _send(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
      with listener.suspended():
        pytest.fail("began all the same")
