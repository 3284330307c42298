"""Tests of --mode=status: one line on each run, whatever its folder holds."""

import dataclasses
import json
import os
import subprocess
import sys

import pytest

from magvit.workdir import commits
from magvit.workdir import heartbeat as heartbeat_lib
from magvit.workdir import standing
from storage import lock
from storage import stores

_NOW = 1_800_000_000.0
_BEAT = heartbeat_lib.Heartbeat(
  state="training",
  reason="",
  step=1200,
  num_steps=10_000,
  rate=2.0,
  saved_step=1100,
  saved_at=heartbeat_lib.moment(_NOW - 40),
  skipped=2,
  host="node7",
  pid=4242,
  processes=4,
  version="0.1",
  started_at=heartbeat_lib.moment(_NOW - 7200),
  time=heartbeat_lib.moment(_NOW - 5),
  seconds=15.0,
)


def _run(folder, **fields):
  folder.mkdir(parents=True)
  (folder / "config.json").write_text('{"num_steps": 10000}')
  if fields:
    beat = dataclasses.replace(_BEAT, **fields)
    heartbeat_lib.write(str(folder), beat)
  return str(folder)


def test_a_run_under_way(tmp_path):
  workdir = _run(tmp_path / "run", state="training")
  assert standing.lines(workdir, _NOW) == [
    f"{workdir}: training, step 1,200 of 10,000 (12%), 2 steps/s, 1:13:20 left",
    "  checkpoint of step 1,100, 0:00:40 ago; steps left out: 2",
    "  last sign of life 0:00:05 ago, process 4242 on node7, 4 in the job,"
    " started 2027-01-15 06:00:00 UTC, version 0.1",
  ]


def test_a_run_that_is_silent_is_dead_and_its_remedy_is_said(tmp_path):
  workdir = _run(tmp_path / "run", time=heartbeat_lib.moment(_NOW - 61))
  (tmp_path / "run" / "checkpoints" / "1100").mkdir(parents=True)
  first, *_, last = standing.lines(workdir, _NOW)
  assert first == (
    f"{workdir}: dead, no sign of life for 0:01:01, since 2027-01-15 07:58:59"
    " UTC: it was training, step 1,200 of 10,000 (12%)"
  )
  assert last == (
    "  to resume, run the command that started it again: it goes on from step"
    " 1,100"
  )
  workdir = _run(tmp_path / "rare", seconds=100.0, time=_BEAT.started_at)
  assert "dead" in standing.lines(workdir, _NOW)[0]
  late = heartbeat_lib.moment(_NOW - 399)  # and three heartbeats are missing
  workdir = _run(tmp_path / "late", seconds=100.0, time=late)
  assert ": training, step" in standing.lines(workdir, _NOW)[0]


@pytest.mark.parametrize("known", [0, 1100])
def test_a_save_that_ended_after_the_last_heartbeat_counts(tmp_path, known):
  silent = heartbeat_lib.moment(_NOW - 61)
  workdir = _run(
    tmp_path / "run",
    **{"time": silent, "saved_step": known, "skipped": 0},
    saved_at=_BEAT.saved_at if known else None,
  )
  command = "  to resume, run the command that started it again: "
  saved, *_, last = standing.lines(workdir, _NOW)[1:]
  assert saved == "  no checkpoint yet"  # somebody removed what there was
  assert last == command + "it starts anew"
  (tmp_path / "run" / "checkpoints" / "1200").mkdir(parents=True)
  saved, *_, last = standing.lines(workdir, _NOW)[1:]
  assert saved == "  checkpoint of step 1,200"
  assert last == command + "it goes on from step 1,200"


def test_a_run_that_was_killed_on_this_machine_is_dead_at_once(tmp_path):
  workdir = tmp_path / "run"
  hold = (
    "import os, sys\nfrom storage import lock\n"
    "with lock.held(sys.argv[1], 'x'):\n  print(os.getpid(), flush=True)\n"
    "  sys.stdin.read()"
  )
  command = [sys.executable, "-c", hold, str(workdir)]
  with subprocess.Popen(
    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
  ) as process:
    pid = int(process.stdout.readline())
    assert not lock.has_died(str(workdir), pid)
    process.kill()
  assert lock.has_died(str(workdir), pid)
  assert not lock.has_died(str(workdir), pid + 1)
  (workdir / "config.json").write_text("{}")
  beat = dataclasses.replace(_BEAT, pid=pid)
  heartbeat_lib.write(str(workdir), beat)
  first = standing.lines(str(workdir), _NOW)[0]
  assert f"dead, its process {pid} on node7 is gone, since" in first


@pytest.mark.parametrize(
  "state, reason, first, remedy",
  [
    ("finished", "", "step 10,000 of 10,000 (100%)", False),
    ("preempted", "stopped", "step 10,000 of 10,000 (100%): stopped", True),
    ("failed", "ValueError: \x1b[2J", r": ValueError: \x1b[2J", True),
  ],
)
def test_how_a_run_ended_stays_true(tmp_path, state, reason, first, remedy):
  workdir = _run(tmp_path / "run", state=state, reason=reason, step=10_000)
  lines = standing.lines(workdir, _NOW + 1e6)
  assert lines[0].startswith(f"{workdir}: {state} 2027-01-15 07:59:55 UTC (")
  assert lines[0].endswith(first)
  assert ("to resume" in lines[-1]) == remedy
  assert ("once that is mended" in lines[-1]) == (state == "failed")


def test_runs_of_earlier_versions_have_metrics_and_checkpoints(tmp_path):
  workdir = _run(tmp_path / "run")
  begun = "no heartbeat, metrics or checkpoint: its training has not begun"
  assert standing.lines(workdir, _NOW) == [f"{workdir}: {begun}"]
  path = tmp_path / "run" / "metrics.jsonl"
  path.write_text('{"step": 70, "loss": 1.0}\n{"step": 80, "loss": 1.0}\n{"st')
  os.utime(path, (_NOW - 60, _NOW - 60))
  (tmp_path / "run" / "checkpoints" / "50").mkdir(parents=True)
  (tmp_path / "run" / "checkpoints" / "75.orbax-checkpoint-tmp").mkdir()
  assert standing.lines(workdir, _NOW) == [
    f"{workdir}: no heartbeat, so of an earlier version; step 80 of 10,000"
    " written 0:01:00 ago",
    "  checkpoint of step 50",
  ]


@pytest.mark.parametrize(
  "file, words",
  [("model.safetensors", "an export"), ("imported.json", "imported weights")],
)
def test_what_nothing_trains_is_no_run(tmp_path, file, words):
  workdir = _run(tmp_path / "run")
  (tmp_path / "run" / file).touch()
  (line,) = standing.lines(workdir, _NOW)
  assert line.startswith(f"{workdir}: {words}")


@pytest.mark.parametrize(
  "field, value",
  [
    ("state", "asleep"),
    ("time", "2026-13-01T00:00:00+00:00"),
    ("rate", -1.0),
    ("step", "many"),
  ],
)
def test_a_damaged_heartbeat_is_said_and_the_rest_is_read(
  tmp_path, field, value
):
  workdir = _run(tmp_path / "run", state="training")
  path = tmp_path / "run" / heartbeat_lib.NAME
  path.write_text(json.dumps({**dataclasses.asdict(_BEAT), field: value}))
  first, last = standing.lines(workdir, _NOW)
  assert "its training has not begun" in first
  assert f"{field} is" in last and heartbeat_lib.NAME in last


def test_fields_of_later_versions_are_left_out(tmp_path):
  workdir = _run(tmp_path / "run", state="training")
  path = tmp_path / "run" / heartbeat_lib.NAME
  path.write_text(json.dumps({**dataclasses.asdict(_BEAT), "mood": 3}))
  assert heartbeat_lib.read(workdir) == _BEAT


def test_a_folder_of_runs_has_a_line_for_each(tmp_path):
  one, two = _run(tmp_path / "one", state="saving"), _run(tmp_path / "two")
  (tmp_path / "notes").mkdir()
  lines = standing.lines(str(tmp_path), _NOW)
  assert [line.partition(", ")[0] for line in lines] == [
    f"{one}: saving",
    f"{two}: no heartbeat",
  ]


def test_runs_in_an_object_store():
  """fsspec's store in memory stands for the others."""
  workdir = "memory://standing_test/run"
  stores.write(f"{workdir}/config.json", b'{"num_steps": 90}')
  stores.write(f"{workdir}/metrics.jsonl", b'{"step": 80, "loss": 1.0}\n')
  (line, saved) = standing.lines(workdir)
  assert line.startswith(f"{workdir}: no heartbeat, so of an earlier version;")
  assert "step 80 of 90 written 0:00:0" in line
  assert saved == "  no checkpoint yet"
  for name in ("10/state/x", "20/state/x", f"10/{commits.COMMITTED}"):
    stores.write(f"{workdir}/checkpoints/{name}", b"")
  assert standing.saved_step(workdir) == 10  # the save of 20 is under way
  heartbeat_lib.write(workdir, _BEAT)
  expected = standing.lines(workdir, _NOW)
  assert expected[0].startswith(f"{workdir}: training, step 1,200 of 10,000")
  assert standing.lines("memory://standing_test", _NOW) == expected[:1]
  with pytest.raises(ValueError, match="workdir=memory://none is not a dir"):
    standing.lines("memory://none", _NOW)


def test_folders_without_a_run_are_refused(tmp_path):
  with pytest.raises(ValueError, match="workdir=none is not a directory"):
    standing.lines("none", _NOW)
  with pytest.raises(ValueError, match="holds no config.json, nor does"):
    standing.lines(str(tmp_path), _NOW)


def test_numbers_of_any_size_are_shown(tmp_path):
  workdir = _run(tmp_path / "run", rate=1e-300, num_steps=10**90)
  assert "training, step" in standing.lines(workdir, _NOW)[0]
