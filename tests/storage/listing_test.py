"""Tests of storage/listing.py: which files count, in which order, by name."""

import os

import pytest

from storage import listing


def _touch(root, *names):
  for name in names:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).touch()


def test_numbers_in_names_are_counted():
  names = ["b10.png", "b9.png", "a/2/x", "a/10/x", "01.png", "1.png", "c", "2"]
  assert sorted(names, key=listing.natural) == [
    *("1.png", "01.png", "2", "a/2/x", "a/10/x", "b9.png", "b10.png", "c")
  ]
  plain = ["A-1", "A.1", "A/1", "a1b2", "a1c1", "n01440764", "n01443537"]
  assert sorted(plain, key=listing.natural) == sorted(plain)


def test_links_are_followed_but_not_in_a_circle(tmp_path):
  root = tmp_path / "root"
  _touch(root, "a/1.png", "a/10.png", "a/2.png")
  _touch(tmp_path, "elsewhere/deep/x.png")
  (root / "linked").symlink_to(tmp_path / "elsewhere")
  (tmp_path / "elsewhere/deep/up").symlink_to(tmp_path / "elsewhere")
  (root / "a/root").symlink_to(root)
  (root / "file.png").symlink_to(root / "a/1.png")
  assert listing.walk(str(root)) == [
    *("a/1.png", "a/2.png", "a/10.png", "file.png", "linked/deep/x.png")
  ]
  assert listing.folders(str(root)) == ["a", "linked"]


def test_folders_that_link_to_each_other_are_refused(tmp_path):
  """Nine folders have a million names by way of each other."""
  folders = [tmp_path / str(number) for number in range(9)]
  for folder in folders:
    _touch(folder, "a.png")
    for other in folders:
      (folder / f"to_{other.name}").symlink_to(other)
  with pytest.raises(OSError, match=r"more than 100 ways: remove some.*/to_"):
    listing.walk(str(tmp_path))


def test_a_link_without_a_target_may_have_been_a_class(tmp_path):
  _touch(tmp_path, "a/x.png")
  (tmp_path / "b").symlink_to(tmp_path / "unmounted")
  with pytest.raises(ValueError, match="/b is a link without .*/unmounted: me"):
    listing.folders(str(tmp_path))


def test_files_of_systems_are_none_of_the_users(tmp_path):
  _touch(tmp_path, "a.png", "._a.png", ".AppleDouble/a.png", "Thumbs.db")
  _touch(tmp_path, "__MACOSX/._a.png", "@eaDir/a.png/SYNO.jpg")
  _touch(tmp_path, "lost+found/a.png", "$RECYCLE.BIN/a.png", "desktop.ini")
  _touch(tmp_path, "@tmp/a.png", "RECYCLER/a.png", "Icon\r")
  assert listing.walk(str(tmp_path)) == ["a.png"]
  assert listing.folders(str(tmp_path)) == []


def test_what_is_no_file_is_listed_and_says_why(tmp_path):
  (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
  (tmp_path / "self.png").symlink_to(tmp_path / "self.png")
  os.mkfifo(tmp_path / "pipe.png")
  _touch(tmp_path, "a.png")
  names = ["a.png", "gone.png", "pipe.png", "self.png"]
  assert listing.walk(str(tmp_path)) == names
  reasons = [listing.unreadable(str(tmp_path / name)) for name in names]
  assert reasons[0] == ""
  assert "without a target" in reasons[1] and "nowhere" in reasons[1]
  assert "pipe" in reasons[2] and "without a target" in reasons[3]


@pytest.mark.parametrize(
  "name, shown",
  [
    ("Ärger 写真 1.png", "Ärger 写真 1.png"),
    ("a\nb.png", "a\\nb.png"),
    ("a\\nb.png", "a\\\\nb.png"),
    (os.fsdecode(b"a\xffb.png"), "a\\xffb.png"),
    ("a\x1b[2Jb\u2028", "a\\x1b[2Jb\\u2028"),
  ],
)
def test_names_are_one_line_of_utf8(name, shown):
  assert listing.text(name) == shown


def test_names_that_we_write_are_short_clear_and_different():
  plain = "below/写真 1.png"
  assert listing.safe(plain) == plain
  odd = ["a\nb", "a_b", "a\\b", os.fsdecode(b"a\xffb"), os.fsdecode(b"a\xfeb")]
  odd += ["x" * 246, "x" * 247, "é" * 127, "d" * 200 + "/" + "e" * 200]
  safe = [listing.safe(name) for name in odd]
  assert len(set(safe)) == len(odd)
  for name in safe:
    assert listing.text(name) == name
    assert all(len(part.encode()) <= 160 for part in name.split("/"))
