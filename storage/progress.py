"""Progress of long work, for people: share, rate, time left, signs of life."""

from collections.abc import Iterator
import contextlib
import datetime
import logging
import threading
import time

log = logging.getLogger(__name__)

_SHORT = 1.0  # seconds of work about which nothing is said
_QUIET = 10.0  # longest time, in seconds, in which a phase says nothing

_phases: list[object] = []  # those under way; the last is inside the others
_said = float("-inf")  # when the newest line was logged, by time.monotonic
_advances = 0  # signs that work goes on, so far


def say(line: str) -> None:
  """Logs a line; the next sign of life is due some seconds after it."""
  global _said
  _said = time.monotonic()
  log.info("%s", line)


def advance() -> None:
  """Notes that work goes on, for those who would end a process that hangs."""
  global _advances
  _advances += 1


def advances() -> int:
  """How often work went on so far: a number that stands still if it hangs.

  Each phase counts as it begins and ends, and each part of a `Progress`. Signs
  of life do not: they come whatever the work does.
  """
  return _advances


@contextlib.contextmanager
def phase(doing: str, hint: str = "", at_once: bool = False) -> Iterator[None]:
  """Logs what work is under way once it lasts, and then signs of life.

  They are lines of another thread, so they come also while the work is in a
  compiler. They come when nothing else was said for ten seconds; of phases
  inside each other, the inmost speaks.

  Args:
    doing: the work, like "compiling the training step".
    hint: what the first line adds on it.
    at_once: whether the first line comes also if the work turns out short.
  """
  first = f"{doing} ({hint})" if hint else doing
  if at_once:
    say(first)
  mine, begun, ended = object(), time.monotonic(), threading.Event()
  _phases.append(mine)
  advance()

  def tell() -> None:
    announced = at_once
    while not ended.wait(_SHORT):
      if _phases[-1:] != [mine]:
        continue
      now = time.monotonic()
      if not announced:
        announced = True
        if _said < begun:  # else the work is known by its parts
          say(first)
      elif now - _said >= _QUIET:
        say(f"still {doing}, {clock(now - begun)} so far")

  thread = threading.Thread(target=tell, name="phase", daemon=True)
  thread.start()
  try:
    yield
  finally:
    ended.set()
    thread.join()
    _phases.remove(mine)
    advance()
  lasted = time.monotonic() - begun
  if lasted >= _QUIET:
    say(f"finished {doing} in {clock(lasted)}")


def clock(seconds: float) -> datetime.timedelta:
  """Seconds as people read them, like 0:04:12."""
  return datetime.timedelta(seconds=round(seconds))


def progress(name: str, done: int, total: int, rate: float, unit: str) -> str:
  """Line like "NAME 120/600 (20%), 1.9 steps/s, 4:12 left"; rate per second."""
  left = clock((total - done) / max(rate, 1e-9))
  share = 100 * done // total
  return f"{name} {done}/{total} ({share}%), {rate:.3g} {unit}/s, {left} left"


class Progress:
  """Logs progress, at most every few seconds and at the end."""

  def __init__(self, name: str, total: int, unit: str, seconds: float = 10.0):
    """Starts the clock of the rate; `seconds` lie between two lines."""
    self._name, self._total, self._unit = name, total, unit
    self._seconds = seconds
    self._done = 0
    self._start = self._said = time.monotonic()
    self._first: tuple[float, int] | None = None

  def add(self, count: int, note: str = "") -> None:
    """Adds the number of units done since the last call."""
    self.update(self._done + count, note)

  def update(self, done: int, note: str = "") -> None:
    """Sets the number of units done so far; `note` ends the line."""
    if done > self._done:
      advance()
    now, self._done = time.monotonic(), done
    if not done:
      return  # there is no rate yet
    if self._first is None:
      self._first = (now, done)
    if now - self._said < self._seconds and done < self._total:
      return
    self._said = now
    # The rate leaves out the first part, which waited for compiling.
    start, before = self._first if done > self._first[1] else (self._start, 0)
    rate = (done - before) / max(now - start, 1e-9)
    line = progress(self._name, done, self._total, rate, self._unit)
    say(f"{line} | {note}" if note else line)
