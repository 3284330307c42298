"""Tests of storage/shards.py: folders hold what the manifest describes."""

import dataclasses
import json
import pickle
import resource
import signal

import numpy as np
import pytest

from storage import parts
from storage import shards


@dataclasses.dataclass(frozen=True)
class _Contents:
  name: str
  sizes: tuple[tuple[int, ...], ...]


_FORMAT = shards.Format("words", _Contents, shards.Shard, "make it again")
_CONTENTS = _Contents("x", ((1, 2), (3,)))
_LAYOUT = shards.layout("words", 5, 2)


def _write(folder, number):
  records = [b"%d" % i for i in _LAYOUT.places(number)]
  shards.write(str(folder / _LAYOUT.names[number]), records)
  return shards.describe(str(folder), _LAYOUT.names[number])


def _finish(folder):
  made = [_write(folder, number) for number in range(3)]
  _FORMAT.finish(str(folder), shards.to_json(_CONTENTS, made, total=5))
  return made


def test_a_finished_folder_says_and_holds_what_was_written(tmp_path):
  made = _finish(tmp_path)
  assert _FORMAT.read(str(tmp_path)) == (_CONTENTS, made)
  names = [f"words-0000{i}-of-00003.arrayrecord" for i in range(3)]
  assert [shard.name for shard in made] == names == _LAYOUT.names
  assert json.loads((tmp_path / "words.json").read_text())["total"] == 5
  records = _FORMAT.open(str(tmp_path), made, [2, 2, 1])
  assert [records[i] for i in range(5)] == [b"0", b"1", b"2", b"3", b"4"]
  with pytest.raises(ValueError, match=" 5 examples, .*words.json .* 6"):
    _FORMAT.open(str(tmp_path), made, [2, 2, 2])


def test_a_shard_that_is_not_written_to_the_end_is_not_there(tmp_path):
  def dies():
    yield b"0"
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    shards.write(str(tmp_path / _LAYOUT.names[0]), dies())
  assert not [p for p in tmp_path.iterdir() if p.name[0] != "."]


def test_damaged_and_missing_shards_are_named(tmp_path):
  shard = _finish(tmp_path)[1]
  check = lambda contents: _FORMAT.check(str(tmp_path), shard, contents)
  check(contents=True)
  path = tmp_path / shard.name
  whole = path.read_bytes()
  path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
  check(contents=False)
  with pytest.raises(ValueError, match="words-00001.* sha256"):
    check(contents=True)
  path.write_bytes(whole[:-1])
  with pytest.raises(
    ValueError,
    match=f"words-00001.* bytes {len(whole)} .* {len(whole) - 1};",
  ):
    check(contents=False)
  path.unlink()
  with pytest.raises(ValueError, match="shard words-00001.*: make it again"):
    check(contents=False)


def test_a_claim_returns_the_shards_that_are_still_there(tmp_path):
  whole = parts.Folder(str(tmp_path), _LAYOUT.names)
  claim = lambda: _FORMAT.claim(whole, shards.to_json(_CONTENTS), "begun.json")
  assert claim() == [] and (tmp_path / "begun.json").exists()
  made = _finish(tmp_path)
  (tmp_path / made[1].name).unlink()
  assert claim() == [made[0], made[2]]


def test_folders_without_a_true_manifest_are_refused(tmp_path):
  with pytest.raises(ValueError, match="no words.json.*: make it again$"):
    _FORMAT.read(str(tmp_path))
  for text in ("{", "[]", "{}", '{"name": "x", "sizes": [], "shards": [{}]}'):
    (tmp_path / "words.json").write_text(text)
    with pytest.raises(
      ValueError, match="/words.json .*: make it again, in a new"
    ):
      _FORMAT.read(str(tmp_path))


def _random_records(count):
  rng = np.random.default_rng(0)
  return [rng.bytes(1000) for _ in range(count)]


def test_a_flipped_bit_in_a_record_is_named_when_it_is_read(tmp_path):
  paths = [str(tmp_path / name) for name in _LAYOUT.names[:2]]
  records = _random_records(20)
  shards.write(paths[0], records[:10])
  shards.write(paths[1], records[10:])
  assert [shards.is_whole(path, 10) for path in paths] == [True, True]
  assert not shards.is_whole(paths[0], 9)
  data = bytearray((tmp_path / _LAYOUT.names[1]).read_bytes())
  data[data.index(records[13][:16])] ^= 1
  (tmp_path / _LAYOUT.names[1]).write_bytes(data)
  assert [shards.is_whole(path, 10) for path in paths] == [True, False]
  opened = pickle.loads(pickle.dumps(shards.Records(paths)))
  assert [opened[i] for i in (0, 12, 14, 19)] == [
    records[i] for i in (0, 12, 14, 19)
  ]
  with pytest.raises(
    ValueError, match=f"cannot read record 3 of {paths[1]} .*hash mismatch"
  ) as error:
    opened[13]
  assert "\n" not in str(error.value)


def test_a_shard_that_is_cut_or_empty_is_named_when_it_is_opened(tmp_path):
  paths = [str(tmp_path / name) for name in _LAYOUT.names[:2]]
  for path in paths:
    shards.write(path, _random_records(5))
  whole = (tmp_path / _LAYOUT.names[1]).read_bytes()
  for size in (0, 100, len(whole) // 2, len(whole) - 1):
    (tmp_path / _LAYOUT.names[1]).write_bytes(whole[:size])
    assert not shards.is_whole(paths[1], 5)
    with pytest.raises(ValueError, match=f"cannot read {paths[1]} .*damaged"):
      shards.Records(paths)


def test_a_full_disk_is_named(tmp_path):
  """A limit on the size of files fails a write as a full disk does."""
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
  path = str(tmp_path / _LAYOUT.names[0])
  try:
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    with pytest.raises(ValueError, match=f"cannot write {path} .*: make room"):
      shards.write(path, _random_records(500), compress=False)
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, handler)
  assert not list(tmp_path.iterdir())
