"""Tests of magvit/training/watch.py: heartbeats, and the end of a hang."""

import json
import os
import pathlib
import socket
import subprocess
import sys
import threading
import time

import pytest

from magvit.training import endings
from magvit.training import watch as watch_lib
from magvit.workdir import heartbeat as heartbeat_lib
from magvit.workdir import standing
from storage import progress as progress_lib
from tests import tiny

_ROOT = pathlib.Path(__file__).parents[3]


@pytest.fixture
def workdir(tmp_path):
  (tmp_path / "config.json").write_text("{}")
  return str(tmp_path)


def _config(**fields):
  config = tiny.tokenizer()
  config.watch.update(fields)
  return config


def _save(workdir, step):
  os.makedirs(os.path.join(workdir, "checkpoints", str(step)))


def test_a_run_says_what_it_does_and_how_it_ended(workdir):
  watch = watch_lib.Watch(workdir, _config())
  states = []

  def look():
    watch._write()
    states.append(heartbeat_lib.read(workdir).state)

  with watch.running():
    look()
    with watch.doing(heartbeat_lib.TRAINING):
      watch.stepped(3)
      watch.measured(1.5)
      look()
      with watch.doing(heartbeat_lib.SAVING):
        _save(workdir, 3)
        look()
      look()
  beat = heartbeat_lib.read(workdir)
  assert states == ["starting", "training", "saving", "training"]
  assert (beat.state, beat.reason) == ("finished", "")
  assert (beat.step, beat.num_steps, beat.rate) == (3, 6, 1.5)
  assert beat.saved_step == 3 and beat.saved_at is not None
  assert (beat.pid, beat.processes) == (os.getpid(), 1)


@pytest.mark.parametrize(
  "error, state, reason",
  [
    (endings.Stopped(4), "preempted", "stopped on request after step 4, which"),
    (KeyboardInterrupt(), "preempted", "interrupted"),
    (
      ValueError("one\ntwo"),
      "failed",
      "ValueError while evaluating: one two",
    ),
  ],
)
def test_an_error_that_ends_a_run_is_in_its_last_heartbeat(
  error, state, reason, workdir
):
  watch = watch_lib.Watch(workdir, _config())
  with pytest.raises(type(error)), watch.running():
    with watch.doing(heartbeat_lib.EVALUATING):
      raise error
  beat = heartbeat_lib.read(workdir)
  assert beat.state == state and beat.reason.startswith(reason)


def test_heartbeats_come_by_themselves(workdir):
  watch = watch_lib.Watch(workdir, _config(heartbeat_seconds=0.01))
  with watch.running():
    watch.stepped(5)
    while heartbeat_lib.read(workdir).step < 5:
      time.sleep(0.01)


def test_a_resumed_run_knows_when_the_newest_checkpoint_was_saved(workdir):
  with watch_lib.Watch(workdir, _config()).running():
    _save(workdir, 2)
  path = pathlib.Path(workdir) / heartbeat_lib.NAME
  beat = {**json.loads(path.read_text()), "saved_at": heartbeat_lib.moment(9.0)}
  path.write_text(json.dumps(beat))
  with watch_lib.Watch(workdir, _config()).running():
    pass
  beat = heartbeat_lib.read(workdir)
  assert (beat.saved_step, beat.saved_at) == (2, "1970-01-01T00:00:09+00:00")


def test_nothing_is_written_into_a_folder_that_is_no_run(tmp_path):
  with watch_lib.Watch(str(tmp_path), _config()).running():
    pass
  assert not list(tmp_path.iterdir())


def test_a_heartbeat_that_cannot_be_written_is_said_once(workdir, caplog):
  os.symlink("elsewhere", os.path.join(workdir, heartbeat_lib.NAME))
  watch = watch_lib.Watch(workdir, _config())
  with watch.running():
    watch._write()
  (warning,) = [m for m in caplog.messages if "no heartbeat could" in m]
  assert "is a symbolic link" in warning


def test_a_hang_is_time_in_which_no_work_goes_on():
  now, advances = [0.0], [0]
  stall = watch_lib.Stall(1.0, lambda: now[0], lambda: advances[0])
  seen = []
  for second in range(1, 8):
    now[0] = second
    advances[0] += second == 4
    seen.append(stall.seconds())
  assert seen == [1, 2, 3, 0, 1, 2, 3]
  now[0] += 10_000  # the process was stopped, and goes on now
  assert stall.seconds() == 5


def test_parts_of_long_work_and_its_phases_go_on_and_signs_of_life_do_not():
  stall = watch_lib.Stall(1.0)
  progress = progress_lib.Progress("evaluating", 10, "clips")

  def goes_on(act):
    time.sleep(0.01)
    stall.seconds()
    act()
    return stall.seconds() == 0.0

  assert goes_on(lambda: progress.add(1))
  assert not goes_on(lambda: progress.add(0))
  assert not goes_on(lambda: progress_lib.say("still compiling"))
  with progress_lib.phase("saving"):
    assert not goes_on(lambda: None)
  assert stall.seconds() == 0.0


def test_training_steps_have_less_time_than_the_first_and_than_all_else(
  workdir,
):
  watch = watch_lib.Watch(workdir, _config(hang_seconds=60.0))
  assert watch._patience() == 600.0
  with watch.doing(heartbeat_lib.TRAINING):
    assert watch._patience() == 600.0  # the first step may compile
    watch.stepped(1)
    assert watch._patience() == 60.0
    for state in (heartbeat_lib.SAVING, heartbeat_lib.EVALUATING):
      with watch.doing(state):
        assert watch._patience() == 600.0


@pytest.mark.parametrize("seconds, threads", [(0.0, 0), (60.0, 1)])
def test_the_detector_ends_with_the_run_and_may_be_off(
  seconds, threads, workdir
):
  count = lambda: sum(t.name == "hang" for t in threading.enumerate())
  with watch_lib.Watch(workdir, _config(hang_seconds=seconds)).running():
    assert count() == threads
  assert count() == 0


_HANGS = """
import sys, threading
import jax
from magvit.training import distributed

workdir, process, hangs, *job = sys.argv[1:]
if job:
  distributed.join(*job, 2, int(process))

from input_pipeline import pipeline
from magvit import trained
from magvit.recognition import recognition
from magvit.training import loop
from tests import tiny

class Quick(recognition.Recognition):
  def step(self, state, batch, key):
    return state.replace(step=state.step + 1), {"loss": jax.numpy.ones(())}

class Batches:
  def __init__(self, inner):
    self._inner, self._count = inner, 0
  def __getattr__(self, name):
    return getattr(self._inner, name)
  def __next__(self):
    self._count += 1
    if self._count < 6 or process != hangs:
      return next(self._inner)
    waits_for_ever()

def waits_for_ever():
  threading.Event().wait()

trained.ALGORITHMS["recognition"] = Quick
make = pipeline.train_batches
pipeline.train_batches = lambda *arguments: Batches(make(*arguments))
config = tiny.recognition("")
config.recognizer.input = "pixels"
config.watch.hang_seconds = 4.0
loop.train(config, workdir)
"""


def _start(workdir, process, hangs, *job):
  """Starts a process; the data of process `hangs` end with the sixth batch."""
  one_device = " --xla_force_host_platform_device_count=1"
  xla = os.environ["XLA_FLAGS"] + (one_device if job else "")
  arguments = [str(workdir), str(process), str(hangs), *job]
  return subprocess.Popen(
    [sys.executable, "-c", _HANGS, *arguments],
    cwd=_ROOT,
    env={**os.environ, "XLA_FLAGS": xla},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


@pytest.mark.slow
def test_a_run_whose_data_never_come_says_where_it_hangs_and_ends(tmp_path):
  workdir = tmp_path / "run"
  process = _start(workdir, 0, 0)
  _, errors = process.communicate(timeout=300)
  assert process.returncode == endings.HUNG == 75, errors
  assert "hung after step 4: nothing went on for" in errors
  (file,) = (workdir / watch_lib.HANGS).iterdir()
  assert file.name == "step-4-process-0.txt"
  for text in (errors, file.read_text()):
    assert "MainThread:" in text and "in waits_for_ever" in text
  beat = heartbeat_lib.read(str(workdir))
  assert beat.state == "failed"
  assert beat.reason.endswith("see hangs/step-4-process-0.txt")
  assert not (workdir / ".lock").exists()
  *_, remedy = standing.lines(str(workdir))
  # The save of step 4 may still have been under way.
  assert remedy.endswith(("goes on from step 2", "goes on from step 4"))


@pytest.mark.slow
def test_one_process_that_hangs_ends_the_job_and_each_says_where_it_is(
  tmp_path,
):
  workdir = tmp_path / "run"
  with socket.socket() as s:
    s.bind(("localhost", 0))
    coordinator = f"localhost:{s.getsockname()[1]}"
  pair = [_start(workdir, process, 1, coordinator) for process in range(2)]
  errors = [process.communicate(timeout=300)[1] for process in pair]
  assert [process.returncode for process in pair] == [endings.HUNG] * 2, errors
  for process, place in ((0, "in run_steps"), (1, "in waits_for_ever")):
    (file,) = (workdir / watch_lib.HANGS).glob(f"*-process-{process}.txt")
    for text in (errors[process], file.read_text()):
      assert "MainThread:" in text and place in text
  beat = heartbeat_lib.read(str(workdir))
  assert beat.state == "failed" and "-process-0.txt" in beat.reason
  assert not (workdir / ".lock").exists()


@pytest.mark.parametrize("processes, waits", [(1, []), (2, [2.0])])
def test_the_first_to_notice_a_hang_lets_the_others_say_where_they_are(
  processes, waits, workdir, monkeypatch
):
  acts = []
  report = pathlib.Path(workdir) / watch_lib.HANGS / "step-0-process-0.txt"
  monkeypatch.setattr(watch_lib.jax, "process_count", lambda: processes)
  monkeypatch.setattr(
    watch_lib.time,
    "sleep",
    lambda seconds: acts.append((seconds, report.exists())),
  )
  monkeypatch.setattr(watch_lib.interrupts, "end_now", acts.append)
  watch = watch_lib.Watch(workdir, _config())
  watch._end_hung(60.0, period=1.0)
  assert acts == [*((wait, True) for wait in waits), endings.HUNG]
