"""Tests of storage/stores.py, and of the others of storage/ on a store.

fsspec's memory:// is a store within one process; tests/emulator.py has servers
of gs:// and s3://.
"""

import errno
import json
import os
import sys
import time
import uuid

import fsspec
import numpy as np
import pytest

from storage import files
from storage import lock
from storage import npz
from storage import parts
from storage import paths
from storage import rows
from storage import schema
from storage import shards
from storage import store_calls
from storage import stores
from tests import emulator


@pytest.fixture
def url():
  """A folder of a store of this process, which is not there yet."""
  return f"memory://{uuid.uuid4().hex}/run"


@pytest.fixture(params=["memory", "disk", "gs", "s3"])
def folder(request, url, tmp_path, monkeypatch):
  """A folder of a disk or of a store of each kind, which is not there yet."""
  servers = {"gs": emulator.running, "s3": emulator.running_s3}
  if request.param in servers:
    with servers[request.param]() as env:
      for name, value in env.items():
        monkeypatch.setenv(name, value)
      fsspec.filesystem(request.param).clear_instance_cache()
      yield f"{request.param}://{emulator.BUCKET}/run"
  else:
    yield url if request.param == "memory" else str(tmp_path / "run")


def test_urls_are_told_from_paths():
  for text in ("gs://b/x", "s3://b", "memory://x", "GS://b"):
    assert stores.is_url(text)
  for text in ("", "/a/b", "a:b", "./gs:/b", "~/x", "C:\\x"):
    assert not stores.is_url(text)
  assert [store_calls.protocol(x) for x in ("gcs://b", "S3A://b", "/a")] == [
    *("gs", "s3", "")
  ]
  assert stores.absolute("gs://b/x/") == "gs://b/x"


def test_files_are_written_read_listed_and_removed(folder):
  assert not stores.exists(folder)
  with pytest.raises(FileNotFoundError):
    stores.read(f"{folder}/a")
  files.write_atomically(f"{folder}/a", "one")
  files.write_atomically(f"{folder}/b/c.json", "[2]")
  assert stores.is_file(f"{folder}/a") and stores.is_folder(folder)
  assert stores.is_folder(f"{folder}/b") and not stores.is_file(f"{folder}/b")
  assert sorted(stores.names(folder)) == ["a", "b"]
  assert stores.read(f"{folder}/a") == b"one"
  assert stores.size(f"{folder}/a") == 3
  assert schema.read(f"{folder}/b/c.json") == [2]
  assert files.sha256(f"{folder}/a") == files.sha256(
    stores.fetched(f"{folder}/a")
  )
  files.write_atomically(f"{folder}/a", "other")
  assert stores.read(stores.fetched(f"{folder}/a")) == b"other"
  with pytest.raises(FileExistsError):
    files.write_atomically(f"{folder}/a", "third", replace=False)
  assert stores.read(f"{folder}/a") == b"other"
  copy = stores.fetched_folder(folder)
  assert stores.read(os.path.join(copy, "b", "c.json")) == b"[2]"
  stores.move_folder(f"{folder}/b", f"{folder}/d")
  assert sorted(stores.names(folder)) == ["a", "d"]
  stores.remove(f"{folder}/a")
  assert not stores.exists(f"{folder}/a")
  if not folder.startswith("s3:"):  # which does not say so
    with pytest.raises(FileNotFoundError):
      stores.remove(f"{folder}/a")
  stores.remove(f"{folder}/a", missing_ok=True)
  stores.remove_folder(folder)
  assert not stores.exists(f"{folder}/d/c.json")


def test_neighbours_of_a_like_name_are_not_in_a_folder(url):
  files.write_atomically(f"{url}/a/x", "1")
  files.write_atomically(f"{url}/ab/x", "22")
  assert stores.sizes(f"{url}/a") == {"x": 1}
  stores.remove_folder(f"{url}/a")
  assert stores.sizes(url) == {"ab/x": 2}


def test_a_file_that_fails_is_not_sent(url):
  files.write_atomically(f"{url}/a", "before")
  with pytest.raises(ZeroDivisionError):
    with files.published(f"{url}/a") as file:
      file.write_text("half")
      raise ZeroDivisionError
  assert stores.read(f"{url}/a") == b"before"
  with pytest.raises(ZeroDivisionError):
    with files.published_folder(f"{url}/folder", "z") as folder:
      (folder / "z").write_text("half")
      raise ZeroDivisionError
  assert stores.sizes(f"{url}/folder") == {}


def test_the_file_that_says_whole_is_sent_last(url, monkeypatch):
  sent = []
  real = store_calls.written

  def record(target, act):
    real(target, act)
    sent.append(sorted(stores.sizes(f"{url}/folder")))

  monkeypatch.setattr(store_calls, "written", record)
  with files.published_folder(f"{url}/folder", "a") as folder:
    for name in ("a", "b", "c"):
      (folder / name).write_text(name)
  assert sent == [["b", "c"], ["a", "b", "c"]]


def test_a_folder_is_claimed_once(url):
  assert files.claim_folder(url)
  assert not files.claim_folder(url)
  files.check_writable(url)
  assert stores.names(url) == [".claimed"]
  with pytest.raises(ValueError, match="must be the name of something inside"):
    files.inside(url, "..", "other")


def test_an_outbox_sends_what_has_changed(url, tmp_path, monkeypatch):
  box = stores.Outbox(url)
  with open(f"{box.folder}/lines", "a") as f:
    for number in range(3):
      f.write(f"{number}\n")
      f.flush()
      box.push()
      assert stores.read(f"{url}/lines").decode().split() == [
        str(n) for n in range(number + 1)
      ]
  monkeypatch.setattr(store_calls, "written", lambda *_: pytest.fail("sent"))
  box.push()
  assert stores.Outbox(str(tmp_path)).folder == str(tmp_path)


def test_a_lock_of_a_store_keeps_others_out(url):
  with lock.held(url, "--mode=train", label=f"workdir={url}") as held:
    held.check()
    held.beat()
    held.check()
    with pytest.raises(ValueError, match="is in use: --mode=train"):
      with lock.held(url, "--mode=sample", label=f"workdir={url}"):
        pass
  assert stores.sizes(url) == {}
  with lock.held(f"{url}/x", "--mode=sample", beside=True):
    assert stores.names(url) == [".x.lock"]


def test_a_lock_is_held_though_the_answer_was_lost(url, monkeypatch):
  create = stores.create

  def lost(path, data):
    create(path, data)
    create(path, data)

  monkeypatch.setattr(stores, "create", lost)
  with lock.held(url, "--mode=train") as held:
    held.check()
    with pytest.raises(ValueError, match="is in use: --mode=train"):
      with lock.held(url, "--mode=sample"):
        pass


def test_a_dead_holder_is_replaced(url, monkeypatch, caplog):
  other = lock.this_process("--mode=train")
  fields = {**other.__dict__, "machine": "another", "token": "f" * 32}
  stores.write(f"{url}/.lock", json.dumps(fields).encode())
  with pytest.raises(ValueError, match="is in use"):
    with lock.held(url, "--mode=train"):
      pass
  now = lock._now
  later = lambda *arguments: now(*arguments) + lock.SILENT_SECONDS + 1
  monkeypatch.setattr(lock, "_now", later)
  with lock.held(url, "--mode=train") as held:
    held.check()
    assert "no sign of life" in caplog.text
    stores.write(f"{url}/.lock", json.dumps(fields).encode())
    with pytest.raises(OSError, match="is of another process now"):
      held.check()


def test_parts_rows_and_arrays_lie_in_a_store(url):
  made = []

  def make(index):
    made.extend(index.tolist())
    return rows.Part(index, {"x": np.asarray(index, np.float32)[:, None]})

  first = rows.compute(url, {"name": "n"}, 5, 2, make)
  again = rows.compute(url, {"name": "n"}, 5, 2, make)
  assert made == [0, 1, 2, 3, 4]
  np.testing.assert_array_equal(again.rows["x"][:, 0], np.arange(5))
  np.testing.assert_array_equal(first.index, again.index)
  assert sorted(stores.names(url)) == ["index.npy", "of.json", "x.npy"]
  arrays = {"arr_0": np.arange(12).reshape(4, 3)}
  files.write_npz(f"{url}/a.npz", arrays)
  assert npz.is_whole(f"{url}/a.npz", 4)
  np.testing.assert_array_equal(
    npz.Rows(f"{url}/a.npz").read(1, 3), arrays["arr_0"][1:3]
  )
  with pytest.raises(ValueError, match="cannot read memory://.*b.npz"):
    npz.names(f"{url}/b.npz")


def test_work_in_a_store_goes_on_with_what_is_missing(url):
  layout = parts.Layout(4, 1)
  whole = parts.Folder(url, layout.names)
  whole.claim("of.json", "{}", "rows")
  assert whole.mine() == [0, 1, 2, 3]
  files.write_npz(whole.part(1), {"x": np.zeros(1)})
  whole.claim("of.json", "{}", "rows")
  assert whole.mine() == [0, 2, 3]
  with pytest.raises(ValueError, match="still lacks 3 of 4 parts"):
    whole.finish(lambda _: None)
  with pytest.raises(ValueError, match="holds other rows"):
    whole.claim("of.json", '{"a": 1}', "rows")


def test_shards_are_written_and_described(url):
  shards.write(f"{url}/a.arrayrecord", [b"one", b"two"])
  described = shards.describe(url, "a.arrayrecord")
  copy = stores.fetched(f"{url}/a.arrayrecord")
  assert described.bytes == os.path.getsize(copy)
  assert described.sha256 == files.sha256(copy)
  assert shards.is_whole(copy, 2)


def test_urls_of_flags_are_expanded_or_refused(monkeypatch):
  monkeypatch.setenv("BUCKET", "b")
  assert paths.expand("gs://$BUCKET/~/x", urls=True) == "gs://b/~/x"
  assert paths.argument_or_url("gs://b/x") == "gs://b/x"
  with pytest.raises(ValueError, match="in no such kind of store"):
    paths.expand("nowhere://b/x", urls=True)
  monkeypatch.delenv("BUCKET")
  with pytest.raises(ValueError, match="the variable BUCKET is not set"):
    paths.expand("gs://$BUCKET/x", urls=True)


class _Faulty:
  """A file system whose requests fail so many times."""

  def __init__(self, *errors: Exception):
    self.errors = list(errors)

  def cat_file(self, url):
    if self.errors:
      raise self.errors.pop(0)
    return b"read"


@pytest.fixture
def faulty(monkeypatch):
  """Function that makes the store raise these errors, one at each request."""
  waits = []
  monkeypatch.setattr(store_calls.time, "sleep", waits.append)

  def install(*errors):
    waits.clear()
    system = _Faulty(*errors)
    monkeypatch.setattr(store_calls, "_system", lambda url: system)
    return waits

  return install


def test_requests_that_fail_for_a_while_are_repeated(faulty):
  waits = faulty(ConnectionResetError("reset"), TimeoutError("slow"))
  assert stores.read("gs://b/x") == b"read"
  assert waits == [1.0, 2.0]
  waits = faulty(*[ConnectionResetError("reset")] * 9)
  with pytest.raises(OSError, match="does not answer as it should .*reset"):
    stores.read("gs://b/x")
  assert waits == [1.0, 2.0]


@pytest.mark.parametrize(
  "error, words",
  [
    (PermissionError("no"), "let this account read and write there"),
    (OSError("Forbidden: b/x"), "let this account read and write there"),
    (
      type("NoCredentialsError", (Exception,), {})("Unable to locate"),
      "gcloud auth application-default login",
    ),
    (
      type("HttpError", (Exception,), {"code": 401})("Invalid"),
      "gcloud auth application-default login",
    ),
  ],
)
def test_refusals_are_told_at_once_with_the_remedy(faulty, error, words):
  waits = faulty(error, error)
  with pytest.raises(OSError, match=words) as caught:
    stores.read("gs://b/x")
  assert waits == [] and caught.value.filename == "gs://b/x"
  assert "\n" not in str(caught.value)


def test_a_missing_package_and_an_unknown_store_are_named(monkeypatch):
  def missing(name):
    raise ImportError(f"Please install {name}")

  with pytest.raises(OSError, match="no such kind of store") as caught:
    stores.read("nothing://b/x")
  assert caught.value.errno == errno.EINVAL
  monkeypatch.setattr(fsspec, "filesystem", missing)
  with pytest.raises(OSError, match="pip install s3fs"):
    stores.exists("s3://b/x")


def test_whoever_waits_is_told_for_which_store(url, caplog, monkeypatch):
  monkeypatch.setattr(store_calls, "_QUIET", 0.01)
  end = time.monotonic() + 20

  def act(system):
    while not caplog.records and time.monotonic() < end:
      time.sleep(0.01)
    return 7

  assert store_calls.tried(url, act) == 7
  assert f"WARNING: waiting for {url} for 0 s now." in caplog.text


def test_a_library_that_was_patient_is_not_called_again(url, monkeypatch):
  monkeypatch.setattr(store_calls, "_FIRST_WAIT", 0.0)
  calls = []

  def act(system):
    calls.append(system)
    raise ConnectionError("no answer")

  for seconds, expected in ((1000.0, store_calls._ATTEMPTS), (-1.0, 1)):
    monkeypatch.setattr(store_calls, "_LONGEST", seconds)
    calls.clear()
    with pytest.raises(OSError, match="no answer"):
      store_calls.tried(url, act)
    assert len(calls) == expected


def test_a_folder_of_a_store_is_moved_whole_and_locked_once(folder):
  if not stores.is_url(folder):
    pytest.skip("folders of disks are renamed")
  for name in ("a/x", "a/b/y", "a/whole"):
    stores.write(f"{folder}/{name}", name.encode())
  stores.move_folder(f"{folder}/a", f"{folder}/c", "whole")
  assert stores.sizes(folder) == {"c/x": 3, "c/b/y": 5, "c/whole": 7}
  assert stores.read(f"{folder}/c/b/y") == b"a/b/y"
  stores.create(f"{folder}/once", b"1")
  with pytest.raises(FileExistsError):
    stores.create(f"{folder}/once", b"2")
  with lock.held(folder, "--mode=train"):
    with pytest.raises(ValueError, match="is in use: --mode=train"):
      with lock.held(folder, "--mode=sample"):
        pass


def test_the_file_that_says_whole_is_moved_last(url, monkeypatch):
  for name in ("a", "whole", "z"):
    stores.write(f"{url}/from/{name}", b"1")
  moved, real = [], store_calls.written

  def record(target, act):
    real(target, act)
    moved.append(sorted(stores.sizes(f"{url}/to")))

  monkeypatch.setattr(store_calls, "written", record)
  stores.move_folder(f"{url}/from", f"{url}/to", "whole")
  assert moved == [["a"], ["a", "z"], ["a", "whole", "z"]]


@pytest.mark.parametrize("kind, package", [("gs", "gcsfs"), ("s3", "s3fs")])
def test_a_missing_package_is_named(kind, package, monkeypatch):
  monkeypatch.setitem(sys.modules, package, None)
  known = sys.modules["fsspec.registry"]._registry
  # Another test may have made a file system of the kind.
  monkeypatch.delitem(known, kind, raising=False)
  with pytest.raises(OSError, match=f"package is .*: pip install {package}"):
    stores.read(f"{kind}://bucket/x")
