"""Tests of magvit/modes/tokenize.py, and of training on what it writes."""

import dataclasses
import functools
import json
import logging
import math
import os
import pathlib
import shutil

import jax
import ml_collections
import numpy as np
import pytest

from input_pipeline import pipeline
from input_pipeline.sources import token_shards
from magvit import mesh as mesh_lib
from magvit.generators import masked
from magvit.generators import tasks as tasks_lib
from magvit.generators import tokens as tokens_lib
from magvit.modes import tokenize as tokenize_mode
from magvit.tokenizer import describe
from magvit.tokenizer import fingerprint
from magvit.training import loop
from magvit.workdir import folder as workdir_lib
from magvit.workdir import weights as weights_lib
from storage import shards
from tests import tiny

_NUM = 40
_SHARD = 16  # clips
_NAMES = [f"tokens-{i:05}-of-00003.arrayrecord" for i in range(3)]

_COMMIT_TASKS = [
  "interpolation",
  "central_outpainting",
  "vertical_outpainting",
  "horizontal_outpainting",
  "dynamic_outpainting",
  "central_inpainting",
  "dynamic_inpainting",
]


def _tokenize(workdir, folder, num=_NUM, **arguments):
  arguments = {"examples_per_shard": _SHARD, **arguments}
  tokenize_mode.tokenize(str(workdir), str(folder), num=num, **arguments)


@pytest.fixture(scope="module")
def folder(tiny_tokenizer_workdir, tmp_path_factory):
  """Tokens of 40 clips in three shards, made by one process."""
  path = tmp_path_factory.mktemp("tokens") / "digits"
  _tokenize(tiny_tokenizer_workdir, path)
  return path


def _encode_fast(contents, tokens, mesh):
  """An encoder without a network, for tests of files."""
  del tokens, mesh
  keys = ["ids", *(token_shards.CONDITION + task for task in contents.tasks)]

  def run(video_BTHWC):
    pixels_BN = video_BTHWC.reshape(len(video_BTHWC), -1)
    ids_BN = pixels_BN[:, -math.prod(contents.latent_shape) :] % 64
    return dict.fromkeys(keys, ids_BN)

  return run


_open_tokenizer = tokens_lib.open_tokenizer
_open = functools.cache(
  lambda workdir, dataset: _open_tokenizer(
    ml_collections.ConfigDict(
      {"tokenizer_workdir": workdir, "dataset": json.loads(dataset)}
    ),
    mesh_lib.local_mesh(),
  )
)
_fingerprint_of = functools.cache(fingerprint.read_fingerprint)


@pytest.fixture
def fast(monkeypatch):
  """Replaces the network, and reads a tokenizer once."""
  monkeypatch.setattr(tokenize_mode, "_encoder", _encode_fast)
  monkeypatch.setattr(
    tokens_lib,
    "open_tokenizer",
    lambda config, mesh, abstract=False: _open(
      config.tokenizer_workdir, config.dataset.to_json(sort_keys=True)
    ),
  )
  monkeypatch.setattr(fingerprint, "read_fingerprint", _fingerprint_of)


@pytest.fixture
def fast_folder(fast, tiny_tokenizer_workdir, tmp_path):
  """The same as `folder`, with other ids."""
  path = tmp_path / "digits"
  _tokenize(tiny_tokenizer_workdir, path)
  return path


@pytest.fixture
def copied(fast_folder, tmp_path):
  return shutil.copytree(fast_folder, tmp_path / "copied")


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
  assert len(stored) == _NUM
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
    "tasks": _COMMIT_TASKS,
  }.items():
    assert manifest[field] == value, field
  assert "channel 0 is the least significant bit" in manifest["ids"]
  _, shards = token_shards.FORMAT.read(str(folder))
  record = token_shards.unpack(
    token_shards.FORMAT.open(str(folder), shards[1:2], [_SHARD])[0]
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
    _tokenize(tiny_tokenizer_workdir, copied)
  assert _bytes(copied) == whole
  assert kept.stat().st_ino == inode
  assert "tokens 24/24 (100%)" in caplog.text
  assert f"{_NAMES[1]} is damaged: it is made again" in caplog.text
  # A folder that was finished is mended likewise.
  (copied / _NAMES[2]).unlink()
  with caplog.at_level(logging.INFO, "storage"):
    _tokenize(tiny_tokenizer_workdir, copied)
  assert _bytes(copied) == whole
  assert "tokens 8/8 (100%)" in caplog.text


def test_a_kill_leaves_no_shard_that_looks_finished(
  fast_folder, tiny_tokenizer_workdir, tmp_path, monkeypatch
):
  killed, pack, packed = tmp_path / "killed", token_shards.pack, []

  def pack_some(record):
    packed.append(record)
    if len(packed) == _SHARD + 5:
      raise KeyboardInterrupt
    return pack(record)

  with monkeypatch.context() as patch:
    patch.setattr(token_shards, "pack", pack_some)
    with pytest.raises(KeyboardInterrupt):
      _tokenize(tiny_tokenizer_workdir, killed)
  visible = {p.name for p in killed.iterdir() if p.name[0] != "."}
  assert visible == {_NAMES[0], "unfinished.json"}
  with pytest.raises(ValueError, match="holds no tokens.json"):
    token_shards.TokenShards(str(killed))
  _tokenize(tiny_tokenizer_workdir, killed)
  assert _bytes(killed) == _bytes(fast_folder)


def test_processes_share_the_shards(
  fast_folder, tiny_tokenizer_workdir, tmp_path
):
  shared = tmp_path / "shared"
  part = lambda index: _tokenize(
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
    _tokenize(tiny_tokenizer_workdir, copied)
  assert _bytes(copied) == before


def test_folders_of_something_else_are_left_alone(
  copied, tiny_tokenizer_workdir, tmp_path
):
  before = _bytes(copied)
  refused = lambda match: pytest.raises(ValueError, match=match)
  with refused("holds other tokens: examples is 40 there and 41 here"):
    _tokenize(tiny_tokenizer_workdir, copied, num=41)
  with refused("dataset is .*'train'.* there and .*'held_out'"):
    _tokenize(tiny_tokenizer_workdir, copied, split="held_out")
  with refused(r"tasks is .*central_inpainting.* there and \[\] here"):
    _tokenize(tiny_tokenizer_workdir, copied, tasks=[])
  with refused("tokenizer is .* there"):
    _tokenize(_other_tokenizer(tmp_path), copied)
  assert _bytes(copied) == before
  foreign = tmp_path / "foreign"
  foreign.mkdir()
  (foreign / "notes.txt").write_text("mine")
  with refused("is not empty and holds no tokens .no tokens.json"):
    _tokenize(tiny_tokenizer_workdir, foreign)
  assert _bytes(foreign) == {"notes.txt": b"mine"}
  with refused("cannot write to .*notes.txt"):
    _tokenize(tiny_tokenizer_workdir, foreign / "notes.txt")


def _other_tokenizer(tmp_path):
  """A workdir of the same config and other weights."""
  config = tiny.tokenizer()
  params = tiny.trained_like(describe.define_tokenizer(config))
  workdir = str(tmp_path / "other_tokenizer")
  weights_lib.save_average(workdir, 1, params)
  workdir_lib.write_config(workdir, config)
  return workdir


def _generator(workdir, folder=""):
  config = tiny.masked(str(workdir))
  config.tasks.class_conditional = 0.0
  config.dataset.tokens = str(folder)
  return config


@pytest.mark.slow
def test_training_from_tokens_is_training_from_pixels(
  folder, tiny_tokenizer_workdir
):
  """Losses and samples agree bit for bit, in prediction and inpainting."""
  mesh = mesh_lib.make_mesh(tiny.tokenizer().mesh, jax.devices()[:1])
  config = _generator(tiny_tokenizer_workdir)
  algorithm = masked.MaskedGenerator.build(config, mesh)
  drawn = jax.device_put(tiny.drawn_state(algorithm), mesh_lib.replicated(mesh))
  emitters = "xla_cpu_use_fusion_emitters"  # on by default, not in tests
  options = {emitters: True} if emitters in os.environ["XLA_FLAGS"] else {}
  runs, tasks = [], set()
  for tokens in ("", str(folder)):
    config.dataset.tokens = tokens
    data = pipeline.train_batches(config.dataset, config.batch_size)
    step, state, history = None, drawn, []
    for i in range(3):
      batch = mesh_lib.place_batch(next(data), mesh)
      assert ("video" in batch) == (tokens == "")
      arguments = (state, batch, jax.random.key(i))
      step = step or jax.jit(algorithm.step).lower(*arguments).compile(options)
      state, metrics = step(*arguments)
      history.append(jax.device_get(metrics))
      task_key = jax.random.split(jax.random.key(i), 4)[0]
      tasks.add(int(jax.random.categorical(task_key, np.zeros(2))))
    runs.append((history, state))
  assert tasks == {0, 1}  # both were trained
  jax.tree.map(np.testing.assert_array_equal, *runs)
  clips, _ = next(pipeline.eval_batches(config.dataset, "held_out", 8, 8))
  clips["task"] = np.int32(1)
  sample = jax.jit(algorithm.predict["sample"])
  pixels, tokens = (
    sample(state.predict_params(), clips, jax.random.key(0))["ids"]
    for _, state in runs
  )
  np.testing.assert_array_equal(pixels, tokens)


def _stored(folder, **changes):
  """Changes the folder's manifest, which is all that checks read."""
  path = folder / "tokens.json"
  fields = json.loads(path.read_text())
  path.write_text(json.dumps({**fields, **changes}))


def test_tokens_of_another_tokenizer_are_refused_before_training(
  fast_folder, tiny_tokenizer_workdir, tmp_path
):
  other = _other_tokenizer(tmp_path)
  config = _generator(other, fast_folder)
  made_by, used = (
    fingerprint.read_fingerprint(workdir)[:16]
    for workdir in (tiny_tokenizer_workdir, other)
  )
  with pytest.raises(ValueError, match=f"{made_by}, .* is {used}:"):
    loop.train(config, str(tmp_path / "run"))
  assert not (tmp_path / "run").exists()


def test_tokens_that_do_not_fit_a_generator_are_refused(
  copied, tiny_tokenizer_workdir
):
  def refused(match, **changes):
    config = _generator(tiny_tokenizer_workdir, copied)
    config.update_from_flattened_dict(changes)
    with pytest.raises(ValueError, match=match):
      tokens_lib.check_stored(config)

  tokens_lib.check_stored(_generator(tiny_tokenizer_workdir, copied))
  refused("made from size=16, .* needs size=32", **{"dataset.size": 32})
  refused("made from frames=5, .* frames=7", **{"dataset.frames": 7})
  refused("made from seed=0, .* needs seed=1", **{"dataset.seed": 1})
  refused("made from flip=False, .* needs flip=True", **{"dataset.flip": True})
  # A folder of before has no kind of labels: they are classes.
  refused("labels='class', .* labels='motion'", **{"dataset.labels": "motion"})
  for field, value in (("latent_shape", [1, 4, 4]), ("vocabulary", 128)):
    kept = json.loads((copied / "tokens.json").read_text())[field]
    _stored(copied, **{field: value})
    refused(f"says {field}=.* makes .* of such clips")
    _stored(copied, **{field: kept})
  refused("holds no tokens.json", **{"dataset.tokens": str(copied.parent)})
  _stored(copied, tasks=[])
  refused(r"tasks.interpolation=1.0 .* --tasks=interpolation,\.")
  # Tasks that are exact under a causal tokenizer need nothing stored.
  config = _generator(tiny_tokenizer_workdir, copied)
  for task in _COMMIT_TASKS:
    config.tasks[task] = 0.0
  tokens_lib.check_stored(config)
  held_out = {**tokens_lib.clips_of(config.dataset), "split": "held_out"}
  _stored(copied, dataset=held_out)
  refused("made from split='held_out', .* needs split='train'")


def test_condition_frames_count_where_a_stored_condition_depends_on_them(
  copied, tiny_tokenizer_workdir, monkeypatch
):
  config = _generator(tiny_tokenizer_workdir, copied)
  config.condition_frames = 1
  tokens_lib.check_stored(config)  # central inpainting does not read it
  by_frames = dataclasses.replace(
    tasks_lib.TASKS["central_inpainting"],
    given=tasks_lib.TASKS["frame_prediction"].given,
  )
  monkeypatch.setitem(tasks_lib.TASKS, "central_inpainting", by_frames)
  _stored(copied, condition_frames=3)
  with pytest.raises(ValueError, match="condition_frames=1 .* 3 "):
    tokens_lib.check_stored(config)
  config.condition_frames = 3
  tokens_lib.check_stored(config)


def test_tokenizers_train_from_pixels(fast_folder, tmp_path):
  config = tiny.tokenizer()
  config.dataset.tokens = str(fast_folder)
  with pytest.raises(ValueError, match="dataset.tokens=.* is for generators"):
    loop.train(config, str(tmp_path / "run"))


def test_the_conditions_of_a_generators_tasks_are_stored(
  fast, tiny_tokenizer_workdir, tmp_path
):
  config = tiny.masked(str(tiny_tokenizer_workdir))
  for task in _COMMIT_TASKS[1:]:
    config.tasks[task] = 0.0
  _tokenize(tiny_tokenizer_workdir, tmp_path / "tokens", config=config)
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
    _tokenize(tiny_tokenizer_workdir, tmp_path / "tokens", **arguments)
  assert not (tmp_path / "tokens").exists()


def test_a_generator_with_hints_trains_from_clips(
  fast, tiny_tokenizer_workdir, tmp_path
):
  config = tiny.masked(str(tiny_tokenizer_workdir))
  config.transformer.condition_hints = True
  with pytest.raises(
    ValueError, match="--config=tiny generator: .*hints=False"
  ):
    _tokenize(tiny_tokenizer_workdir, tmp_path / "tokens", config=config)
  assert not (tmp_path / "tokens").exists()
