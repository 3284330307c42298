"""Tests of magvit/training/waits.py: who waits for whom."""

import threading

import pytest

from magvit.training import waits


class _Clock:
  """A clock that tests move, and steps that end when they say."""

  def __init__(self, monkeypatch):
    self.now = 100.0
    self._release = threading.Event()
    monkeypatch.setattr(waits.time, "monotonic", lambda: self.now)
    monkeypatch.setattr(
      waits.jax, "block_until_ready", lambda unused: self._release.wait(60)
    )

  def end_step(self, step):
    self._release.set()
    while step.ended is None:
      pass


def test_only_time_without_a_step_under_way_counts(monkeypatch):
  clock = _Clock(monkeypatch)
  wait = waits.DataWait(workers=0)
  with wait.reading():
    clock.now += 5  # the first batch: there is no step that waits for it
  wait.stepping({})
  with wait.reading():
    clock.now += 1  # beside the step
  assert wait.share(2.0) == 0.0
  with wait.reading():
    clock.now += 1
    clock.end_step(wait._step)
    clock.now += 3
  assert wait.share(10.0) == pytest.approx(0.3)
  with wait.reading():
    clock.now += 2  # the step has ended before
  assert wait.share(10.0) == pytest.approx(0.5)
  assert wait.share(1.0) == 1.0
  wait.say(0.5)
  assert wait.share(10.0) == 0.0


def test_it_is_said_once_and_when_it_changes(monkeypatch):
  said = []
  monkeypatch.setattr(waits.progress_lib, "say", said.append)
  wait = waits.DataWait(workers=2)
  for share in (0.0, 0.04, 0.5, 0.6, 0.03, 0.01, 0.0):
    wait.say(share)
  assert [line.partition(":")[0] for line in said] == [
    "data are ahead of the steps",
    "steps wait for data 50% of the time",
    "data are ahead of the steps",
  ]


def test_the_number_of_workers_that_would_keep_up():
  line = lambda *args: waits.line(*args).partition(": ")[2]
  assert line(0.5, 4, 16) == "--config.dataset.workers=8 would keep up"
  assert line(0.75, 0, 16) == "--config.dataset.workers=8 would keep up"
  assert line(0.06, 4, 16) == "--config.dataset.workers=5 would keep up"
  text = line(0.9, 4, 16)
  assert (
    text.startswith("about 40 workers would keep up") and "16 cores" in text
  )
  assert "about 400 workers" in waits.line(1.0, 4, 16)


def test_a_step_that_failed_has_ended(monkeypatch):
  clock = _Clock(monkeypatch)

  def fail(unused):
    raise RuntimeError("out of memory")

  monkeypatch.setattr(waits.jax, "block_until_ready", fail)
  wait = waits.DataWait(workers=0)
  wait.stepping({})
  while wait._step.ended is None:
    pass
  with wait.reading():
    clock.now += 1
  assert wait.share(2.0) == 0.5
