"""Tests of storage/lock.py and pulse.py: one writer, and who takes over."""

import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from storage import lock

_ROOT = pathlib.Path(__file__).parents[2]

# A process that holds a folder, says so, and waits for a line.
_HOLDER = """
import sys
from storage import lock
with lock.held(sys.argv[1], "--mode=train"):
  print("held", flush=True)
  sys.stdin.readline()
"""
# The same, but in a call in which Python answers no signal, as compiling is.
_BUSY = """
import ctypes, sys
from storage import lock
libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)
with lock.held(sys.argv[1], "--mode=train"):
  print("held", flush=True)
  libc.pthread_mutex_lock(mutex)
  libc.pthread_mutex_lock(mutex)  # it is locked already: this never returns
"""


@contextlib.contextmanager
def _started(folder, code=_HOLDER):
  with subprocess.Popen(
    [sys.executable, "-c", code, folder],
    cwd=_ROOT,
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  ) as process:
    assert process.stdout.readline() == "held\n"
    try:
      yield process
    finally:
      process.kill()


def _hold(folder, **changes):
  """Writes the lock of another process, `changes` to this one's."""
  mine = lock.this_process("--mode=tokenize")
  other = dataclasses.replace(mine, token="other", **changes)
  folder.mkdir(exist_ok=True)
  (folder / ".lock").write_text(json.dumps(dataclasses.asdict(other)))
  return other


def _silence(folder, seconds):
  """Sets the last sign of life to this many seconds ago."""
  past = time.time() - seconds
  os.utime(folder / ".lock", (past, past))


def test_a_second_process_is_refused_and_the_first_unharmed(tmp_path):
  folder = str(tmp_path / "run")
  with _started(folder) as first:
    match = f"^{folder} is in use: --mode=train .process {first.pid} on .* UTC"
    with pytest.raises(ValueError, match=match), lock.held(folder, "second"):
      pass
    assert first.poll() is None
    holder = json.loads((tmp_path / "run" / ".lock").read_text())
    assert holder["pid"] == first.pid
    first.communicate("\n", timeout=60)
  assert first.returncode == 0
  assert list(tmp_path.iterdir()) == []  # nothing was written: no folder stays


def test_the_lock_of_a_killed_process_is_taken_over_at_once(tmp_path, caplog):
  with _started(str(tmp_path)) as first:
    first.kill()
  assert os.listdir(tmp_path) == [".lock"]
  with lock.held(str(tmp_path), "--mode=sample"):
    assert f"process {first.pid} on" in caplog.text
    assert "is taken over" in caplog.text and "is dead" in caplog.text
    holder = json.loads((tmp_path / ".lock").read_text())
    assert holder["pid"] == os.getpid() and holder["mode"] == "--mode=sample"
    assert os.listdir(tmp_path) == [".lock"]
  assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("code", [_HOLDER, _BUSY], ids=["waits", "is busy"])
def test_sigterm_ends_the_process_and_leaves_no_lock(tmp_path, code):
  with _started(str(tmp_path / "run"), code) as process:
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 128 + signal.SIGTERM
  assert not (tmp_path / "run" / ".lock").exists()


def test_an_error_leaves_no_lock_and_signals_as_they_were(tmp_path):
  with pytest.raises(KeyError), lock.held(str(tmp_path), "train"):
    assert os.listdir(tmp_path) == [".lock"]
    raise KeyError
  assert os.listdir(tmp_path) == []
  assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
  assert signal.set_wakeup_fd(-1) == -1


def test_a_process_id_that_was_given_anew_does_not_count(tmp_path, caplog):
  _hold(tmp_path, pid=os.getpid(), started="before")
  with lock.held(str(tmp_path), "train"):
    assert "is dead" in caplog.text


@pytest.mark.parametrize("machine", ["another boot", ""])
def test_a_holder_on_another_machine_is_dead_once_it_is_silent(
  tmp_path, caplog, machine
):
  """Its process id says nothing here, even if such a process lives."""
  _hold(tmp_path, host="node7", machine=machine, pid=os.getpid())
  _silence(tmp_path, lock.SILENT_SECONDS - 20)
  match = "in use: --mode=tokenize .process .* on node7"
  with pytest.raises(ValueError, match=match), lock.held(str(tmp_path), "t"):
    pass
  _silence(tmp_path, lock.SILENT_SECONDS + 20)
  with lock.held(str(tmp_path), "train"):
    assert "no sign of life for 80 s" in caplog.text
    assert "on node7" in caplog.text


def test_a_sign_of_life_to_come_is_none(tmp_path, caplog):
  _hold(tmp_path, host="node7", machine="other", mode="\x1b[2J\ud800")
  _silence(tmp_path, 20 - lock.SILENT_SECONDS)
  match = r"in use: \\x1b\[2J\?.*remove that file if it came with a copy"
  with pytest.raises(ValueError, match=match), lock.held(str(tmp_path), "t"):
    pass
  _silence(tmp_path, -lock.SILENT_SECONDS - 20)
  with lock.held(str(tmp_path), "train"):
    assert "at a time that is still to come" in caplog.text


@pytest.mark.parametrize("text", ["", "[[[", '{"pid": 7}', '{"pid": []}', "7"])
def test_a_lock_that_says_nothing_holds_until_it_is_old(
  tmp_path, text, monkeypatch
):
  monkeypatch.setattr(lock, "_WAIT_SECONDS", 0.0)
  (tmp_path / ".lock").write_text(text)
  with (
    pytest.raises(ValueError, match="lock was made by a process that does not"),
    lock.held(str(tmp_path), "train"),
  ):
    pass
  _silence(tmp_path, lock.SILENT_SECONDS + 20)
  with lock.held(str(tmp_path), "train"):
    pass


def test_one_of_two_takes_over(tmp_path, monkeypatch):
  """Both have seen the same dead holder; the second acts on it too late."""
  _hold(tmp_path, started="before")
  path = str(tmp_path / ".lock")
  seen = lock._look(path)
  one, two = lock.this_process("one"), lock.this_process("two")
  assert lock._replace(path, seen, one)
  assert not lock._replace(path, seen, two)
  assert lock._look(path).holder == one
  # Or while the first is at it.
  _hold(tmp_path, started="before")
  seen = lock._look(path)
  (tmp_path / ".lock.next").write_text("")
  assert not lock._replace(path, seen, two)
  past = time.time() - lock.SILENT_SECONDS - 20
  os.utime(tmp_path / ".lock.next", (past, past))
  assert not lock._replace(path, seen, two)  # a killed one's is removed
  assert lock._replace(path, seen, two)
  assert os.listdir(tmp_path) == [".lock"]


def test_the_holder_gives_signs_of_life_and_notices_its_loss(tmp_path):
  with lock.held(str(tmp_path), "train") as held:
    _silence(tmp_path, 1000)
    held.beat()
    assert time.time() - (tmp_path / ".lock").stat().st_mtime < 500
    held.check()
    os.remove(tmp_path / ".lock")
    held.beat()
    held.check()
    other = _hold(tmp_path, host="node7")
    _silence(tmp_path, 1000)
    held.beat()
    assert time.time() - (tmp_path / ".lock").stat().st_mtime > 500
    with pytest.raises(OSError, match="is of another process now"):
      held.check()
  assert lock._look(str(tmp_path / ".lock")).holder == other


def test_a_lock_beside_a_folder_leaves_it_alone(tmp_path):
  output = tmp_path / "export"
  with lock.held(str(output), "--mode=export", beside=True):
    assert os.listdir(tmp_path) == [".export.lock"]
    with (
      pytest.raises(ValueError, match="in use: --mode=export"),
      lock.held(f"{output}/", "--mode=export", beside=True),
    ):
      pass
  assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("kind", ["link", "folder", "fifo"])
def test_a_lock_that_is_no_file_is_an_error(tmp_path, kind):
  path, victim = tmp_path / "run" / ".lock", tmp_path / "victim"
  path.parent.mkdir()
  victim.write_text("years of work")
  {
    "link": lambda: path.symlink_to(victim),
    "folder": path.mkdir,
    "fifo": lambda: os.mkfifo(path),
  }[kind]()
  with (
    pytest.raises(ValueError, match="^cannot write to .*/run .*lock"),
    lock.held(str(tmp_path / "run"), "train"),
  ):
    pass
  assert victim.read_text() == "years of work"


def test_a_folder_that_cannot_be_is_an_error(tmp_path):
  (tmp_path / "file").write_text("")
  with (
    pytest.raises(ValueError, match="^cannot write to .*/file/run .*choose"),
    lock.held(str(tmp_path / "file" / "run"), "train"),
  ):
    pass
  assert [p.name for p in tmp_path.iterdir()] == ["file"]
