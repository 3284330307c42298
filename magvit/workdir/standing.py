"""Where a run stands, from its folder alone, for `--mode=status`.

A run writes a heartbeat; one of an earlier version has metrics and checkpoints
alone. Nothing is imported here that takes long, and nothing is written.
"""

import os
import time
from typing import Any

from evaluation import records
from magvit.workdir import commits
from magvit.workdir import heartbeat as heartbeat_lib
from storage import files
from storage import listing
from storage import lock
from storage import progress
from storage import schema
from storage import stores

# A run counts as dead after so many missing heartbeats, and so many seconds: a
# busy disk, or another machine's clock, may be late by some.
_MISSING = 4
_SILENT_SECONDS = 60.0
_MOST_LETTERS = 1000  # in a line at most
_LONGEST_SECONDS = 1e12  # that are written as a time


def lines(workdir: str, now: float | None = None) -> list[str]:
  """Lines on a run, or a line on each run in a folder of runs.

  Args:
    workdir: the folder.
    now: seconds since the epoch; None for the clock's.

  Raises:
    ValueError: there is no such folder, or no run in it.
  """
  now = time.time() if now is None else now
  if not stores.is_folder(workdir):
    raise ValueError(
      f"workdir={workdir} is not a directory: name the folder of a run, or one"
      " of several runs"
    )
  if _has_config(workdir):
    return _lines(workdir, now)
  names = sorted(n for n in stores.names(workdir) if not listing.is_system(n))
  inner = [os.path.join(workdir, name) for name in names]
  runs = [folder for folder in inner if _has_config(folder)]
  if not runs:
    raise ValueError(
      f"workdir={workdir} holds no config.json, nor does a folder in it, so"
      " nothing was trained there: name the folder of a run, or one of several"
      " runs"
    )
  return [_lines(folder, now)[0] for folder in runs]


def saved_step(workdir: str) -> int:
  """The newest checkpoint that is committed, damaged or not; 0: none."""
  folder = os.path.join(workdir, "checkpoints")
  steps = commits.steps(folder) if stores.is_folder(folder) else []
  return steps[0] if steps else 0


def _has_config(folder: str) -> bool:
  return stores.exists(os.path.join(folder, "config.json"))


def _lines(workdir: str, now: float) -> list[str]:
  """What stands first is the run's standing; the rest are details of it."""
  damage = []
  try:
    try:
      beat = heartbeat_lib.read(workdir)
    except ValueError as error:
      beat, damage = None, [str(error)]
    if beat is None:
      first, *details = _without_heartbeat(workdir, now)
    else:
      death = _death(workdir, beat, now)
      first = _standing(beat, death, now)
      details = _details(workdir, beat, death, now)
  except (ValueError, OSError) as error:  # the others of a list still count
    first, details = str(error), []
  details = [f"  {_text(line)}" for line in (*details, *damage)]
  return [f"{listing.text(workdir)}: {_text(first)}", *details]


def _death(
  workdir: str, beat: heartbeat_lib.Heartbeat, now: float
) -> str | None:
  """Words on how one knows that a run is dead; None if it lives or ended."""
  if beat.state in heartbeat_lib.ENDED:
    return None
  if lock.has_died(workdir, beat.pid):
    return f"its process {beat.pid} on {beat.host} is gone"
  silent = now - heartbeat_lib.since_epoch(beat.time)
  if silent > max(_MISSING * beat.seconds, _SILENT_SECONDS):
    return f"no sign of life for {progress.clock(silent)}"
  return None


def _standing(
  beat: heartbeat_lib.Heartbeat, death: str | None, now: float
) -> str:
  """Line like "training, step 120 of 600 (20%), 1.9 steps/s, 0:04:12 left"."""
  share = 100 * beat.step // max(beat.num_steps, 1)
  steps = f"step {beat.step:,} of {beat.num_steps:,} ({share}%)"
  if death is not None:
    at = f"since {_utc(beat.time)}: it was {beat.state}, {steps}"
    return f"dead, {death}, {at}"
  if beat.state in heartbeat_lib.ENDED:
    line = f"{beat.state} {_utc(beat.time)} ({_ago(beat.time, now)}), {steps}"
    return f"{line}: {beat.reason}" if beat.reason else line
  if not beat.rate:
    return f"{beat.state}, {steps}"
  seconds = (beat.num_steps - beat.step) / beat.rate
  left = progress.clock(min(seconds, _LONGEST_SECONDS))
  return f"{beat.state}, {steps}, {beat.rate:.3g} steps/s, {left} left"


def _details(
  workdir: str, beat: heartbeat_lib.Heartbeat, death: str | None, now: float
) -> list[str]:
  is_to_resume = death is not None or beat.state in (
    heartbeat_lib.PREEMPTED,
    heartbeat_lib.FAILED,
  )
  # A save ends in the background: one may be whole that the last heartbeat
  # before a kill does not know yet.
  step = saved_step(workdir) if is_to_resume else beat.saved_step
  saved = f"checkpoint of step {step:,}" if step else "no checkpoint yet"
  if step == beat.saved_step and beat.saved_at is not None:
    saved += f", {_ago(beat.saved_at, now)}"
  if beat.skipped:
    saved += f"; steps left out: {beat.skipped:,}"
  process = (
    f"process {beat.pid} on {beat.host}, {beat.processes} in the job, started"
    f" {_utc(beat.started_at)}"
  )
  if beat.version:
    process += f", version {beat.version}"
  details = [saved, f"last sign of life {_ago(beat.time, now)}, {process}"]
  if is_to_resume:
    start = f"it goes on from step {step:,}" if step else "it starts anew"
    mended = " once that is mended" if beat.state == "failed" else ""
    details.append(
      f"to resume{mended}, run the command that started it again: {start}"
    )
  return details


def _without_heartbeat(workdir: str, now: float) -> list[str]:
  """Lines on a run that wrote no heartbeat, and on what is no run."""
  for file, words in (
    ("model.safetensors", "an export, which nothing trains"),
    ("imported.json", "imported weights, which nothing trains"),
  ):
    if stores.exists(os.path.join(workdir, file)):
      return [words]
  num_steps = _num_steps(workdir)
  total = "" if num_steps is None else f" of {num_steps:,}"
  path = files.inside(workdir, "metrics.jsonl")
  step, saved = records.last_step(path), saved_step(workdir)
  if not step and not saved:
    return ["no heartbeat, metrics or checkpoint: its training has not begun"]
  line = f"no heartbeat, so of an earlier version; step {step:,}{total}"
  if stores.exists(path):
    written = heartbeat_lib.moment(stores.changed(path) / 1e9)
    line += f" written {_ago(written, now)}"
  words = f"checkpoint of step {saved:,}" if saved else "no checkpoint yet"
  return [line, words]


def _num_steps(workdir: str) -> int | None:
  try:
    config: Any = schema.load(
      os.path.join(workdir, "config.json"), dict[str, Any]
    )
    return schema.convert(config.get("num_steps"), int, "config.json")
  except ValueError:
    return None


def _text(words: str) -> str:
  """Words of a file of someone else, which may say anything to a terminal."""
  words = schema.brief(words, _MOST_LETTERS)
  return listing.text(words.encode(errors="replace").decode())


def _utc(moment: str) -> str:
  return f"{moment[:10]} {moment[11:19]} UTC"


def _ago(moment: str, now: float) -> str:
  seconds = now - heartbeat_lib.since_epoch(moment)
  return f"{progress.clock(seconds)} ago" if seconds >= 0 else "in the future"
