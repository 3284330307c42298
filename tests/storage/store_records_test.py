"""Tests of storage/store_records.py: the same records as from a disk."""

import pickle
import threading

import fsspec
from fsspec.implementations import memory
import numpy as np
import pytest

from storage import shard_cache
from storage import shards
from storage import store_calls
from storage import store_records


class _Faulty(memory.MemoryFileSystem):
  """A store in memory whose requests fail, stall or end early."""

  protocol = "faulty"
  cachable = False
  fail, stall, short, requests = 0, None, False, 0

  @classmethod
  def _strip_protocol(cls, path):
    return super()._strip_protocol(path.replace("faulty:/", ""))

  def cat_file(self, path, start=None, end=None, **kwargs):
    _Faulty.requests += 1
    if _Faulty.fail:
      _Faulty.fail -= 1
      raise ConnectionError("the line is broken")
    if _Faulty.stall is not None:
      _Faulty.stall.wait(60)
    data = super().cat_file(path, start, end, **kwargs)
    return data[: len(data) // 2] if _Faulty.short else data


@pytest.fixture(autouse=True)
def store(monkeypatch, tmp_path):
  """An empty store faulty://, and no wait after an error."""
  fsspec.register_implementation("faulty", _Faulty, clobber=True)
  for name, value in (
    *(("fail", 0), ("stall", None), ("short", False), ("requests", 0)),
    *(("store", {}), ("pseudo_dirs", [""])),
  ):
    monkeypatch.setattr(_Faulty, name, value)
  monkeypatch.setattr(store_calls, "_FIRST_WAIT", 0.0)
  monkeypatch.setenv(shard_cache.FOLDER, str(tmp_path / "cache"))
  return _Faulty()


def _records(sizes, seed=0):
  rng = np.random.default_rng(seed)
  # Half of the bytes are zeros, so that compression finds something to do.
  return [rng.bytes(size // 2) + bytes(size - size // 2) for size in sizes]


def _put(store, tmp_path, groups, compress=True):
  """Writes a shard for each group of records; returns the records by URL."""
  made = []
  for number, records in enumerate(groups):
    name = f"x-{number}"
    shards.write(str(tmp_path / name), records, compress)
    store.pipe_file(f"/b/{name}", (tmp_path / name).read_bytes())
    made.append(shards.describe(str(tmp_path), name))
  return _open(made, [len(records) for records in groups])


def _open(made, counts, folder="faulty://b"):
  return store_records.StoreRecords(
    [f"{folder}/{shard.name}" for shard in made],
    [shard.bytes for shard in made],
    counts,
    [shard.sha256 for shard in made],
  )


# Chunks that begin, end and lie across the places of Riegeli's block headers.
_EDGES = (*range(65_300, 65_560, 13), 0, 1, 100, 131_050, 200_000, 3)


@pytest.mark.parametrize("gigabytes", ["0", "0.001", "10"])
@pytest.mark.parametrize("compress", [True, False])
def test_records_are_those_of_the_files(
  store, tmp_path, monkeypatch, compress, gigabytes
):
  monkeypatch.setenv(shard_cache.GIGABYTES, gigabytes)
  groups = [_records(_EDGES), _records([5]), _records(range(50), seed=1)]
  opened = _put(store, tmp_path, groups, compress)
  expected = [record for group in groups for record in group]
  assert len(opened) == len(expected)
  order = np.random.default_rng(0).permutation(len(expected))
  for index in order:
    assert opened[index] == expected[index]
  again = pickle.loads(pickle.dumps(opened))
  assert [again[i] for i in order[:5]] == [expected[i] for i in order[:5]]
  with pytest.raises(IndexError):
    opened[len(expected)]


def test_an_index_of_any_size_is_read(store, tmp_path):
  records = [b"%d" % i for i in range(30_000)]
  opened = _put(store, tmp_path, [records], compress=False)
  for index in (0, 1, 14_999, 29_998, 29_999):
    assert opened[index] == records[index]


def test_nothing_is_got_before_a_record_is_read(store, tmp_path):
  opened = _put(store, tmp_path, [_records([90_000] * 40)] * 3)
  assert store.requests == 0
  opened[50]
  assert store.requests <= 3
  before = store.requests
  opened[51]  # its neighbour came along
  assert store.requests <= before + 1


def test_a_damaged_record_is_named_and_others_are_read(store, tmp_path):
  records = _records([50_000] * 12)
  opened = _put(store, tmp_path, [records])
  data = bytearray(store.cat_file("/b/x-0"))
  data[200_000] ^= 1
  store.pipe_file("/b/x-0", bytes(data))
  read, damaged = 0, []
  for index, record in enumerate(records):
    try:
      assert opened[index] == record
      read += 1
    except ValueError as error:
      damaged.append(str(error))
  (line,) = damaged
  assert read == len(records) - 1
  assert "of faulty://b/x-0 (" in line and "copy or make it again" in line
  assert "hash mismatch" in line and "\n" not in line


def test_a_block_that_a_cut_of_power_damaged_is_got_again(store, tmp_path):
  records = _records([50_000] * 12)
  opened = _put(store, tmp_path, [records])
  assert [opened[i] for i in range(12)] == records
  blocks = sorted((tmp_path / "cache").glob("*/0*"))
  for block in blocks:
    block.write_bytes(bytes(block.stat().st_size))
  again = pickle.loads(pickle.dumps(opened))
  again._indexes.clear()
  assert [again[i] for i in range(12)] == records


def test_requests_that_fail_are_repeated_and_then_named(store, tmp_path):
  records = _records([1000] * 5)
  opened = _put(store, tmp_path, [records])
  _Faulty.fail = store_calls._ATTEMPTS - 1
  assert opened[2] == records[2]
  _Faulty.fail = 1000
  opened._indexes.clear()
  opened._reader.forget(0, 0, 200_000)
  with pytest.raises(
    ValueError, match="cannot read faulty://b/x-0 .*the line is broken"
  ):
    opened[3]


def test_a_stall_has_an_end(store, tmp_path, monkeypatch):
  opened = _put(store, tmp_path, [_records([1000] * 5)])
  monkeypatch.setattr(store_records, "SECONDS", 0.2)
  _Faulty.stall = threading.Event()
  with pytest.raises(ValueError, match="faulty://b/x-0 .*not answered for 0 s"):
    opened[0]
  _Faulty.stall.set()


def test_absent_and_cut_objects_are_named(store, tmp_path):
  opened = _put(store, tmp_path, [_records([90_000] * 9)])
  _Faulty.short = True
  with pytest.raises(
    ValueError, match="x-0 .*breaks off after byte .* manifest"
  ):
    opened[0]
  _Faulty.short = False
  store.rm_file("/b/x-0")
  with pytest.raises(
    ValueError, match=r"cannot read faulty://b/x-0 \(No such file"
  ):
    opened[0]


def test_a_shard_of_another_number_of_records_is_refused(store, tmp_path):
  _put(store, tmp_path, [_records([10] * 4)])
  made = [shards.describe(str(tmp_path), "x-0")]
  with pytest.raises(ValueError, match="4 records, and its manifest says 5"):
    _open(made, [5])[0]


def test_what_is_no_shard_is_refused_in_one_line(store, tmp_path):
  (tmp_path / "x-0").write_bytes(bytes(300_000))
  store.pipe_file("/b/x-0", bytes(300_000))
  (tmp_path / "x-1").write_bytes(b"short")
  store.pipe_file("/b/x-1", b"short")
  made = [shards.describe(str(tmp_path), f"x-{i}") for i in range(2)]
  opened = _open(made, [5, 5])
  for index, name in ((0, "x-0"), (7, "x-1")):
    with pytest.raises(ValueError, match=f"{name} .*damaged") as error:
      opened[index]
    assert "\n" not in str(error.value)


def test_a_missing_package_is_one_line(tmp_path, monkeypatch):
  shards.write(str(tmp_path / "x-0"), [b"0"])
  made = [shards.describe(str(tmp_path), "x-0")]

  def absent(name, **kwargs):
    raise ImportError("Install s3fs to access S3")

  monkeypatch.setattr(fsspec, "filesystem", absent)
  with pytest.raises(ValueError, match="s3://b/x-0 .*pip install s3fs"):
    _open(made, [1], "s3://b")[0]


def test_files_of_urls_are_read_too(tmp_path):
  records = _records([3000] * 6)
  shards.write(str(tmp_path / "x-0"), records)
  made = [shards.describe(str(tmp_path), "x-0")]
  opened = _open(made, [6], f"file://{tmp_path}")
  assert [opened[i] for i in (4, 0)] == [records[4], records[0]]
