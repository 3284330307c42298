"""What a run is doing, for those who cannot watch it, and an end if it hangs.

Process 0 writes the heartbeat (magvit/workdir/heartbeat.py). Each process looks
at its own work: if no step ends for long, as when another process is gone or a
disk no longer answers, it says where each of its threads is and ends, so that
whatever started the job can start it again.
"""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import dataclasses
import logging
import os
import socket
import sys
import threading
import time
import traceback

import jax
import ml_collections

import magvit
from magvit.training import endings
from magvit.workdir import folder as workdir_lib
from magvit.workdir import heartbeat as heartbeat_lib
from magvit.workdir import standing
from storage import files
from storage import interrupts
from storage import processes
from storage import progress as progress_lib
from storage import pulse

log = logging.getLogger(__name__)

HANGS = "hangs"  # folder of a workdir with the stacks of runs that hung
_OTHER_WORK = 10  # how much longer all else than a training step may take
_LOOKS = 20  # in the time after which a run counts as hung
_LONGEST_LOOK = 5.0  # seconds between two looks
_LAST_WORDS = 30.0  # seconds to write where the threads are


class Watch:
  """Follows a run; the loop tells it what it does."""

  def __init__(self, workdir: str, config: ml_collections.ConfigDict):
    self._workdir = workdir
    self._seconds = config.watch.heartbeat_seconds
    self._hang_seconds = config.watch.hang_seconds
    self._writing, self._noting = threading.Lock(), threading.Lock()
    self._failing = False  # whether the last heartbeat could not be written
    self._trains = False  # whether a step has ended in this process
    now = heartbeat_lib.moment(time.time())
    self._beat = heartbeat_lib.Heartbeat(
      state=heartbeat_lib.STARTING,
      reason="",
      step=0,
      num_steps=config.num_steps,
      rate=0.0,
      saved_step=0,
      saved_at=None,
      skipped=0,
      host=socket.gethostname(),
      pid=os.getpid(),
      processes=jax.process_count(),
      version=magvit.__version__,
      started_at=now,
      time=now,
      seconds=self._seconds,
    )

  @contextlib.contextmanager
  def running(self) -> Iterator[None]:
    """Follows the block, the run; says at its end how it ended."""
    self._note(**self._seen_before())
    with contextlib.ExitStack() as stack:
      if self._hang_seconds:
        stack.enter_context(self._ending_a_hang())
      if processes.is_first():
        last = lambda: self._end(heartbeat_lib.PREEMPTED, "ended by a signal")
        stack.enter_context(pulse.kept(self._write, self._seconds, last))
        self._write()
      try:
        yield
      except endings.Stopped as stopped:
        self._end(heartbeat_lib.PREEMPTED, str(stopped))
        raise
      except KeyboardInterrupt:
        self._end(heartbeat_lib.PREEMPTED, "interrupted")
        raise
      except BaseException as error:
        reason = f"{type(error).__name__} while {self._beat.state}: {error}"
        self._end(heartbeat_lib.FAILED, reason)
        raise
      self._end(heartbeat_lib.FINISHED, "")

  @contextlib.contextmanager
  def doing(self, state: str) -> Iterator[None]:
    """What the run does inside the block; after an error it is what failed."""
    before = self._beat.state
    self._note(state=state)
    progress_lib.advance()
    yield
    progress_lib.advance()
    self._note(state=before)

  def start_at(self, step: int) -> None:
    """Notes the step that a run goes on from."""
    self._note(step=step)

  def stepped(self, step: int, skipped: int = 0) -> None:
    """Notes that a step has ended, and how many were left out so far."""
    self._trains = True
    progress_lib.advance()
    self._note(step=step, skipped=skipped)

  def measured(self, rate: float) -> None:
    """Notes how many steps a second takes."""
    self._note(rate=rate)

  def _note(self, **fields) -> None:
    with self._noting:
      self._beat = dataclasses.replace(self._beat, **fields)

  def _end(self, state: str, reason: str) -> None:
    with self._noting:
      if self._beat.state in heartbeat_lib.ENDED:
        return  # a signal, or the end of a hang, was faster
      words = " ".join(reason.split())
      self._beat = dataclasses.replace(self._beat, state=state, reason=words)
    self._write()

  def _write(self) -> None:
    """Writes the heartbeat, once the folder is that of a run."""
    if not processes.is_first():
      return
    with self._writing:
      try:
        if not workdir_lib.has_config(self._workdir):
          return
        self._note(**self._seen_saves())
        self._note(time=heartbeat_lib.moment(time.time()))
        heartbeat_lib.write(self._workdir, self._beat)
        self._failing = False
      except (OSError, ValueError) as error:
        if not self._failing:  # the next one may succeed
          log.warning("WARNING: no heartbeat could be written: %s", error)
        self._failing = True

  def _seen_before(self) -> dict:
    """What the heartbeat of the run before knew of the newest checkpoint."""
    try:
      before = heartbeat_lib.read(self._workdir)
    except (OSError, ValueError):
      before = None
    if before is None or not processes.is_first():
      return {}
    return {"saved_step": before.saved_step, "saved_at": before.saved_at}

  def _seen_saves(self) -> dict:
    """The newest checkpoint; saves end in the background, unseen."""
    saved = standing.saved_step(self._workdir)
    if saved == self._beat.saved_step:
      return {}
    now = heartbeat_lib.moment(time.time())
    return {"saved_step": saved, "saved_at": now if saved else None}

  @contextlib.contextmanager
  def _ending_a_hang(self) -> Iterator[None]:
    period = min(self._hang_seconds / _LOOKS, _LONGEST_LOOK)
    stall = Stall(period)

    def look() -> None:
      seconds = stall.seconds()
      if seconds > self._patience():
        self._end_hung(seconds, period)

    with pulse.repeated(look, period, "hang"):
      yield

  def _patience(self) -> float:
    steps = self._beat.state == heartbeat_lib.TRAINING and self._trains
    return self._hang_seconds * (1 if steps else _OTHER_WORK)

  def _end_hung(self, seconds: float, period: float) -> None:
    """Says where the threads are, and ends the process whatever they are in.

    Args:
      seconds: the time for which nothing has gone on.
      period: the time between two looks.
    """
    beat, index, where = self._beat, jax.process_index(), stacks()
    reason = (
      f"hung after step {beat.step}: nothing went on for {seconds:.0f} s while"
      f" {beat.state}"
    )
    text = f"{reason}. Where the threads of process {index} are:\n{where}"
    name = f"step-{beat.step}-process-{index}.txt"

    def report() -> None:
      print(text, file=sys.stderr, flush=True)
      with contextlib.suppress(OSError, ValueError):  # it is in the log
        files.write_atomically(files.inside(self._workdir, HANGS, name), text)
      self._end(heartbeat_lib.FAILED, f"{reason}; see {HANGS}/{name}")

    # A disk that no longer answers holds up whoever writes to it.
    thread = threading.Thread(target=report, name="last words", daemon=True)
    thread.start()
    thread.join(_LAST_WORDS)
    if jax.process_count() > 1:
      # The end of this process ends the others at once. They look as often, and
      # have no step either: the one that holds up all says where it is, too.
      time.sleep(2 * period)
    interrupts.end_now(endings.HUNG)


class Stall:
  """Adds up the time since work last went on.

  Time in which this process was stopped, as by Ctrl-Z, or a machine asleep,
  does not count: then the looks come late, too.
  """

  def __init__(
    self,
    period: float,
    clock: Callable[[], float] = time.monotonic,
    advances: Callable[[], int] = progress_lib.advances,
  ):
    self._period, self._clock, self._advances = period, clock, advances
    self._seen, self._looked, self._idle = advances(), clock(), 0.0

  def seconds(self) -> float:
    """Looks; returns the seconds for which nothing has gone on."""
    now, seen = self._clock(), self._advances()
    passed = min(now - self._looked, 2 * self._period)
    self._idle = self._idle + passed if seen == self._seen else 0.0
    self._looked, self._seen = now, seen
    return self._idle


def stacks() -> str:
  """Where each thread of this process is, as tracebacks."""
  names = {thread.ident: thread.name for thread in threading.enumerate()}
  parts = []
  for ident, frame in sys._current_frames().items():
    name = names.get(ident, f"thread {ident}")
    parts.append(f"{name}:\n{''.join(traceback.format_stack(frame))}")
  return "\n".join(parts)
