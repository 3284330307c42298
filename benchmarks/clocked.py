"""Training by the clock, for benchmarks that give each side equal time.

A side is asked for its seconds of a step first, so that its schedules end when
its time does. Steps alone count: compiling, the first batch and evaluations
do not.
"""

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
import math
import pathlib
import time
from typing import Any
from typing import Protocol

import numpy as np

from storage import files
from storage import progress

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
# Steps that are timed before: a cycle of our lazy R1, unless they take longer
# than these seconds. One more before them warms up.
_PROBED_STEPS, _PROBED_SECONDS = 16, 20.0
_QUIET = 10.0  # seconds between two lines of progress
_TIMES = ("moment", "seconds", "steps")  # a row has these and scores

# Scores by name and some clips, uint8; None where values are not finite.
Scored = tuple[dict[str, float], np.ndarray] | None


@dataclasses.dataclass(frozen=True)
class Settings:
  """How long a side trains, and how often it is scored.

  side: its name.
  seconds: training time, by `clock`.
  points: evaluations over this time, at equal distances.
  clock: "wall", or "cpu" seconds of the process.
  """

  side: str
  seconds: float
  points: int
  clock: str


class Contestant(Protocol):
  """A model, and how it trains."""

  def begin(self, num_steps: int) -> None:
    """Draws the first weights, for a training of so many steps."""

  def train(self, batch: Mapping[str, np.ndarray]) -> None:
    """Trains one step, and waits for the end of it."""

  def facts(self) -> dict[str, Any]:
    """Sizes, versions and the recipe, for the JSON."""


class Clock:
  """Seconds of training; what runs outside of `measure` does not count."""

  def __init__(self, read: Callable[[], float]):
    self._read = read
    self.seconds = 0.0

  def measure(self, run: Callable[[], None]) -> None:
    start = self._read()
    run()
    self.seconds += self._read() - start


def train(
  settings: Settings,
  contestant: Contestant,
  score: Callable[[], Scored],
  batches: Callable[[], Any],
  folder: pathlib.Path,
  after: Callable[[], dict[str, Any]] = dict,
) -> None:
  """Trains a side for its seconds, and writes its history and pictures.

  FOLDER gets history.json after each evaluation, and clips.npz of the last.

  Args:
    settings: of this side.
    contestant: the side.
    score: scores it as it is.
    batches: makes the iterator of training batches, from the first one on.
    folder: folder of the side.
    after: measures the trained side; its fields are added to the history. It
      is not called for a side that diverged.
  """
  began = time.monotonic()
  rate = _probe(contestant, batches(), CLOCKS[settings.clock])
  num_steps = max(2, math.ceil(settings.seconds / rate))
  contestant.begin(num_steps)
  data = batches()
  contestant.train(next(data))  # compiles or warms up
  contestant.begin(num_steps)
  data = batches()
  history = {
    "settings": dataclasses.asdict(settings),
    "facts": contestant.facts(),
    "probed_seconds_per_step": rate,
    "planned_steps": num_steps,
    "start_up_seconds": time.monotonic() - began,
    "rows": [],
    "diverged_at_step": None,
    "finished": False,
  }
  _Training(settings, contestant, score, history, folder).run(data, after)


def _probe(contestant: Contestant, data: Any, read) -> float:
  """Seconds of a step; the run after it begins with new weights."""
  contestant.begin(1 + _PROBED_STEPS)
  step = lambda: contestant.train(next(data))
  step()
  clock, done = Clock(read), 0
  while done < _PROBED_STEPS and (done < 3 or clock.seconds < _PROBED_SECONDS):
    clock.measure(step)
    done += 1
  return clock.seconds / done


class _Training:
  """The steps of a side, and its evaluations."""

  def __init__(self, settings, contestant, score, history, folder):
    self._settings, self._history, self._folder = settings, history, folder
    self._contestant, self._score = contestant, score
    self._clock = Clock(CLOCKS[settings.clock])
    self._steps = 0
    self._evaluation_seconds = 0.0
    self._said = time.monotonic()

  def run(self, data: Any, after: Callable[[], dict[str, Any]]) -> None:
    settings = self._settings
    moments = [
      settings.seconds * k / settings.points for k in range(settings.points + 1)
    ]
    while moments and self._evaluate_at(moments):
      while moments and self._clock.seconds < moments[0]:
        self._clock.measure(lambda: self._contestant.train(next(data)))
        self._steps += 1
        self._say()
    if self._history["diverged_at_step"] is None:
      self._history |= after()
    self._history["finished"] = True
    self._write()

  def _evaluate_at(self, moments: list[float]) -> bool:
    """Adds the row of each moment that has come; False if values are lost."""
    start = time.monotonic()
    scored = self._score()
    self._evaluation_seconds = time.monotonic() - start
    if scored is None:
      self._history["diverged_at_step"] = self._steps
      progress.say(f"{self._settings.side}: diverged by step {self._steps}")
      return False
    scores, shown = scored
    while moments and moments[0] <= self._clock.seconds:
      times = (moments.pop(0), self._clock.seconds, self._steps)
      row = {**dict(zip(_TIMES, times, strict=True)), **scores}
      self._history["rows"].append(row)
    files.write_npz(self._folder / "clips.npz", {"video": shown})
    self._write()
    self._say(row)
    return True

  def _write(self) -> None:
    files.write_json(self._folder / "history.json", self._history)

  def _say(self, row: dict[str, float] | None = None) -> None:
    """A line on the progress, at most every few seconds; of rows always."""
    now, settings = time.monotonic(), self._settings
    if row is None and now - self._said < _QUIET:
      return
    self._said = now
    rows_left = settings.points + 1 - len(self._history["rows"])
    seconds_left = max(0.0, settings.seconds - self._clock.seconds)
    left = seconds_left + rows_left * self._evaluation_seconds
    per_step = self._clock.seconds / max(1, self._steps)
    line = (
      f"{settings.side}: {self._clock.seconds:.0f} of {settings.seconds:.0f} s"
      f" of training, step {self._steps}, {per_step:.3g} s a step, about"
      f" {left / 60:.0f} min left with evaluations"
    )
    if row is not None:
      scores = [f"{k} {row[k]:.4g}" for k in row if k not in _TIMES]
      line += f" | {', '.join(scores)}"
    progress.say(line)
