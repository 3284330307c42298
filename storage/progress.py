"""Progress of long work, for people: share, rate and time left."""

import datetime
import logging
import time

log = logging.getLogger(__name__)


def progress(name: str, done: int, total: int, rate: float, unit: str) -> str:
  """Line like "NAME 120/600 (20%), 1.9 steps/s, 4:12 left"; rate per second."""
  left = datetime.timedelta(seconds=round((total - done) / max(rate, 1e-9)))
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
    log.info("%s", f"{line} | {note}" if note else line)
