"""Trackers: a file of the user's that gets the metrics as they are written.

`--tracker=FILE.py:FUNCTION` names a function that takes a `Run` and returns a
context manager, best by `contextlib.contextmanager`, of a function of (step,
metrics). docs/launch.md has one for wandb. The flag is kept nowhere: a workdir
of somebody else runs no file.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import dataclasses
import logging
import os
import runpy
import traceback
import typing
from typing import Any

import ml_collections

from storage import processes

log = logging.getLogger(__name__)

Metrics = Mapping[str, float | list[float]]
Write = Callable[[int, Metrics], Any]

_HOW = (
  "it must define FUNCTION(run), which returns a context manager of a function"
  " of (step, metrics)"
)


@dataclasses.dataclass(frozen=True)
class Run:
  """What a tracker is told of a run."""

  workdir: str
  name: str  # as the config has it
  config: dict[str, Any]  # the experiment, in nested dicts
  start: int  # the step that it goes on from; those after it may come again


Tracker = Callable[[Run], contextlib.AbstractContextManager[Write]]


def load(spec: str | None) -> Tracker | None:
  """The function FILE.py:FUNCTION; None without one.

  Raises:
    ValueError: there is no such file or function, or the file fails.
  """
  if spec is None:
    return None
  file, _, name = spec.rpartition(":")
  if not file.endswith(".py") or not os.path.isfile(file):
    raise ValueError(
      f"--tracker={spec}: there is no file {file or spec!r}: name"
      " FILE.py:FUNCTION"
    )
  try:
    function = runpy.run_path(file).get(name)
  except Exception as error:  # a file of the user's may raise anything
    raise ValueError(f"--tracker={spec}: {_told(error)}: mend it") from error
  if not callable(function):
    raise ValueError(f"--tracker={spec}: {file} has no function {name}: {_HOW}")
  return typing.cast(Tracker, function)


@contextlib.contextmanager
def opened(
  tracker: Tracker | None,
  workdir: str,
  config: ml_collections.ConfigDict,
  start: int,
) -> Iterator[Write]:
  """Gives a function of (step, metrics) that tells the tracker, in process 0.

  A tracker that fails at its start ends the run; later its failures are logged,
  the first of them in full, and the run goes on.

  Raises:
    ValueError: it cannot be started.
  """
  if tracker is None or not processes.is_first():
    yield lambda step, metrics: None
    return
  run = Run(workdir, config.name, config.to_dict(), start)
  with contextlib.ExitStack() as stack:
    try:
      context = tracker(run)
      told = context.__enter__()
    except Exception as error:
      raise ValueError(
        f"the tracker cannot be started: {_told(error)}: {_HOW}"
      ) from error
    stack.push(_quietly(context))
    yield _careful(told)


def _careful(write: Write) -> Write:
  """A function that logs what goes wrong in `write`."""
  failures = 0

  def told(step: int, metrics: Metrics) -> None:
    nonlocal failures
    try:
      write(step, metrics)
    except Exception as error:  # a file of the user's may raise anything
      failures += 1
      if failures == 1:
        log.warning(
          "WARNING: the tracker failed at step %d, and the run goes on: %s",
          *(step, _told(error)),
        )

  return told


def _quietly(context: contextlib.AbstractContextManager) -> Callable:
  """The end of a context, whose failure is logged."""

  def leave(*error) -> None:
    try:
      context.__exit__(*error)
    except Exception as failure:
      if failure is not error[1]:  # it may raise the run's own again
        log.warning(
          "WARNING: the tracker failed at its end: %s", _told(failure)
        )

  return leave


def _told(error: Exception) -> str:
  """One line on an error, with the last place that it came by."""
  (*_, place) = traceback.extract_tb(error.__traceback__) or [None]
  where = "" if place is None else f" ({place.filename}, line {place.lineno})"
  return f"{type(error).__name__}: {' '.join(str(error).split())}{where}"
