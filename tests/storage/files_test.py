"""Tests of storage/files.py: whole or absent, and nothing through links."""

import hashlib
import os
import stat
import time

import numpy as np
import pytest

from storage import files


def _torn(path):
  with files.published(path) as temporary:
    temporary.write_bytes(b"half of")
    raise KeyboardInterrupt


def test_a_block_that_is_stopped_leaves_the_old_file_alone(tmp_path):
  path = tmp_path / "new" / "a"
  with pytest.raises(KeyboardInterrupt):
    _torn(path)
  assert not list(path.parent.iterdir())
  files.write_atomically(path, "old")
  with pytest.raises(KeyboardInterrupt):
    _torn(path)
  assert path.read_text() == "old"
  assert list(path.parent.iterdir()) == [path]


def test_nothing_has_the_name_before_the_file_is_whole(tmp_path):
  path = tmp_path / "a"
  with files.published(path) as temporary:
    temporary.write_bytes(b"half")
    assert not path.exists() and temporary.name.startswith(".")
  assert path.read_bytes() == b"half"


def test_names_of_temporary_files_cannot_be_guessed(tmp_path):
  names = set()
  for _ in range(8):
    with files.published(tmp_path / ("a" * 255)) as temporary:
      assert files.is_temporary(temporary.name)
      names.add(temporary.name)
  assert len(names) == 8
  assert all(len(name) > 32 and str(os.getpid()) != name for name in names)


def test_a_temporary_file_is_never_one_that_was_there(tmp_path, monkeypatch):
  victim = tmp_path / "victim"
  victim.write_text("mine")
  monkeypatch.setattr(files.secrets, "token_hex", lambda count: "0" * count)
  inside = tmp_path / "inside"
  inside.mkdir()
  (inside / f".magvit-{'0' * 16}.tmp").symlink_to(victim)
  for write in (
    lambda: files.write_atomically(inside / "a", "new"),
    lambda: files.check_writable(inside),
  ):
    with pytest.raises(FileExistsError):
      write()
  assert victim.read_text() == "mine"


def test_a_link_is_replaced_and_not_followed(tmp_path):
  victim, path = tmp_path / "victim", tmp_path / "a"
  victim.write_text("mine")
  path.symlink_to(victim)
  with pytest.raises(OSError, match="a"):
    files.append_to(path)
  files.write_atomically(path, "new")
  assert victim.read_text() == "mine"
  assert path.read_text() == "new" and not path.is_symlink()


def test_files_have_the_permissions_that_the_umask_leaves(tmp_path):
  before = os.umask(0o027)
  try:
    path = files.write_atomically(tmp_path / "a", "")
    with files.append_to(tmp_path / "b") as f:
      f.write("line")
  finally:
    os.umask(before)
  for each in (path, tmp_path / "b"):
    assert stat.S_IMODE(each.stat().st_mode) == 0o640


def test_what_kills_left_goes_once_nobody_can_be_at_work_on_it(tmp_path):
  old, new = (tmp_path / f".magvit-{x * 32}.tmp" for x in "01")
  folder = tmp_path / f".magvit-{'2' * 32}.tmp"
  others = tmp_path / ".cache-0123.tmp"
  folder.mkdir()
  for path in (old, new, others, folder / "a"):
    path.write_text("torn")
  long_ago = time.time() - 48 * 3600
  for path in (old, others, folder):
    os.utime(path, (long_ago, long_ago))
  path = files.write_atomically(tmp_path / "a", "whole")
  assert set(tmp_path.iterdir()) == {path, new, others}
  files.remove_stale(tmp_path, 0)
  assert set(tmp_path.iterdir()) == {path, others}


def test_a_folder_is_whole_or_absent(tmp_path):
  path = tmp_path / "new" / "folder"
  with pytest.raises(KeyboardInterrupt), files.published_folder(path) as folder:
    (folder / "a").write_text("half")
    raise KeyboardInterrupt
  assert not list(path.parent.iterdir())
  with files.published_folder(path) as folder:
    (folder / "a").write_text("whole")
    assert not path.exists()
  assert [p.name for p in path.parent.iterdir()] == ["folder"]
  with pytest.raises(OSError), files.published_folder(path) as folder:
    (folder / "a").write_text("other")
  assert (path / "a").read_text() == "whole"


def test_a_path_inside_of_a_folder_takes_no_way_through_a_link(tmp_path):
  outside, real = tmp_path / "outside", tmp_path / "real"
  (outside / "b").mkdir(parents=True)
  real.mkdir()
  root = tmp_path / "root"
  root.symlink_to(real)  # the user's own name for the folder may be a link
  assert files.inside(root, "a", "b") == str(root / "a" / "b")
  assert files.own_folder(root, "c") == str(root / "c")
  (root / "a").symlink_to(outside)
  (root / "c" / "d").mkdir()
  (root / "c" / "d" / "e").symlink_to(outside / "new")
  for names in (("a",), ("a", "b"), ("a/b", "x.json")):
    with pytest.raises(ValueError, match="root/a is a symbolic link"):
      files.inside(root, *names)
  with pytest.raises(ValueError, match="c/d/e is a symbolic link"):
    files.own_folder(root, "c")
  for names in (("..",), ("c", "../../outside"), ("/etc",)):
    with pytest.raises(ValueError, match="inside of"):
      files.inside(root, *names)


def test_a_full_disk_says_which_file(tmp_path):
  path = tmp_path / "a"
  with pytest.raises(OSError, match=f"No space left on device: '{path}'"):
    with files.published(path), open("/dev/full", "wb", 0) as full:
      full.write(b"more than there is room for")
  assert not list(tmp_path.iterdir())


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
