"""Tests of storage/parts.py: folders with one owner, parts that are shared."""

import json
import logging
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from storage import files
from storage import parts
from storage import progress as progress_lib

_LAYOUT = parts.Layout(10, 4)


def _text(**fields):
  return json.dumps({"name": "squares", "num": 10, **fields})


def _folder(path, index=0, count=1):
  return parts.Folder(str(path), _LAYOUT.names, index, count)


def _make(folder):
  """Writes this process's missing parts; returns their numbers."""
  missing = folder.mine()
  for number in missing:
    files.write_atomically(folder.part(number), f"{number}")
  return missing


def _contents(path):
  return {p.name: p.read_bytes() for p in path.rglob("*") if p.is_file()}


def test_parts_are_consecutive_and_the_last_has_the_rest():
  assert [list(_LAYOUT.places(i)) for i in range(3)] == [
    *([0, 1, 2, 3], [4, 5, 6, 7], [8, 9])
  ]
  assert _LAYOUT.names == [f"parts/00000{i}.npz" for i in range(3)]
  assert len(parts.Layout(8, 4).names) == 2
  named = parts.Layout(9, 4, "{number}-of-{count:02}")
  assert named.names == ["0-of-03", "1-of-03", "2-of-03"]


def test_a_folder_is_claimed_once_and_for_the_same_parts_again(tmp_path):
  folder = _folder(tmp_path / "new")
  for _ in range(2):
    folder.claim("record.json", _text(), "squares")
  stored = json.loads((tmp_path / "new" / "record.json").read_text())
  assert stored == {"name": "squares", "num": 10}


def test_a_folder_of_other_parts_is_refused_by_the_field_that_differs(tmp_path):
  folder = _folder(tmp_path)
  folder.claim("record.json", _text(), "squares")
  before = _contents(tmp_path)
  with pytest.raises(
    ValueError, match=r"squares: num is 10 there and 11 .*--output"
  ):
    folder.claim("record.json", _text(num=11, name="squares"), "squares")
  with pytest.raises(ValueError, match="seed is None there and 3 here"):
    folder.claim("record.json", _text(seed=3), "squares")
  assert _contents(tmp_path) == before


def test_the_record_of_a_finished_folder_counts_in_place_of_the_first(tmp_path):
  (tmp_path / "done.json").write_text(_text(shards=[]))
  folder = _folder(tmp_path)
  folder.claim("record.json", _text(), "squares", finished="done.json")
  assert list(_contents(tmp_path)) == ["done.json"]
  with pytest.raises(ValueError, match="num is 10 there and 9 here"):
    folder.claim("record.json", _text(num=9), "squares", finished="done.json")


def test_fields_that_may_change_are_recorded_anew(tmp_path):
  folder = _folder(tmp_path)
  for rate in (1, 2):
    folder.claim("record.json", _text(rate=rate), "squares", free=("rate",))
    assert files.read_json(tmp_path / "record.json")["rate"] == rate


def test_folders_of_other_files_and_files_are_refused(tmp_path):
  (tmp_path / "notes.txt").write_text("mine")
  with pytest.raises(
    ValueError, match=r"no squares \(no record.json\).*--output"
  ):
    _folder(tmp_path).claim("record.json", _text(), "squares")
  with pytest.raises(ValueError, match="notes.txt .*--output"):
    _folder(tmp_path / "notes.txt").claim("record.json", _text(), "squares")
  assert list(_contents(tmp_path)) == ["notes.txt"]


def test_hidden_files_and_parts_do_not_make_a_folder_somebody_elses(tmp_path):
  """They may come from another process of the job, which is ahead."""
  (tmp_path / "parts").mkdir()
  (tmp_path / ".record.json.7.tmp").write_text("")
  _folder(tmp_path).claim("record.json", _text(), "squares")
  assert (tmp_path / "record.json").exists()


def test_only_the_first_process_writes_the_record(tmp_path):
  _folder(tmp_path, 1, 2).claim("record.json", _text(), "squares")
  assert not list(tmp_path.iterdir())


def test_only_missing_parts_are_made(tmp_path):
  folder = _folder(tmp_path)
  files.write_atomically(folder.part(1), "of an earlier run")
  # The remains of another part, which a kill left, are no part.
  (tmp_path / "parts" / ".000002.npz.tmp").write_text("torn")
  assert _make(folder) == [0, 2]
  assert _contents(tmp_path)["000001.npz"] == b"of an earlier run"
  assert _make(folder) == []


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_processes_share_all_parts_without_overlap(tmp_path, count):
  folders = [_folder(tmp_path, index, count) for index in range(count)]
  shares = [folder.mine() for folder in folders]
  assert sorted(sum(shares, [])) == [0, 1, 2]
  assert all(folder.mine(collective=True) == [0, 1, 2] for folder in folders)


def test_an_interrupted_run_goes_on_with_another_number_of_processes(tmp_path):
  assert _make(_folder(tmp_path, 1, 2)) == [1]
  assert _make(_folder(tmp_path, 0, 3)) == [0]
  assert _make(_folder(tmp_path, 0, 1)) == [2]


def test_parts_are_joined_in_order_by_the_first_process_when_all_are_there(
  tmp_path,
):
  joined = []
  _make(_folder(tmp_path, 1, 2))
  _folder(tmp_path, 1, 2).finish(joined.append)
  with pytest.raises(ValueError, match="2 of 3 parts, .*000000.npz"):
    _folder(tmp_path, 0, 2).finish(joined.append)
  assert not joined
  _make(_folder(tmp_path, 0, 2))
  _folder(tmp_path, 0, 2).finish(joined.append)
  assert joined == [
    [str(tmp_path / "parts" / f"00000{i}.npz") for i in range(3)]
  ]


def test_more_failures_than_allowed_are_listed():
  failures = [(f"clip {i}", "torn") for i in range(3)]
  check = lambda share, **how: parts.check_failures(
    failures, 4, share, "clips are broken", **how
  )
  check(0.75)
  with pytest.raises(ValueError) as error:
    check(0.74, shown=2)
  assert str(error.value) == (
    "3 of 4 clips are broken: clip 0: torn; clip 1: torn; and 1 more, in the"
    " log above"
  )
  with pytest.raises(ValueError, match="broken:\n  clip 0: torn;\n  clip 1: t"):
    check(0, start="\n  ")


_done = None


def _start(factor, done):
  global _done
  _done = (factor, done)


def _count(name):
  factor, done = _done
  with done.get_lock():
    done.value += 1
  if name == "broken":
    raise ValueError("torn")
  return name, factor * len(name), os.getpid()


@pytest.mark.slow
def test_workers_are_other_processes_and_their_failures_are_ours(caplog):
  caplog.set_level(logging.INFO, "storage")
  run = lambda names: list(
    parts.in_workers(
      *(_count, names, 2, _start, (10,)),
      progress_lib.Progress("x", len(names), "parts", seconds=0),
    )
  )
  assert run([]) == []
  results = run(["a", "bb", "ccc"])
  assert sorted(r[:2] for r in results) == [("a", 10), ("bb", 20), ("ccc", 30)]
  assert os.getpid() not in [r[2] for r in results]
  assert "x 3/3 (100%)" in caplog.text
  with pytest.raises(ValueError, match="torn"):
    run(["a", "broken"])


def test_damaged_parts_are_made_again_and_the_log_says_so(tmp_path, caplog):
  folder = _folder(tmp_path)
  files.write_atomically(folder.part(0), "")  # as a power loss leaves it
  files.write_atomically(folder.part(1), "whole")
  is_whole = lambda number, path: bool(os.path.getsize(path))
  assert folder.mine(is_whole=is_whole) == [0, 2]
  assert f"{folder.part(0)} is damaged: it is made again" in caplog.text
  assert not os.path.exists(folder.part(0))
  assert pathlib.Path(folder.part(1)).read_text() == "whole"


def _alive(pid):
  """Whether a process runs; one that ended and was not waited for does not."""
  try:
    status = pathlib.Path(f"/proc/{pid}/stat").read_text()
  except OSError:
    return False
  return status.rpartition(")")[2].split()[0] != "Z"


@pytest.mark.slow
@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_the_process_that_started_them(tmp_path, kill):
  program = pathlib.Path(__file__).parent / "workers_process.py"
  parent = subprocess.Popen([sys.executable, program, tmp_path])
  try:
    while len(list(tmp_path.iterdir())) < 2:
      assert parent.poll() is None
      time.sleep(0.05)
  finally:
    parent.send_signal(kill)
    parent.wait()
  workers = {int(path.name.split(".")[0]) for path in tmp_path.iterdir()}
  assert len(workers) == 2
  for _ in range(200):
    if not any(map(_alive, workers)):
      break
    time.sleep(0.05)
  assert not any(map(_alive, workers))


def _die(name):
  os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_worker_that_is_killed_is_one_line():
  progress = progress_lib.Progress("x", 1, "parts")
  with pytest.raises(ValueError, match="a worker process was killed.* fewer"):
    list(parts.in_workers(_die, ["a"], 1, _start, (10,), progress))


def test_nothing_of_earlier_versions_is_removed_behind_a_link(tmp_path):
  outside, root = tmp_path / "outside", tmp_path / "root"
  outside.mkdir()
  root.mkdir()
  victim = outside / ".000000.npz.tmp"
  victim.write_bytes(b"mine")
  (root / "parts").symlink_to(outside)
  with pytest.raises(ValueError, match="root/parts is a symbolic link"):
    _folder(root).claim("record.json", _text(), "squares")
  assert victim.read_bytes() == b"mine"
