"""Tests of folders: official lists and layouts, right and wrong."""

import json

import pytest

from input_pipeline.sources import entries
from input_pipeline.sources import folders
from tests import raw_data


def _listing(name, path, split, lists="", fold=1):
  return folders.listing(name, str(path), str(lists), split, fold)


def _labels(listing):
  return {entry.name.split("/")[-1]: entry.label for entry in listing.entries}


def test_ucf101_by_its_lists(tmp_path):
  raw_data.ucf101(tmp_path / "UCF-101", tmp_path / "lists")
  args = ("ucf101", tmp_path / "UCF-101")
  train = _listing(*args, "train", tmp_path / "lists")
  assert train.class_names == ("ApplyEyeMakeup", "HandstandPushups")
  assert _labels(train) == {
    "v_ApplyEyeMakeup_g08_c01.avi": 0,
    "v_ApplyEyeMakeup_g09_c01.avi": 0,
    "v_HandstandPushups_g08_c01.avi": 1,  # the list spells it otherwise
    "v_HandstandPushups_g09_c01.avi": 1,
  }
  held_out = _listing(*args, "held_out", tmp_path / "lists")
  assert list(_labels(held_out).values()) == [0, 1]
  assert not set(_labels(held_out)) & set(_labels(train))


def test_kinetics600_by_its_lists(tmp_path):
  raw_data.kinetics600(tmp_path)
  train = _listing("kinetics600", tmp_path, "train")
  assert train.class_names == ("abseiling", "zumba")
  assert _labels(train) == {
    "t-_0_000000_000010.mp4": 0,
    "t-_1_000010_000020.mp4": 1,
    "t-_2_000020_000030.mp4": 0,
  }
  held_out = _listing("kinetics600", tmp_path, "held_out")
  assert list(_labels(held_out).values()) == [0, 1]
  twin = tmp_path / "elsewhere/t-_0_000000_000010.webm"
  raw_data.video(twin, raw_data.frames(3, 0), "libvpx-vp9")
  with pytest.raises(
    ValueError, match="dataset.path=.* t-_0_000000_000010 .*webm, .*mp4;"
  ):
    _listing("kinetics600", tmp_path, "train")


def test_ssv2_by_its_lists(tmp_path):
  raw_data.ssv2(tmp_path)
  train = _listing("ssv2", tmp_path, "train")
  assert train.class_names == ("Holding something", "Pushing something left")
  assert _labels(train) == {"7.webm": 1, "10.webm": 1}
  assert _labels(_listing("ssv2", tmp_path, "held_out")) == {"3.webm": 0}


def test_bair_has_a_video_for_each_folder_of_frames(tmp_path):
  raw_data.bair(tmp_path)
  raw_data.video(tmp_path / "train/whole.mp4", raw_data.frames(5, 0))
  train = _listing("bair", tmp_path, "train")
  assert [entry.name for entry in train.entries] == [
    *("train/traj_0_to_255/0", "train/traj_0_to_255/1", "train/whole.mp4")
  ]
  numbers = [file.split("/")[-1] for file in train.entries[0].files]
  assert numbers == [f"{i}.png" for i in range(11)]  # 10 comes last
  assert len(_listing("bair", tmp_path, "held_out").entries) == 1


def test_images_by_class(tmp_path):
  raw_data.images_by_class(tmp_path)
  train = _listing("imagenet2012", tmp_path, "train")
  assert train.class_names == ("n01", "n02") and len(train.entries) == 6
  held_out = _listing("imagenet2012", tmp_path, "held_out")
  assert [e.label for e in held_out.entries] == [0, 0, 0, 1, 1, 1]
  raw_data.image(tmp_path / "val/n03/x.jpg", 0)
  with pytest.raises(ValueError, match="n03/x.jpg .*'n03'.* 2 known"):
    _listing("imagenet2012", tmp_path, "held_out")


def test_the_held_out_folder_is_chosen_where_there_are_several(tmp_path):
  for split in ("train", "val", "test"):
    raw_data.image(tmp_path / split / "a" / f"{split}.png", 0)
  with pytest.raises(
    ValueError, match=r"holds \['val', 'test'\].* dataset.held_out=val"
  ):
    _listing("mine", tmp_path, "held_out")
  for split in ("val", "test"):
    listing = folders.listing("mine", str(tmp_path), "", "held_out", 1, split)
    assert [e.name for e in listing.entries] == [f"{split}/a/{split}.png"]
  refused = lambda message: pytest.raises(ValueError, match=message)
  with refused("lacks the folder 'validation'"):
    folders.listing("mine", str(tmp_path), "", "held_out", 1, "validation")
  with refused("dataset.held_out='dev' must be"):
    folders.listing("mine", str(tmp_path), "", "held_out", 1, "dev")
  with refused("'ssv2' has lists"):
    folders.listing("ssv2", str(tmp_path), "", "held_out", 1, "val")


def test_classes_are_ordered_as_text_and_files_as_people_count(tmp_path):
  for name in ("2/10", "2/9", "10/1", "1/1"):
    raw_data.image(tmp_path / f"train/{name}.png", 0)
  raw_data.image(tmp_path / "val/1/1.png", 0)
  train = _listing("mine", tmp_path, "train")
  assert train.class_names == ("1", "10", "2")
  assert [(e.name, e.label) for e in train.entries] == [
    *[("train/1/1.png", 0), ("train/2/9.png", 2), ("train/2/10.png", 2)],
    ("train/10/1.png", 1),
  ]


def test_linked_classes_keep_their_examples(tmp_path):
  raw_data.image(tmp_path / "train/b/x.png", 0)
  raw_data.image(tmp_path / "pool/y.png", 1)
  (tmp_path / "train/a").symlink_to(tmp_path / "pool")
  (tmp_path / "pool/up").symlink_to(tmp_path / "pool")
  raw_data.image(tmp_path / "val/b/z.png", 0)
  train = _listing("mine", tmp_path, "train")
  assert train.class_names == ("a", "b")
  assert _labels(train) == {"y.png": 0, "x.png": 1}


def test_only_folders_with_examples_are_classes(tmp_path):
  for split in ("train", "val"):
    raw_data.image(tmp_path / split / "b/x.png", 0)
    raw_data.image(tmp_path / split / "@eaDir/b/x.png", 0)
    raw_data.image(tmp_path / split / "__MACOSX/b/._x.png", 0)
  for split in ("train", "held_out"):
    listing = _listing("mine", tmp_path, split)
    assert listing.class_names == ("b",) and listing.entries[0].label == 0
  (tmp_path / "train/a").mkdir()
  (tmp_path / "train/a/notes.txt").touch()
  for split in ("train", "held_out"):  # a would shift the number of b
    with pytest.raises(ValueError, match=r"^1 folders .*remove .*train/a$"):
      _listing("mine", tmp_path, split)
  (tmp_path / "train/a/x.png").touch()
  (tmp_path / "val/c").mkdir()
  assert len(_listing("mine", tmp_path, "train").entries) == 2
  with pytest.raises(ValueError, match=r"^1 folders .*remove .*val/c$"):
    _listing("mine", tmp_path, "held_out")


def test_a_link_to_the_split_is_no_class(tmp_path):
  """All that it leads to lies in the split already."""
  raw_data.image(tmp_path / "train/b/x.png", 0)
  (tmp_path / "train/a").symlink_to(tmp_path / "train")
  with pytest.raises(ValueError, match=r"^1 folders .*remove .*train/a$"):
    _listing("mine", tmp_path, "train")


def test_wrong_lists_are_named(tmp_path):
  raw_data.ucf101(tmp_path, tmp_path)
  refused = lambda message, *args: pytest.raises(ValueError, match=message)
  path = tmp_path / "trainlist01.txt"
  path.write_text("ApplyEyeMakeup/gone.avi 1\nApplyEyeMakeup/away.avi 1\n")
  listing = _listing("ucf101", tmp_path, "train")
  with refused("^2 of 2 .*: ApplyEyeMakeup/gone.avi, .*--max_broken"):
    entries.Folder(listing)
  path.write_text("Sleeping/v_Sleeping_g01_c01.avi 1\n")
  with refused("trainlist01.txt: .*'Sleeping'.* 2 known"):
    _listing("ucf101", tmp_path, "train")
  (tmp_path / "classInd.txt").write_text("1 ApplyEyeMakeup\n3 Archery\n")
  with refused("classInd.txt: expected lines '1 Apply"):
    _listing("ucf101", tmp_path, "train")
  with refused("lacks the official list trainlist02.txt|classInd.txt"):
    _listing("ucf101", tmp_path, "train", fold=2)
  with refused("dataset.fold=4 .*1, 2 or 3"):
    _listing("ucf101", tmp_path, "train", fold=4)
  with refused("dataset.path='.*none' is no folder"):
    _listing("ucf101", tmp_path / "none", "train")
  with refused("dataset.lists='.*none' is no folder"):
    _listing("ucf101", tmp_path, "train", lists=tmp_path / "none")


def test_lists_of_another_format_are_named(tmp_path):
  (tmp_path / "train.csv").write_text("id,label\n1,a\n")
  with pytest.raises(
    ValueError, match=r"train.csv: .*youtube_id.*\['id', 'label"
  ):
    _listing("kinetics600", tmp_path, "train")
  raw_data.ssv2(tmp_path)
  (tmp_path / "labels.json").write_text(json.dumps({"a": "0", "b": "2"}))
  with pytest.raises(ValueError, match="labels.json: .* 0 "):
    _listing("ssv2", tmp_path, "train")


@pytest.mark.parametrize(
  "file, text, message",
  [
    ("labels.json", "[]", "it is a list of 0, expected an object"),
    ("labels.json", '{"a": "x"}', "a is 'x', expected a text of digits or a"),
    ("labels.json", '{"a": null}', "a is null, expected a text of digits"),
    ("train.json", "{}", "it is an object of 0, expected a list"),
    ("train.json", '[{"id": "7"}]', ".0..template is null, expected a text"),
    ("train.json", "[" * 10**5, "nests lists and objects more than 32 deep"),
  ],
)
def test_lists_of_another_kind_are_named(tmp_path, file, text, message):
  (tmp_path / "labels.json").write_text('{"Holding something": "0"}')
  (tmp_path / "train.json").write_text("[]")
  (tmp_path / file).write_text(text)
  with pytest.raises(ValueError, match=f"{file}.*{message}"):
    folders.listing("ssv2", str(tmp_path), str(tmp_path), "train", 1)
