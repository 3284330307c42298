"""Tests of storage/files.py: a file is whole or absent."""

import hashlib

import numpy as np
import pytest

from storage import files


def _torn(path, **options):
  with files.published(path, **options) as temporary:
    temporary.write_bytes(b"half of")
    raise KeyboardInterrupt


@pytest.mark.parametrize("one_writer", [False, True])
def test_a_block_that_is_stopped_leaves_the_old_file_alone(
  tmp_path, one_writer
):
  path = tmp_path / "new" / "a"
  with pytest.raises(KeyboardInterrupt):
    _torn(path, one_writer=one_writer)
  assert not list(path.parent.iterdir())
  files.write_atomically(path, "old")
  with pytest.raises(KeyboardInterrupt):
    _torn(path, one_writer=one_writer)
  assert path.read_text() == "old"
  assert list(path.parent.iterdir()) == [path]


def test_nothing_has_the_name_before_the_file_is_whole(tmp_path):
  path = tmp_path / "a"
  with files.published(path) as temporary:
    temporary.write_bytes(b"half")
    assert not path.exists() and temporary.name.startswith(".")
  assert path.read_bytes() == b"half"


def test_what_a_kill_left_of_a_lone_writer_is_overwritten(tmp_path):
  (tmp_path / ".a.tmp").write_bytes(b"torn by a kill, and longer")
  with files.published(tmp_path / "a", one_writer=True) as temporary:
    temporary.write_bytes(b"whole")
  assert (tmp_path / "a").read_bytes() == b"whole"
  assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_file_that_may_not_be_replaced_is_not(tmp_path):
  path = files.write_atomically(tmp_path / "a", "old", replace=False)
  with pytest.raises(FileExistsError):
    files.write_atomically(path, "new", replace=False)
  assert path.read_text() == "old"
  assert list(tmp_path.iterdir()) == [path]


def test_values_survive_json_and_damage_is_named(tmp_path):
  path = files.write_json(tmp_path / "a.json", {"x": [1, None, "é"]})
  assert files.read_json(path) == {"x": [1, None, "é"]}
  path.write_text(path.read_text()[:-4])
  with pytest.raises(ValueError, match="a.json .*JSON"):
    files.read_json(path)


def test_arrays_survive_npz(tmp_path):
  files.write_npz(tmp_path / "a.npz", {"x": np.arange(3)})
  with np.load(tmp_path / "a.npz") as f:
    np.testing.assert_array_equal(f["x"], [0, 1, 2])
  assert len(list(tmp_path.iterdir())) == 1


def test_the_digest_of_two_files_is_that_of_their_bytes_in_a_row(tmp_path):
  a = files.write_atomically(tmp_path / "a", b"ab")
  b = files.write_atomically(tmp_path / "b", b"c")
  assert files.sha256(a, b) == hashlib.sha256(b"abc").hexdigest()
  assert files.sha256(b, a) == hashlib.sha256(b"cab").hexdigest()
