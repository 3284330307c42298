"""Tests of magvit/modes/tokenize.py."""

import json
import logging
import pathlib

import jax
import numpy as np
import pytest

from input_pipeline import pipeline
from input_pipeline.sources import token_shards
from magvit import mesh as mesh_lib
from magvit.tokenizer import describe
from magvit.tokenizer import fingerprint
from storage import shards
from tests import tiny
from tests import token_folders

_NAMES = [f"tokens-{i:05}-of-00003.arrayrecord" for i in range(3)]


def _bytes(folder):
  return {p.name: p.read_bytes() for p in pathlib.Path(folder).iterdir()}


def test_what_is_read_is_what_the_tokenizer_says(
  folder, tiny_tokenizer_workdir
):
  """The function of the Python interface says it, on one device."""
  mesh = mesh_lib.make_mesh(tiny.tokenizer().mesh, jax.devices()[:1])
  network, params = describe.restore_tokenizer(tiny_tokenizer_workdir, mesh)
  encode = jax.jit(describe.predict_functions(network)["encode"])
  stored = token_shards.TokenShards(str(folder))
  clips = pipeline.source(tiny.tokenizer().dataset, "train")
  assert len(stored) == token_folders.NUM
  places = [0, 15, 16, 31, 32, 39]  # ends of shards; the last is padded
  video = np.stack([clips[i]["video"] for i in places])
  hidden = video.copy()
  hidden[:, :, 4:12, 4:12] = 0  # the centre, which inpainting hides
  expected = encode(
    {"tokenizer": params}, {"video": np.concatenate([video, hidden])}, None
  )
  ids = [
    stored[i][key]
    for key in ("ids", "condition/central_inpainting")
    for i in places
  ]
  np.testing.assert_array_equal(np.stack(ids), expected)
  for i in places:
    assert stored[i]["label"] == clips[i]["label"]


def test_the_manifest_says_what_the_numbers_mean(
  folder, tiny_tokenizer_workdir
):
  manifest = json.loads((folder / "tokens.json").read_text())
  assert [shard["name"] for shard in manifest["shards"]] == _NAMES
  assert not (folder / "unfinished.json").exists()
  for field, value in {
    "tokenizer": fingerprint.read_fingerprint(tiny_tokenizer_workdir),
    "examples": 40,
    "clip_shape": [5, 16, 16],
    "latent_shape": [3, 8, 8],
    "vocabulary": 64,
    "bits": 6,
    "dtype": "uint8",
    "tasks": token_folders.COMMIT_TASKS,
  }.items():
    assert manifest[field] == value, field
  assert "channel 0 is the least significant bit" in manifest["ids"]
  _, shards = token_shards.FORMAT.read(str(folder))
  record = token_shards.unpack(
    token_shards.FORMAT.open(str(folder), shards[1:2], [token_folders.SHARD])[0]
  )
  assert record["ids"].dtype == np.uint8
  assert record["index"] == 16


def test_the_same_command_makes_only_what_is_missing(
  copied, fast_folder, tiny_tokenizer_workdir, caplog
):
  whole = _bytes(fast_folder)
  kept = copied / _NAMES[0]
  inode = kept.stat().st_ino
  # A kill in the third shard leaves the folder so, and a power loss cut the
  # second.
  (copied / _NAMES[1]).write_bytes(whole[_NAMES[1]][:70000])
  for name in (_NAMES[2], "tokens.json"):
    (copied / name).unlink()
  contents, _ = token_shards.FORMAT.read(str(fast_folder))
  (copied / "unfinished.json").write_text(shards.to_json(contents))
  with caplog.at_level(logging.INFO, "storage"):
    token_folders.write(tiny_tokenizer_workdir, copied)
  assert _bytes(copied) == whole
  assert kept.stat().st_ino == inode
  assert "tokens 24/24 (100%)" in caplog.text
  assert f"{_NAMES[1]} is damaged: it is made again" in caplog.text
  # A folder that was finished is mended likewise.
  (copied / _NAMES[2]).unlink()
  with caplog.at_level(logging.INFO, "storage"):
    token_folders.write(tiny_tokenizer_workdir, copied)
  assert _bytes(copied) == whole
  assert "tokens 8/8 (100%)" in caplog.text


def test_a_kill_leaves_no_shard_that_looks_finished(
  fast_folder, tiny_tokenizer_workdir, tmp_path, monkeypatch
):
  killed, pack, packed = tmp_path / "killed", token_shards.pack, []

  def pack_some(record):
    packed.append(record)
    if len(packed) == token_folders.SHARD + 5:
      raise KeyboardInterrupt
    return pack(record)

  with monkeypatch.context() as patch:
    patch.setattr(token_shards, "pack", pack_some)
    with pytest.raises(KeyboardInterrupt):
      token_folders.write(tiny_tokenizer_workdir, killed)
  visible = {p.name for p in killed.iterdir() if p.name[0] != "."}
  assert visible == {_NAMES[0], "unfinished.json"}
  with pytest.raises(ValueError, match="holds no tokens.json"):
    token_shards.TokenShards(str(killed))
  token_folders.write(tiny_tokenizer_workdir, killed)
  assert _bytes(killed) == _bytes(fast_folder)


def test_processes_share_the_shards(
  fast_folder, tiny_tokenizer_workdir, tmp_path
):
  shared = tmp_path / "shared"
  part = lambda index: token_folders.write(
    tiny_tokenizer_workdir, shared, process_index=index, process_count=2
  )
  with pytest.raises(ValueError, match=f"still lacks 1 of 3 .* {_NAMES[1]}"):
    part(0)
  assert not (shared / "tokens.json").exists()
  part(1)
  part(0)
  assert _bytes(shared) == _bytes(fast_folder)


def test_a_damaged_shard_is_named_and_never_taken_for_good(
  copied, tiny_tokenizer_workdir
):
  path = copied / _NAMES[1]
  path.write_bytes(path.read_bytes()[:-1] + b"!")
  before = _bytes(copied)
  with pytest.raises(ValueError, match=f"shard {_NAMES[1]} .* is damaged"):
    token_folders.write(tiny_tokenizer_workdir, copied)
  assert _bytes(copied) == before


def test_folders_of_something_else_are_left_alone(
  copied, tiny_tokenizer_workdir, tmp_path
):
  before = _bytes(copied)
  refused = lambda match: pytest.raises(ValueError, match=match)
  with refused("holds other tokens: examples is 40 there and 41 here"):
    token_folders.write(tiny_tokenizer_workdir, copied, num=41)
  with refused("dataset is .*'train'.* there and .*'held_out'"):
    token_folders.write(tiny_tokenizer_workdir, copied, split="held_out")
  with refused(r"tasks is .*central_inpainting.* there and \[\] here"):
    token_folders.write(tiny_tokenizer_workdir, copied, tasks=[])
  with refused("tokenizer is .* there"):
    token_folders.write(token_folders.other_tokenizer(tmp_path), copied)
  assert _bytes(copied) == before
  foreign = tmp_path / "foreign"
  foreign.mkdir()
  (foreign / "notes.txt").write_text("mine")
  with refused("is not empty and holds no tokens .no tokens.json"):
    token_folders.write(tiny_tokenizer_workdir, foreign)
  assert _bytes(foreign) == {"notes.txt": b"mine"}
  with refused("cannot write to .*notes.txt"):
    token_folders.write(tiny_tokenizer_workdir, foreign / "notes.txt")


def test_the_conditions_of_a_generators_tasks_are_stored(
  fast, tiny_tokenizer_workdir, tmp_path
):
  config = tiny.masked(str(tiny_tokenizer_workdir))
  for task in token_folders.COMMIT_TASKS[1:]:
    config.tasks[task] = 0.0
  token_folders.write(
    tiny_tokenizer_workdir, tmp_path / "tokens", config=config
  )
  manifest = json.loads((tmp_path / "tokens" / "tokens.json").read_text())
  assert manifest["tasks"] == ["interpolation"]


@pytest.mark.parametrize(
  "arguments, message",
  [
    (dict(num=None), "'digits' is endless: say with --num=N"),
    (dict(num=0), r"--num=0 must be in 1\.\."),
    (dict(split="test"), "split='test' must be one of"),
    (dict(tasks=["frame_prediction"]), "--tasks=frame_prediction must name"),
    (
      dict(tasks=["inpainting"]),
      "must name some of .'interpolation', 'central",
    ),
  ],
)
def test_arguments_that_cannot_work_are_refused(
  arguments, message, fast, tiny_tokenizer_workdir, tmp_path
):
  with pytest.raises(ValueError, match=message):
    token_folders.write(
      tiny_tokenizer_workdir, tmp_path / "tokens", **arguments
    )
  assert not (tmp_path / "tokens").exists()


def test_a_generator_with_hints_trains_from_clips(
  fast, tiny_tokenizer_workdir, tmp_path
):
  config = tiny.masked(str(tiny_tokenizer_workdir))
  config.transformer.condition_hints = True
  with pytest.raises(
    ValueError, match="--config=tiny generator: .*hints=False"
  ):
    token_folders.write(
      tiny_tokenizer_workdir, tmp_path / "tokens", config=config
    )
  assert not (tmp_path / "tokens").exists()
