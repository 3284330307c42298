"""Tests of prepare, media_shards and reencode: raw media to shards and back."""

import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from input_pipeline import prepare
from input_pipeline.decoding import frame_reader
from input_pipeline.decoding import media
from input_pipeline.decoding import reencode
from input_pipeline.sources import folders
from input_pipeline.sources import media_shards
from storage import shards
from tests import raw_data


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
  """UCF-101 with four training videos, and the lists beside the classes."""
  root = tmp_path_factory.mktemp("raw")
  raw_data.ucf101(root, root)
  return root


def _listing(root, split="train"):
  return folders.listing("ucf101", str(root), "", split, 1)


def _prepare(root, output, encoding=None, **changes):
  settings = dict(examples_per_shard=3, **changes)
  listing = _listing(root)
  return prepare.prepare(
    listing, "ucf101", "train", str(output), encoding, **settings
  )


def _store(output):
  store = media_shards.MediaShards(str(output), "train")
  return store, [store[i] for i in range(len(store))]


def test_the_command_makes_shards_of_the_files_own_bytes(raw, tmp_path):
  subprocess.run(
    [
      *(sys.executable, "-m", "input_pipeline.prepare", "--format=ucf101"),
      *(f"--input={raw}", f"--output={tmp_path}", "--workers=2"),
      "--examples_per_shard=3",
    ],
    check=True,
  )
  store, examples = _store(tmp_path)
  assert store.class_names == ("ApplyEyeMakeup", "HandstandPushups")
  assert len(os.listdir(tmp_path / "train")) == 3  # two shards, one manifest
  for entry, example in zip(_listing(raw).entries, examples, strict=True):
    assert example.name == entry.name and example.label == entry.label
    with open(entry.files[0], "rb") as f:
      assert example.parts == (f.read(),)
  whole = [len(frame_reader.read(example, range)) for example in examples]
  assert store.lengths == whole
  manifest = json.loads((tmp_path / "train" / "media.json").read_text())
  assert manifest["examples"] == 4 and manifest["broken"] == 0


def test_an_interrupted_run_goes_on_and_makes_the_same(
  raw, tmp_path, in_this_process, monkeypatch
):
  whole = _prepare(raw, tmp_path / "whole")
  made = []
  original = prepare._write_shard

  def killed_in_the_second(name):
    if made:
      raise KeyboardInterrupt
    made.append(name)
    return original(name)

  monkeypatch.setattr(prepare, "_write_shard", killed_in_the_second)
  with pytest.raises(KeyboardInterrupt):
    _prepare(raw, tmp_path / "parts")
  with pytest.raises(ValueError, match="parts/train .*input_pipeline.prepare"):
    media_shards.MediaShards(str(tmp_path / "parts"), "train")

  def counted(name):
    made.append(name)
    return original(name)

  monkeypatch.setattr(prepare, "_write_shard", counted)
  assert _prepare(raw, tmp_path / "parts") == whole
  assert made == [shard["name"] for shard in whole["shards"]]
  # A shard that is lost later is made again, and nothing else.
  lost = whole["shards"][0]["name"]
  os.remove(tmp_path / "parts/train" / lost)
  assert _prepare(raw, tmp_path / "parts") == whole
  assert made[2:] == [lost]


def test_broken_files_are_left_out_and_listed(tmp_path, in_this_process):
  raw_data.ucf101(tmp_path, tmp_path)
  empty, gone, _, cut = (tmp_path / e.name for e in _listing(tmp_path).entries)
  empty.write_bytes(b"")
  gone.unlink()
  raw_data.video(tmp_path / "whole.mp4", raw_data.frames(9, 0))
  cut.write_bytes((tmp_path / "whole.mp4").read_bytes()[:-300])
  output = tmp_path / "out"
  with pytest.raises(ValueError, match="of 4 .*--max_broken=0.01"):
    _prepare(tmp_path, output)
  with pytest.raises(ValueError, match=f"{gone.name}: it is listed"):
    _prepare(tmp_path, output)
  manifest = _prepare(tmp_path, output, max_broken=0.75)
  reasons = dict(p for s in manifest["shards"] for p in s["broken"])
  assert manifest["broken"] == 3 and manifest["examples"] == 1
  assert (
    "neither an image that Pillow reads"
    in reasons[f"ApplyEyeMakeup/{empty.name}"]
  )
  assert f"cannot read {cut}" in reasons[f"HandstandPushups/{cut.name}"]
  store, (example,) = _store(output)
  assert len(store) == 1 and example.label == 1


def test_names_that_are_no_utf8_are_kept(tmp_path, in_this_process):
  odd = os.fsdecode(b"v_\xff\n1.png")
  raw_data.image(tmp_path / "train" / "a" / odd, 0)
  cut = os.fsdecode(b"w\xff\n.png")
  (tmp_path / "train/a" / cut).symlink_to(tmp_path / "nowhere")
  # Without such a folder one of the two would be held out.
  raw_data.image(tmp_path / "held_out" / "a" / "0.png", 0)
  listing = folders.listing("mine", str(tmp_path), "", "train", 1)
  output = tmp_path / "out"
  manifest = prepare.prepare(
    listing, "mine", "train", str(output), max_broken=0.5
  )
  (broken,) = manifest["shards"][0]["broken"]
  assert broken[0] == r"train/a/w\xff\n.png" and "No such file" in broken[1]
  assert r"train/a/w\xff\n.png: " in broken[1] and broken[1].isprintable()
  _, (example,) = _store(output)
  assert example.name == f"train/a/{odd}"


def test_a_folder_of_other_examples_is_refused(raw, tmp_path, in_this_process):
  _prepare(raw, tmp_path)
  refused = lambda message: pytest.raises(ValueError, match=message)
  with refused("encoding is {} there .*16.* here"):
    _prepare(raw, tmp_path, reencode.Encoding(16, 0, 18, 6, 95))
  (tmp_path / "mine").mkdir()
  (tmp_path / "mine/train").mkdir()
  (tmp_path / "mine/train/x").write_text("")
  with refused("mine/train .* .no media.json.*--output"):
    _prepare(raw, tmp_path / "mine")
  with refused(r"--max_broken=2 .*\[0, 1\]"):
    _prepare(raw, tmp_path, max_broken=2)


def test_damaged_shards_are_named(raw, tmp_path, in_this_process):
  manifest = _prepare(raw, tmp_path)
  prepare.check(str(tmp_path))
  path = tmp_path / "train" / manifest["shards"][1]["name"]
  whole = path.read_bytes()
  path.write_bytes(whole[:-1])
  with pytest.raises(ValueError, match="00001-of-00002.* damaged: expected"):
    media_shards.MediaShards(str(tmp_path), "train")
  path.write_bytes(whole[:99] + bytes([whole[99] ^ 1]) + whole[100:])
  media_shards.MediaShards(str(tmp_path), "train")
  with pytest.raises(ValueError, match="00001-of-.* damaged: expected sha256"):
    prepare.check(str(tmp_path))
  path.unlink()
  with pytest.raises(ValueError, match="lacks .*00001-of-00002.*prepare"):
    prepare.check(str(tmp_path))
  (tmp_path / "train/media.json").write_text(json.dumps({"shards": []}))
  with pytest.raises(ValueError, match="media.json .*input_pipeline.prepare"):
    media_shards.MediaShards(str(tmp_path), "train")


def test_copies_are_close_smaller_and_easy_to_seek(raw, tmp_path):
  encoding = reencode.Encoding(24, fps=0, crf=8, keyframes=3, quality=95)
  for entry in _listing(raw).entries[:2]:
    encoded = frame_reader.Encoded(entry.name, entry.label, entry.files)
    copy, length = reencode.reencode(encoded, encoding)
    before = np.stack(frame_reader.read(encoded, range)).astype(float)
    after = np.stack(frame_reader.read(copy, range)).astype(float)
    assert after.shape == (length, 24, 32, 3) and length == len(before)
    halves = before.reshape(length, 24, 2, 32, 2, 3).mean((2, 4))
    luma = (after - halves) @ [0.299, 0.587, 0.114]  # 4:2:0 halves the rest
    assert 10 * np.log10(255**2 / np.square(luma).mean()) > 33
    index = frame_reader._index(copy.parts[0])
    assert index.keyframes == index.times[::3]


def test_copies_at_another_frame_rate_show_the_frame_of_each_time(tmp_path):
  path = tmp_path / "a.mp4"
  raw_data.video(path, raw_data.frames(20, 1), crf="1")  # 25 a second
  encoded = frame_reader.Encoded("a", 0, (str(path),))
  before = np.stack(frame_reader.read(encoded, range)).astype(float)
  for fps, shown in ((10, [0, 2, 5, 7, 10, 12, 15, 17]), (50, None)):
    encoding = reencode.Encoding(0, fps, crf=1, keyframes=3, quality=95)
    copy, length = reencode.reencode(encoded, encoding)
    after = np.stack(frame_reader.read(copy, range)).astype(float)
    nearest = [np.square(before - f).mean((1, 2, 3)).argmin() for f in after]
    assert nearest == (shown or [i // 2 for i in range(40)])
    assert length == len(after)


def test_images_and_folders_of_frames_become_jpeg(tmp_path):
  raw_data.bair(tmp_path)
  entry = folders.listing("bair", str(tmp_path), "", "train", 1).entries[0]
  encoded = frame_reader.Encoded(entry.name, 0, entry.files)
  copy, length = reencode.reencode(
    encoded, reencode.Encoding(0, 0, 18, 12, quality=95)
  )
  assert length == 11 and copy.parts[3][:3] == b"\xff\xd8\xff"
  np.testing.assert_allclose(
    frame_reader.read(copy, range), frame_reader.read(encoded, range), atol=25
  )
  unpacked = media_shards.unpack(media_shards.pack(copy))
  assert unpacked == copy
  raw_data.image(tmp_path / "a.png", 0, height=40, width=61)
  image = frame_reader.Encoded("a", 0, (str(tmp_path / "a.png"),))
  copy, length = reencode.reencode(
    image, reencode.Encoding(20, 0, 18, 12, quality=95)
  )
  assert length == 1
  assert list(media.pillow_frames(copy.parts[0]))[0].shape == (20, 30, 3)


@pytest.mark.parametrize("damaged", ["shard", "note", "zeros"])
def test_what_a_power_loss_cut_is_made_again(
  raw, tmp_path, in_this_process, monkeypatch, caplog, damaged
):
  _prepare(raw, tmp_path / "whole")
  expected = _store(tmp_path / "whole")[1]
  finish = prepare._finish
  monkeypatch.setattr(prepare, "_finish", lambda *_: None)
  _prepare(raw, tmp_path / "cut")
  monkeypatch.setattr(prepare, "_finish", finish)
  name = "media-00001-of-00002.arrayrecord"
  path = (
    tmp_path
    / "cut"
    / "train"
    / (f".{name}.json" if damaged == "note" else name)
  )
  data = path.read_bytes()
  path.write_bytes(bytes(len(data)) if damaged == "zeros" else data[:10])
  _prepare(raw, tmp_path / "cut")
  assert f"{name} is made again" in caplog.text
  assert _store(tmp_path / "cut")[1] == expected


def test_forged_examples_are_named(raw, tmp_path, in_this_process):
  _prepare(raw, tmp_path)
  folder, path = tmp_path / "train", tmp_path / "train" / "media.json"
  name = "media-00001-of-00002.arrayrecord"
  (example,) = _store(tmp_path)[1][3:]
  for changes, message in (
    (dict(label=-7), "label is -7, expected one in 0..1"),
    (dict(label=2), "label is 2, expected one in 0..1"),
    (dict(parts=(b"",)), "0 bytes cannot be files of .0. bytes"),
  ):
    forged = dataclasses.replace(example, **changes)
    shards.write(str(folder / name), [media_shards.pack(forged)])
    manifest = json.loads(path.read_text())
    manifest["shards"][1] |= vars(shards.describe(str(folder), name))
    path.write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=f"{name}: record 0 .*{message}"):
      _store(tmp_path)


def test_settings_that_cannot_work_are_refused():
  for field, value in (("crf", 52), ("keyframes", 0), ("quality", 100)):
    fields = dict(short_side=0, fps=0, crf=18, keyframes=12, quality=95)
    with pytest.raises(ValueError, match=f"--{field}={value} .*\\.\\."):
      reencode.Encoding(**{**fields, field: value})
