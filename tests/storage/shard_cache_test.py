"""Tests of storage/shard_cache.py: right bytes, within a bound, shared."""

import collections
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest

from storage import shard_cache

_BLOCK = 4096
_PER_BLOCK = 2 * _BLOCK  # with what is counted for its name
_SIZES = [50_000, 4096, 12_345]
_PROCESS = pathlib.Path(__file__).parent / "shard_cache_process.py"


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
  monkeypatch.setattr(shard_cache, "BLOCK_BYTES", _BLOCK)


class _Set:
  """A set of random bytes, and what was got of it."""

  def __init__(self, seed=0):
    draw = random.Random(seed)
    self.shards = [draw.randbytes(size) for size in _SIZES]
    self.requests, self.name = [], f"set{seed}"

  def fetch(self, number, start, end):
    self.requests.append((number, start, end))
    return self.shards[number][start:end]

  def reader(self, folder, blocks=100):
    settings = shard_cache.Settings(str(folder), blocks * _PER_BLOCK)
    return shard_cache.Reader(self.name, _SIZES, self.fetch, settings)

  def check(self, reader, number, start, end):
    expected = self.shards[number][start:end]
    assert reader.read(number, start, end) == expected


def _bytes(folder) -> int:
  """Bytes of all that lies in a folder, by the blocks of the disk as well."""
  paths = [p for p in folder.rglob("*") if p.is_file()]
  stats = [p.stat() for p in paths]
  return max(
    sum(s.st_size for s in stats), sum(512 * s.st_blocks for s in stats)
  )


def _blocks(folder, name="set0") -> int:
  return len(list((folder / name).glob("0*")))


def _read_randomly(data, reader, count, seed=0, check=lambda: None):
  draw = random.Random(seed)
  for _ in range(count):
    number = draw.randrange(len(_SIZES))
    start = draw.randrange(_SIZES[number])
    end = min(_SIZES[number], start + draw.randrange(1, 9000))
    data.check(reader, number, start, end)
    check()


def test_ranges_are_those_of_the_shards_and_are_got_once(tmp_path):
  data = _Set()
  reader = data.reader(tmp_path)
  for number, size in enumerate(_SIZES):
    data.check(reader, number, 0, size)
  assert data.requests == [(n, 0, size) for n, size in enumerate(_SIZES)]
  _read_randomly(data, reader, 100)
  again = data.reader(tmp_path)  # as after a restart
  _read_randomly(data, again, 100, seed=1)
  assert len(data.requests) == 3


def test_a_read_gets_the_blocks_that_are_missing_alone(tmp_path):
  data = _Set()
  reader = data.reader(tmp_path)
  data.check(reader, 0, 5000, 5001)
  data.check(reader, 0, 4097, 20_000)
  data.check(reader, 2, 12_340, 12_345)
  assert data.requests == [
    (0, 4096, 8192),
    (0, 8192, 20_480),
    (2, 12288, 12345),
  ]


@pytest.mark.parametrize("blocks", [0, 1, 3, 8])
def test_the_bound_holds_after_every_read(tmp_path, blocks):
  data = _Set()
  reader = data.reader(tmp_path, blocks)
  within = lambda: _check_bound(tmp_path, blocks)
  _read_randomly(data, reader, 60, check=within)
  assert not blocks or _blocks(tmp_path) == blocks
  # What does not fit is got in ranges of what is needed, and not of blocks.
  data.requests.clear()
  reader.read(0, 49_000, 49_010)
  assert data.requests in ([], [(0, 49_000, 49_010)])


def _check_bound(folder, blocks):
  held = [p for p in folder.rglob("0*")] if folder.exists() else []
  assert len(held) <= blocks
  # The files of locks and counts have no blocks, and few bytes.
  assert _bytes(folder) <= blocks * _PER_BLOCK + _BLOCK


def test_sets_that_nobody_reads_make_room_the_oldest_first(tmp_path):
  sets = [_Set(seed) for seed in range(4)]
  readers = [data.reader(tmp_path, 20) for data in sets]
  for age, number in ((300, 0), (200, 1)):
    sets[number].check(readers[number], 0, 0, 8 * _BLOCK)
    then = time.time() - age
    os.utime(tmp_path / f"set{number}" / "lease", (then, then))
  counts = lambda: [
    _blocks(tmp_path, data.name) for data in sets[: len(readers)]
  ]
  sets[2].check(readers[2], 0, 0, 8 * _BLOCK)  # both others are being read
  assert counts() == [8, 8, 4, 0]
  sets[3].check(readers[3], 0, 0, _BLOCK)
  assert counts() == [8, 8, 4, 0]
  del readers[0]  # as its process ends
  readers.insert(0, None)
  readers[3] = sets[3].reader(tmp_path, 20)
  sets[3].check(readers[3], 0, 0, _BLOCK)
  assert counts() == [0, 8, 4, 1]
  readers[1] = None
  sets[3].check(readers[3], 0, 0, 12 * _BLOCK)
  assert counts() == [0, 0, 4, 12]


def test_a_block_that_is_cut_or_forgotten_is_got_again(tmp_path):
  data = _Set()
  reader = data.reader(tmp_path)
  data.check(reader, 0, 0, 8192)
  (tmp_path / "set0" / "00000-000001").write_bytes(b"cut")
  data.check(reader, 0, 0, 8192)
  reader.forget(0, 0, 10)
  assert _blocks(tmp_path) == 1
  data.check(reader, 0, 0, 8192)
  assert data.requests == [(0, 0, 8192), (0, 4096, 8192), (0, 0, 4096)]


def test_a_lowered_bound_is_kept_at_once(tmp_path):
  data = _Set()
  data.check(data.reader(tmp_path), 0, 0, 50_000)
  assert _blocks(tmp_path) == 13
  reader = data.reader(tmp_path, 4)
  data.check(reader, 0, 0, 50_000)
  assert _blocks(tmp_path) == 4


def test_a_folder_that_cannot_be_written_stops_nothing(tmp_path, caplog):
  (tmp_path / "file").write_text("")
  data = _Set()
  reader = data.reader(tmp_path / "file")
  _read_randomly(data, reader, 10)
  assert len(data.requests) == 10
  (line,) = [r.getMessage() for r in caplog.records]
  assert "MAGVIT_SHARD_CACHE" in line and str(tmp_path / "file") in line


def test_settings_come_from_the_environment(monkeypatch, tmp_path):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  for name in (shard_cache.FOLDER, shard_cache.GIGABYTES):
    monkeypatch.delenv(name, raising=False)
  usual = shard_cache.settings()
  assert usual.folder == str(tmp_path / "magvit" / "shards")
  assert usual.most_bytes == 10 * 10**9
  monkeypatch.setenv(shard_cache.FOLDER, "/x/y")
  monkeypatch.setenv(shard_cache.GIGABYTES, "0.5")
  assert shard_cache.settings() == shard_cache.Settings("/x/y", 5 * 10**8)
  monkeypatch.setenv(shard_cache.GIGABYTES, "0")
  assert shard_cache.settings().most_blocks == 0
  for text in ("many", "-1", "nan", "inf", "0.000001"):
    monkeypatch.setenv(shard_cache.GIGABYTES, text)
    with pytest.raises(ValueError, match=f"MAGVIT_SHARD_CACHE_GB={text} "):
      shard_cache.settings()
  monkeypatch.setenv(shard_cache.FOLDER, "y")
  with pytest.raises(ValueError, match="MAGVIT_SHARD_CACHE=y .*absolute"):
    shard_cache.settings()


def _start(folder, blocks, seed, count, paths):
  arguments = (folder, blocks * _PER_BLOCK, seed, count, *paths)
  return subprocess.Popen(
    [sys.executable, _PROCESS, *map(str, arguments)],
    stdout=subprocess.PIPE,
    text=True,
    env={**os.environ, "PYTHONPATH": str(_PROCESS.parents[2])},
  )


@pytest.fixture
def files(tmp_path):
  paths = [tmp_path / f"shard{i}" for i in range(len(_SIZES))]
  for path, content in zip(paths, _Set().shards, strict=True):
    path.write_bytes(content)
  return paths


def test_processes_share_blocks_and_get_each_once(tmp_path, files):
  folder = tmp_path / "cache"
  running = [_start(folder, 100, seed, 150, files) for seed in range(3)]
  for process in running:
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0 and "done" in output
  got = collections.Counter()
  for line in (tmp_path / "cache.log").read_text().splitlines():
    number, start, end = map(int, line.split())
    for block in range(start // _BLOCK, -(-end // _BLOCK)):
      got[number, block] += 1
  assert len(got) == _blocks(folder, "set")
  # Two reads that begin at different blocks may get those they share twice.
  assert sum(got.values()) <= 1.5 * len(got)


def test_kills_leave_no_part_of_a_block_and_keep_the_bound(tmp_path, files):
  folder = tmp_path / "cache"
  for attempt in range(6):
    process = _start(folder, 6, attempt, 10_000, files)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.02 * attempt)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    _check_bound(folder, 6)
  data = _Set()
  data.name = "set"
  reader = data.reader(folder, 6)
  _read_randomly(data, reader, 30, check=lambda: _check_bound(folder, 6))
  assert _blocks(folder, "set") == 6
  assert not (folder / "new").exists()
