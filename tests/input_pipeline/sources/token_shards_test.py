"""Tests of stored tokens as training reads them; the tokens are random."""

import json
import os
import pickle

import numpy as np
import pytest

from configs import base
from input_pipeline import pipeline
from input_pipeline.sources import token_shards
from storage import shards
from tests import coded_clips

_SHAPE = coded_clips.SHAPE


@pytest.fixture
def folder(tmp_path):
  """Ten clips in three shards."""
  coded_clips.write(tmp_path)
  return tmp_path


def _dataset(folder, **changes):
  dataset = base.tokenizer().dataset
  dataset.update(frames=5, size=16, tokens=str(folder))
  dataset.update(changes)
  return dataset


def _indices(dataset, steps, batch_size=4, **share):
  """Numbers of the clips that the batches hold, told by their tokens."""
  numbers = {coded_clips.record(i)["ids"].tobytes(): i for i in range(10)}
  data = pipeline.train_batches(dataset, batch_size, **share)
  batches = [next(data)["ids"].astype(np.uint8) for _ in range(steps)]
  return [[numbers[ids.tobytes()] for ids in batch] for batch in batches]


def test_shards_are_named_by_place_and_number():
  assert coded_clips.contents(examples=9).layout.names == [
    "tokens-00000-of-00003.arrayrecord",
    "tokens-00001-of-00003.arrayrecord",
    "tokens-00002-of-00003.arrayrecord",
  ]
  assert len(coded_clips.contents(examples=8).layout.names) == 2


def test_shards_hold_consecutive_clips_and_the_last_the_rest():
  layout = coded_clips.contents(examples=10).layout
  places = [list(layout.places(i)) for i in range(len(layout.names))]
  assert places == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_manifests_survive_json(tmp_path):
  described = [shards.Shard("a", 3, "0" * 64)]
  text = shards.to_json(coded_clips.contents(), described)
  (tmp_path / "tokens.json").write_text(text)
  expected = (coded_clips.contents(), described)
  assert token_shards.FORMAT.read(str(tmp_path)) == expected


def test_every_record_comes_back(folder):
  clips = token_shards.TokenShards(str(folder))
  assert len(clips) == 10
  for i in range(10):
    expected = coded_clips.record(i)
    del expected["index"]
    assert clips[i].keys() == expected.keys()
    for key, value in expected.items():
      np.testing.assert_array_equal(clips[i][key], value)
      assert clips[i][key].dtype == np.int32


def test_records_hold_no_pickle():
  data = token_shards.pack(coded_clips.record(0))
  header = int.from_bytes(data[:8], "little")
  assert data[8:9] == b"{" and b'"ids"' in data[8 : 8 + header]
  with pytest.raises(Exception, match="[Hh]eader"):
    token_shards.unpack(pickle.dumps(coded_clips.record(0)))


def test_batches_follow_the_order_of_the_clips_and_start_again(folder):
  expected = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 0, 1], [2, 3, 4, 5]]
  assert _indices(_dataset(folder), 4) == expected
  batch = next(pipeline.train_batches(_dataset(folder), 4))
  assert batch.keys() == {"ids", "label", "condition/central_inpainting"}
  np.testing.assert_array_equal(batch["label"], [0, 1, 2, 3])


def test_shuffling_is_anew_each_epoch_and_follows_the_seed(folder):
  epochs = lambda seed: _indices(
    _dataset(folder, shuffle=True, seed=seed), 3, batch_size=10
  )
  first = epochs(0)
  assert all(sorted(epoch) == list(range(10)) for epoch in first)
  assert first[0] != first[1] and first[1] != first[2]
  assert first == epochs(0)
  assert first != epochs(1)


def test_processes_share_each_batch_of_tokens(folder):
  dataset = _dataset(folder, shuffle=True)
  whole = _indices(dataset, 6)
  parts = [_indices(dataset, 6, parts=(p,), num_parts=2) for p in range(2)]
  for together, a, b in zip(whole, *parts, strict=True):
    assert together == a + b


def test_an_iterator_over_tokens_goes_on_where_its_state_was_taken(folder):
  start = lambda: pipeline.train_batches(_dataset(folder, shuffle=True), 4)
  data = start()
  for _ in range(3):  # into the second epoch
    next(data)
  state = data.get_state()
  expected = next(data)["ids"]
  resumed = start()
  resumed.set_state(state)
  np.testing.assert_array_equal(next(resumed)["ids"], expected)


def test_endless_sets_are_not_shuffled(folder):
  dataset = _dataset("", shuffle=True)
  with pytest.raises(ValueError, match="dataset.shuffle=True .*'digits'"):
    pipeline.train_batches(dataset, 4)


def test_a_damaged_shard_is_named(folder):
  path = folder / "tokens-00001-of-00003.arrayrecord"
  whole = path.read_bytes()
  flipped = bytearray(whole)
  flipped[len(whole) // 2] ^= 1
  for damaged in (bytes(flipped), whole[:-1]):
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match="shard tokens-00001-of-00003.array"):
      pipeline.train_batches(_dataset(folder), 4)
  os.remove(path)
  with pytest.raises(ValueError, match="lacks the shard tokens-00001-of-00003"):
    pipeline.train_batches(_dataset(folder), 4)


def test_folders_without_a_true_manifest_are_refused(folder):
  manifest = folder / "tokens.json"
  text = manifest.read_text()
  manifest.write_text(text.replace('"examples": 10', '"examples": 11'))
  with pytest.raises(ValueError, match="holds 10 examples, .* says 11"):
    pipeline.train_batches(_dataset(folder), 4)
  manifest.write_text('{"examples": 10}')
  with pytest.raises(ValueError, match="is no manifest of tokens"):
    pipeline.train_batches(_dataset(folder), 4)
  manifest.unlink()
  with pytest.raises(ValueError, match="holds no tokens.json"):
    pipeline.train_batches(_dataset(folder), 4)


def _forge(folder, number, **changes):
  """Writes another record with the index `number`, and mends the checksum."""
  contents = coded_clips.contents()
  shard = number // contents.examples_per_shard
  name = contents.layout.names[shard]
  records = [coded_clips.record(i) for i in contents.layout.places(shard)]
  records[number % contents.examples_per_shard].update(changes)
  shards.write(str(folder / name), map(token_shards.pack, records))
  described = [shards.describe(str(folder), n) for n in contents.layout.names]
  (folder / "tokens.json").write_text(shards.to_json(contents, described))


@pytest.mark.parametrize(
  "changes, message",
  [
    (dict(ids=np.full(_SHAPE, 64, np.uint8)), "ids holds 64, .* of 64"),
    (dict(ids=np.zeros((3, 2, 3), np.uint8)), r"ids is uint8 \(3, 2, 3\), exp"),
    (dict(ids=np.zeros(_SHAPE, np.int32)), "ids is int32 .* expected uint8"),
    (
      {"condition/central_inpainting": np.full(_SHAPE, 99, np.uint8)},
      "condition/central_inpainting holds 99",
    ),
    (dict(label=np.asarray(-7, np.int32)), "label is -7, expected .* 0..9"),
    (dict(label=np.asarray(10, np.int32)), "label is 10, expected .* 0..9"),
    (dict(label=np.zeros(2, np.int32)), r"label is int32 \(2,\)"),
    (dict(index=np.asarray(4, np.int64)), "index is 4, expected 5"),
    (dict(other=np.zeros(2, np.int32)), "it holds .*'other'"),
  ],
)
def test_a_forged_record_is_named(folder, changes, message):
  _forge(folder, 5, **changes)
  clips = token_shards.TokenShards(str(folder), num_classes=10)
  assert clips[4]["label"] == 4
  place = "tokens-00001-of-00003.arrayrecord: record 1 is none of tokens"
  with pytest.raises(ValueError, match=f"{place} .{message}"):
    clips[5]
  with pytest.raises(ValueError, match=message):
    data = pipeline.train_batches(_dataset(folder), 2)
    for _ in range(3):
      next(data)


def test_a_record_that_is_no_record_is_named(folder):
  name = coded_clips.contents().layout.names[2]
  shards.write(str(folder / name), [b"{}", b"\xff" * 100])
  described = [
    shards.describe(str(folder), n) for n in coded_clips.contents().layout.names
  ]
  (folder / "tokens.json").write_text(
    shards.to_json(coded_clips.contents(), described)
  )
  clips = token_shards.TokenShards(str(folder))
  for index, place in ((8, 0), (9, 1)):
    with pytest.raises(ValueError, match=f"00002.*: record {place} is none of"):
      clips[index]


@pytest.mark.parametrize(
  "change, message",
  [
    (lambda m: m.update(vocabulary=0), "vocabulary is 0, expected a whole"),
    (lambda m: m.update(dtype="object"), "dtype is 'object', expected a text"),
    (lambda m: m.update(latent_shape=[3, 2]), "latent_shape is a list of 2"),
    (lambda m: m.update(examples=10**18), "names 3 shards, and 10{18} exampl"),
    (lambda m: m.pop("bits"), "bits is missing, expected a whole number"),
    (lambda m: m.update(more="x"), "more is 'x', expected a whole number"),
    (lambda m: m["shards"].pop(), "names 2 shards"),
    (lambda m: m["shards"][0].update(name="../x"), r"shards\[0\].name is"),
    (lambda m: m["shards"][0].update(sha256="f"), r"shards\[0\].sha256 is 'f'"),
    (lambda m: m.update(shards=[]), "is not finished: run the --mode"),
  ],
)
def test_a_forged_manifest_is_named(folder, change, message):
  manifest = json.loads((folder / "tokens.json").read_text())
  change(manifest)
  (folder / "tokens.json").write_text(json.dumps(manifest))
  with pytest.raises(ValueError, match=message) as error:
    token_shards.TokenShards(str(folder))
  assert "\n" not in str(error.value)


def test_a_shard_outside_of_the_folder_is_not_read(folder, tmp_path_factory):
  name = "tokens-00001-of-00003.arrayrecord"
  other = tmp_path_factory.mktemp("private") / name
  os.rename(folder / name, other)
  os.symlink(other, folder / name)
  with pytest.raises(ValueError, match=f"{name} leads out of its folder, to /"):
    token_shards.TokenShards(str(folder))
