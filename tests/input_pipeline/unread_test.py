"""Tests that a field about data is read, or refused by its name."""

import glob
import importlib
import pathlib

import pytest

from configs import base
from input_pipeline import unread

_CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
_ROWS = [
  (name, arg)
  for name in sorted(
    pathlib.Path(path).stem for path in glob.glob(f"{_CONFIGS}/*.py")
  )
  for arg in getattr(importlib.import_module(f"configs.{name}"), "VARIANTS", ())
]


def _dataset(**changes):
  dataset = base.common().dataset
  with dataset.unlocked():
    dataset.update(changes)
  return dataset


@pytest.mark.parametrize("name, arg", _ROWS)
def test_rows_give_no_field_in_vain(name, arg):
  dataset = importlib.import_module(f"configs.{name}").get_config(arg).dataset
  assert unread.check(dataset) is None


@pytest.mark.parametrize("name", ["digits", "photo"])
@pytest.mark.parametrize(
  "field, value",
  [
    ("path", "/my/videos"),
    ("lists", "/my/lists"),
    ("held_out", "val"),
    ("fold", 2),
    ("mixture", ("1:/my/shards",)),
    ("stride", 2),
    ("train_window", "first"),
    ("eval_window", "ends"),
    ("short_videos", "hold"),
    ("train_crop", "centre"),
    ("eval_crop", "three"),
    ("short_side", 64),
    ("flip", True),
    ("scale", (0.5, 1.0)),
    ("filter", "box"),
  ],
)
def test_embedded_sets_read_no_files(name, field, value):
  match = rf"^dataset.{field}=.* is not read: .*'{name}' is embedded .*format="
  with pytest.raises(ValueError, match=match + "auto .*leave it out"):
    unread.check(_dataset(name=name, **{field: value}))


def test_joint_images_of_files_are_resized_beside_embedded_clips():
  joint = dict(joint_images=2, joint_format="auto", joint_path="/x")
  assert unread.check(_dataset(filter="box", **joint)) is None


@pytest.mark.parametrize(
  "changes, expected",
  [
    (dict(name="photo", motion="cross"), "dataset.motion='cross' is not read"),
    (dict(format="auto", name="mine", motion="cross"), "dataset.motion='cr"),
    (dict(name="photo", labels="motion"), "labels='motion' is not read"),
    (dict(format="auto", name="mine", labels="motion"), "labels='motion' is"),
    (dict(format="auto"), "dataset.name='digits' is an embedded .*name=NAME"),
    (dict(format="auto", name="mine", lists="l"), "lists='l' is not read"),
    (dict(format="auto", name="ssv2", fold=2), "fold=2 .*'ucf101' alone"),
    (dict(format="shards", name="ucf101", fold=2), "--fold of `prepare`"),
    (dict(format="tfds", name="ucf101", lists="l"), "lists='l' .* own splits"),
    (dict(joint_path="x"), "joint_path='x' is not read: .*joint_images=N"),
    (dict(joint_images=2, joint_path="x"), "joint_path='x' .*_format=auto"),
    (dict(joint_images=2, joint_flip=False), "joint_flip=False is not read"),
  ],
)
def test_what_a_set_does_not_have_is_not_taken(changes, expected):
  with pytest.raises(ValueError, match=expected):
    unread.check(_dataset(**changes))
  assert unread.check(_dataset(format="folder", name="mine", path="x")) is None
