"""Tests of folders of one's own: forms, splits, stills and videos."""

import pytest

from configs import tokenizer_image
from configs import tokenizer_video
from input_pipeline import pipeline
from input_pipeline.sources import entries
from input_pipeline.sources import folders
from tests import raw_data


def _listing(path, split="train", **settings):
  return folders.listing("own", str(path), "", split, 1, **settings)


def _names(listing):
  return {entry.name for entry in listing.entries}


@pytest.mark.parametrize("top", ["", "train/"])
@pytest.mark.parametrize("form", ["flat", "classes"])
def test_both_splits_of_one_folder(tmp_path, top, form, caplog):
  entries.say_once.cache_clear()
  names = {
    f"{top}{'ab'[i % 2] + '/' if form == 'classes' else ''}{i}.png"
    for i in range(20)
  }
  for name in names:
    raw_data.image(tmp_path / name, 0)
  (tmp_path / ".hidden").mkdir()
  with caplog.at_level("INFO"):
    train, held_out = _listing(tmp_path), _listing(tmp_path, "held_out")
  assert _names(train) | _names(held_out) == names
  assert not _names(train) & _names(held_out)
  classes = ("a", "b") if form == "classes" else ()
  assert train.class_names == held_out.class_names == classes
  for entry in (*train.entries, *held_out.entries):
    assert entry.label == ("b/" in entry.name)
  line = f"{len(_names(held_out))} of its 20 are held out by their names"
  assert caplog.text.count(line) == 1
  more = _listing(tmp_path, "held_out", held_out_share=0.5)
  assert _names(held_out) < _names(more)


def test_the_place_of_a_file_does_not_depend_on_the_folder_train(tmp_path):
  for i in range(30):
    raw_data.image(tmp_path / f"one/{i}.png", 0)
    raw_data.image(tmp_path / f"two/train/{i}.png", 0)
  one = _names(_listing(tmp_path / "one", "held_out"))
  two = _names(_listing(tmp_path / "two", "held_out"))
  assert {f"train/{name}" for name in one} == two


def test_flat_folders_of_both_splits(tmp_path):
  raw_data.image(tmp_path / "train/a.png", 0)
  raw_data.image(tmp_path / "val/b.png", 0)
  assert _names(_listing(tmp_path)) == {"train/a.png"}
  assert _names(_listing(tmp_path, "held_out")) == {"val/b.png"}
  raw_data.image(tmp_path / "test/c/d.png", 0)
  with pytest.raises(ValueError, match="train and .*test has folders of class"):
    _listing(tmp_path, "held_out", held_out="test")


def test_pictures_beside_folders_of_classes_are_refused(tmp_path):
  raw_data.image(tmp_path / "a/1.png", 0)
  raw_data.image(tmp_path / "2.png", 0)
  with pytest.raises(ValueError, match="(?s)^.* 1 images .*2.png.* 'a', .*put"):
    _listing(tmp_path)
  (tmp_path / "a/1.png").unlink()  # the folder may hold something else
  raw_data.image(tmp_path / "3.png", 0)
  assert len(_listing(tmp_path).entries) == 1


def test_what_lies_beside_train_is_said_to_be_left_out(tmp_path, caplog):
  entries.say_once.cache_clear()
  for name in ("train", "val", "plane"):
    raw_data.image(tmp_path / name / "1.png", 0)
  with caplog.at_level("INFO"):
    assert _names(_listing(tmp_path)) == {"train/1.png"}
  assert "not read" in caplog.text and caplog.text.count("plane") == 1


def test_too_little_is_refused_by_name(tmp_path):
  with pytest.raises(ValueError, match="has no 'train' images or videos"):
    _listing(tmp_path)
  raw_data.image(tmp_path / "1.png", 0)
  for split in ("train", "held_out"):
    with pytest.raises(ValueError, match="one image or video, 1.png, .*others"):
      _listing(tmp_path, split)
  (tmp_path / "val").mkdir()
  with pytest.raises(ValueError, match=r"\['train'\] .*put its files there"):
    _listing(tmp_path)
  with pytest.raises(ValueError, match="held_out_share=1 must be above 0"):
    _listing(tmp_path, held_out_share=1)


def _dataset(module, path):
  dataset = module.get_config("folder64").dataset
  dataset.path = str(path)
  return dataset


def test_pictures_are_no_clips_and_videos_give_a_frame_each(tmp_path, caplog):
  entries.say_once.cache_clear()
  for i in range(3):
    raw_data.image(tmp_path / f"pictures/{i}.png", i)
    raw_data.video(tmp_path / f"videos/{i}.mp4", raw_data.frames(4, i))
  with pytest.raises(ValueError, match="is a picture.*frames=9: .*image.*2 of"):
    pipeline.source(_dataset(tokenizer_video, tmp_path / "pictures"), "train")
  clips = pipeline.source(
    _dataset(tokenizer_video, tmp_path / "videos"), "train"
  )
  assert clips[0]["video"].shape == (9, 64, 64, 3)  # the last frame is held
  images = _dataset(tokenizer_image, tmp_path / "videos")
  with caplog.at_level("INFO"):
    assert pipeline.source(images, "train")[0]["video"].shape == (1, 64, 64, 3)
  assert "one frame of each of 2 videos" in caplog.text
