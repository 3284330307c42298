"""The heartbeat of a run: WORKDIR/heartbeat.json, for those who cannot see it.

Process 0 of a training writes it every few seconds, and `--mode=status` reads
it. Nothing is imported here that takes long.
"""

import dataclasses
import datetime
from typing import Annotated

from storage import files
from storage import schema
from storage import stores

NAME = "heartbeat.json"

STARTING, COMPILING, TRAINING = "starting", "compiling", "training"
SAVING, EVALUATING = "saving", "evaluating"
FINISHED, PREEMPTED, FAILED = "finished", "preempted", "failed"
UNDER_WAY = (STARTING, COMPILING, TRAINING, SAVING, EVALUATING)
ENDED = (FINISHED, PREEMPTED, FAILED)

_MOST_BYTES = 2**16
_REMEDY = "the next heartbeat replaces it"
_COUNT = Annotated[int, schema.at_least(0)]
_SECONDS = Annotated[float, schema.FINITE, schema.at_least(0)]


def _is_moment(text: str) -> bool:
  try:
    return text == moment(since_epoch(text))
  except (ValueError, OverflowError):
    return False


_MOMENT = Annotated[
  str, schema.Rule("like 2026-11-27T02:01:22+00:00", _is_moment)
]


@dataclasses.dataclass(frozen=True)
class Heartbeat:
  """What a run was doing at a moment; times are of its machine's clock."""

  state: Annotated[str, schema.one_of(*UNDER_WAY, *ENDED)]
  reason: str  # why it ended, unless it finished
  step: _COUNT  # steps done
  num_steps: _COUNT
  rate: _SECONDS  # steps per second; 0: not known yet
  saved_step: _COUNT  # the newest checkpoint; 0: none
  saved_at: _MOMENT | None  # when it was seen to be whole
  skipped: _COUNT  # steps that were left out
  host: str
  pid: int
  processes: _COUNT  # in the job
  version: str  # the program's
  started_at: _MOMENT
  time: _MOMENT
  seconds: _SECONDS  # until the next heartbeat


def read(workdir: str) -> Heartbeat | None:
  """The newest heartbeat of a run; None if there is none.

  Fields that a later version may have added are left out.

  Raises:
    ValueError: the file is damaged.
  """
  path = files.inside(workdir, NAME)
  if not stores.exists(path):
    return None
  value = schema.read(path, _REMEDY, _MOST_BYTES)
  if isinstance(value, dict):
    known = {field.name for field in dataclasses.fields(Heartbeat)}
    value = {name: value[name] for name in value if name in known}
  return schema.convert(value, Heartbeat, path, _REMEDY)


def write(workdir: str, beat: Heartbeat) -> None:
  """Puts a heartbeat in place of the one before.

  Raises:
    OSError: it cannot be written.
    ValueError: the file is a link.
  """
  files.write_json(files.inside(workdir, NAME), dataclasses.asdict(beat))


def moment(seconds: float) -> str:
  """A time since the epoch as text, in whole seconds of UTC."""
  time = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
  return time.isoformat(timespec="seconds")


def since_epoch(moment: str) -> float:
  """Inverse of `moment`."""
  return datetime.datetime.fromisoformat(moment).timestamp()
