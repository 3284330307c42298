"""Metrics of a run: JSON lines, TensorBoard, progress, and the NaN guard."""

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import json
import logging
import os
import time

import ml_collections
import numpy as np
import tensorboardX

from evaluation import records
from evaluation.diagnosis import lines as diagnosis
from magvit.training import endings
from magvit.training import trackers
from storage import files
from storage import processes
from storage import progress as progress_lib
from storage import stores

log = logging.getLogger(__name__)

_SENT_EVERY = 30.0  # seconds after which a store gets the newest metrics
_LONGEST_WAIT = 10.0  # seconds between two lines of slow steps


class Writer:
  """Writes WORKDIR/metrics.jsonl and TensorBoard events, from process 0.

  A resumed run repeats the steps after its checkpoint, so the lines of those
  steps are removed first: each step stands in the files once.

  An object of a store cannot be appended to. There the files are written on a
  disk and sent whole, every _SENT_EVERY seconds and by `push`.
  """

  def __init__(
    self,
    workdir: str,
    start_step: int,
    tell: trackers.Write = lambda step, metrics: None,
  ):
    """Opens the files; `tell` gets what is written, too."""
    self._tell = tell
    self._file = self._board = None
    if not processes.is_first():
      return
    self._box = stores.Outbox(workdir)
    self._sent = time.monotonic()
    lines = _lines_up_to(files.inside(workdir, "metrics.jsonl"), start_step)
    path = files.inside(self._box.folder, "metrics.jsonl")
    board = files.own_folder(self._box.folder, "tensorboard")
    files.write_atomically(path, "".join(f"{line}\n" for line in lines))
    self._path, self._file = path, files.append_to(path)
    self._board = tensorboardX.SummaryWriter(board, purge_step=start_step + 1)
    self.push()

  def write(
    self, step: int, metrics: Mapping[str, float | list[float]]
  ) -> None:
    """Writes one line, and flushes it, so that a kill does not lose it."""
    if self._file is None or self._board is None:
      return
    with files.naming(self._path):
      self._file.write(json.dumps({"step": step, **metrics}) + "\n")
      self._file.flush()
    bad = not_finite(metrics)  # neither a histogram nor a curve shows it
    for name, value in metrics.items():
      if name in bad:
        continue
      if isinstance(value, list):
        self._board.add_histogram(name, np.asarray(value), step)
      else:
        self._board.add_scalar(name, value, step)
    self._tell(step, metrics)

    if time.monotonic() - self._sent > _SENT_EVERY:
      try:
        self.push()
      except OSError as error:  # the next save says so if it stays
        self._sent = time.monotonic()
        log.warning("WARNING: the newest metrics were not sent: %s", error)

  def push(self) -> None:
    """Sends what was written since the last time, if the workdir is a store."""
    if self._file is None or self._board is None:
      return
    self._board.flush()
    self._box.push()
    self._sent = time.monotonic()

  def close(self) -> None:
    if self._file is not None and self._board is not None:
      self._file.close()
      self._board.close()
      self._box.push()


def _lines_up_to(path: str, step: int) -> list[str]:
  """Lines of the steps up to `step`; those after it are repeated.

  Damaged lines are left out, and the log says so: a kill tears the last one.
  """
  if not stores.exists(path):
    return []
  kept, damaged = [], 0
  with open(stores.fetched(path), errors="replace") as f:
    for line in f:
      read = records.read_line(line)
      if read is None:
        damaged += 1
      elif read[0] <= step:
        kept.append(line.rstrip("\n"))
  if damaged:
    log.warning("left out %d damaged lines of %s", damaged, path)
  return kept


def has_evaluation(workdir: str, step: int) -> bool:
  """Whether metrics.jsonl holds the scores of an evaluation after a step."""
  path = os.path.join(workdir, "metrics.jsonl")
  lines = map(records.read_line, _lines_up_to(path, step))
  return any(
    line[0] == step and any(name.startswith("eval/") for name in line[1])
    for line in lines
    if line is not None
  )


def say_health(workdir: str, config: ml_collections.ConfigDict) -> None:
  """Logs what is wrong with a run, a line each, or that nothing is."""
  if processes.is_first():
    path = files.inside(workdir, "metrics.jsonl")
    metrics, _ = records.read_metrics(path)
    for line in diagnosis.lines(metrics, config.to_dict()):
      progress_lib.say(line)


def not_finite(
  metrics: Mapping[str, float | list[float]],
) -> dict[str, float | list[float]]:
  """The metrics of a step that are NaN or infinite."""
  return {k: v for k, v in metrics.items() if not np.isfinite(v).all()}


def check_finite(step: int, metrics: dict[str, float | list[float]]) -> None:
  """Raises NonFiniteError naming the step and the offending metrics."""
  bad = not_finite(metrics)
  if bad:
    names = ", ".join(f"{k}={v}" for k, v in bad.items())
    raise endings.NonFiniteError(
      f"step {step}: {names}. Training stopped; the last checkpoint is from"
      " before. Lower optimizer.peak_learning_rate, or look at the metrics"
      " of the steps before in metrics.jsonl"
    )


class Progress:
  """Progress, rate and time left, for a log line."""

  def __init__(
    self,
    start_step: int,
    num_steps: int,
    name: str,
    leading_metrics: Sequence[str] = (),
  ):
    self._name, self._num_steps = name, num_steps
    self._leading_metrics = leading_metrics
    self._last = (start_step, time.monotonic())

  def line(self, step: int, metrics: dict[str, float]) -> str:
    """Text like "NAME 120/600 (20%), 1.9 steps/s, 4:12 left | loss 2.31"."""
    rate = self.rate(step)
    self._last = (step, time.monotonic())
    done = progress_lib.progress(
      self._name, step, self._num_steps, rate, "steps"
    )
    shown = ", ".join(
      f"{k} {metrics[k]:.4g}" for k in self._leading_metrics if k in metrics
    )
    return f"{done} | {shown}"

  def is_due(self) -> bool:
    """Whether steps are so slow that one has to say that they go on."""
    return self.seconds() >= _LONGEST_WAIT

  def rate(self, step: int) -> float:
    """Steps per second since the last line, or since the clock restarted."""
    return (step - self._last[0]) / max(self.seconds(), 1e-9)

  def seconds(self) -> float:
    """Seconds of training since the last line, or since the clock restarted."""
    return time.monotonic() - self._last[1]

  def restart_clock(self, step: int) -> None:
    """Leaves out of the rate all before, like compiling."""
    self._last = (step, time.monotonic())

  @contextlib.contextmanager
  def paused(self) -> Iterator[None]:
    """Leaves the work inside the block, which is no training, out of it."""
    begun = time.monotonic()
    yield
    step, last = self._last
    self._last = (step, last + time.monotonic() - begun)
