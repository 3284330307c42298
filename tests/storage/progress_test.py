"""Tests of storage/progress.py: few lines, with a rate that one can trust."""

import logging
import time

import pytest

from storage import progress as progress_lib


@pytest.fixture
def clock(monkeypatch):
  """List of one number: the seconds that the clock shows."""
  now = [100.0]
  monkeypatch.setattr(progress_lib.time, "monotonic", lambda: now[0])
  return now


@pytest.fixture
def said(caplog, monkeypatch):
  """Function that returns the lines logged so far."""
  monkeypatch.setattr(logging.getLogger("storage"), "propagate", True)
  caplog.set_level(logging.INFO, "storage")
  monkeypatch.setattr(progress_lib, "_said", float("-inf"))
  return lambda: [record.getMessage() for record in caplog.records]


def test_a_line_comes_at_most_every_few_seconds_and_at_the_end(clock, said):
  progress = progress_lib.Progress("x", 100, "parts", seconds=10)
  lines = []
  for _ in range(100):
    clock[0] += 1
    progress.add(1)
    lines.append(len(said()))
  assert lines[8:10] == [0, 1] and lines[18:20] == [1, 2]
  assert len(said()) == 10
  clock[0] += 1
  progress = progress_lib.Progress("y", 1, "parts", seconds=10)
  progress.add(1)  # the end is logged at once
  assert said()[-1].startswith("y 1/1 (100%)")


def test_the_rate_leaves_the_first_part_out_because_it_compiles(clock, said):
  progress = progress_lib.Progress("x", 10, "clips", seconds=0)
  clock[0] += 60
  progress.add(2)
  for _ in range(2):
    clock[0] += 1
    progress.add(2, "a note")
  assert said() == [
    "x 2/10 (20%), 0.0333 clips/s, 0:04:00 left",
    "x 4/10 (40%), 2 clips/s, 0:00:03 left | a note",
    "x 6/10 (60%), 2 clips/s, 0:00:02 left | a note",
  ]


def test_a_counter_of_workers_says_nothing_before_the_first_is_done(
  clock, said
):
  progress = progress_lib.Progress("x", 10**9, "examples", seconds=10)
  clock[0] += 20
  progress.update(0)  # the time left is unknown
  assert not said()
  progress.update(5)
  assert len(said()) == 1


def _spoken(said, count):
  """Waits until so many lines are logged by the thread of a phase."""
  while len(said()) < count:
    time.sleep(0.001)
  return said()


def test_long_work_says_what_it_is_and_that_it_goes_on(said, monkeypatch):
  monkeypatch.setattr(progress_lib, "_SHORT", 0.002)
  monkeypatch.setattr(progress_lib, "_QUIET", 0.004)
  with progress_lib.phase("compiling x", "it takes long"):
    lines = _spoken(said, 3)
  assert lines[0] == "compiling x (it takes long)"
  assert lines[1] == lines[2] == "still compiling x, 0:00:00 so far"
  assert said()[-1] == "finished compiling x in 0:00:00"


def test_short_work_says_nothing_unless_it_is_to(said):
  with progress_lib.phase("reading x"):
    pass
  assert not said()
  with progress_lib.phase("evaluating x", at_once=True):
    pass
  assert said() == ["evaluating x"]


def test_of_work_inside_work_the_inmost_speaks(said, monkeypatch):
  monkeypatch.setattr(progress_lib, "_SHORT", 0.002)
  with progress_lib.phase("evaluating", at_once=True):
    with progress_lib.phase("sampling"):
      # Only now, so that a slow machine does not speak of the outer one before.
      monkeypatch.setattr(progress_lib, "_QUIET", 0.004)
      lines = _spoken(said, 4)
    assert lines[1:] == ["sampling", *["still sampling, 0:00:00 so far"] * 2]
    count = len(said())
    assert "still evaluating" in _spoken(said, count + 1)[-1]


def test_a_line_of_progress_is_a_sign_of_life(clock, said, monkeypatch):
  monkeypatch.setattr(progress_lib, "_SHORT", 0.001)
  with progress_lib.phase("sampling"):
    _spoken(said, 1)
    clock[0] += 9
    progress_lib.Progress("x", 1, "clips").add(1)
    clock[0] += 9  # 18 s after the first line, 9 s after the last
    time.sleep(0.05)
    assert [line[:5] for line in said()] == ["sampl", "x 1/1"]
    clock[0] += 1
    assert _spoken(said, 3)[-1] == "still sampling, 0:00:19 so far"
