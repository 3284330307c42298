"""Tests of storage/progress.py: few lines, with a rate that one can trust."""

import logging

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
