"""Tests of tfds_files, on sets by the real builders (tfds_reference.py)."""

import json
import os
import pathlib
import pickle
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import tensorflow_datasets as tfds

from input_pipeline.decoding import frame_reader
from input_pipeline.decoding import media
from input_pipeline.sources import tfds_files
from tests.input_pipeline.sources import tfds_reference

_IMAGENET, _UCF101 = "imagenet2012/5.1.0", "ucf101/ucf101_1/2.0.0"
_ROOT = pathlib.Path(__file__).parents[3]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
  """{"raw": folder of the media, "prepared": folder of the data sets}."""
  root = tmp_path_factory.mktemp("tfds")
  with zipfile.ZipFile(tfds_reference.FILE) as archive:
    archive.extractall(root)
  return {name: root / name for name in ("raw", "prepared")}


def _examples(unpacked, name, split):
  store = tfds_files.TfdsFiles(str(unpacked["prepared"] / name), split)
  return store, [store[i] for i in range(len(store))]


def _direct(path):
  return list(media.probe(str(path)).frames())


def test_imagenet_is_decoded_as_its_own_files_are(unpacked):
  raw = unpacked["raw"] / "imagenet"
  for split, names, labels in (
    ("train", "n0*", [0, 0, 1]),
    ("held_out", "ILSVRC2012_val_*", [65, 970]),  # the official labels
  ):
    store, examples = _examples(unpacked, _IMAGENET, split)
    assert len(store.class_names) == 1000
    assert store.class_names[:2] == ("n01440764", "n01443537")
    assert sorted(example.label for example in examples) == labels
    ours = {frame_reader.read(e, range)[0].tobytes() for e in examples}
    direct = {_direct(path)[0].tobytes() for path in raw.glob(names)}
    assert ours == direct and len(ours) == len(labels)


def test_ucf101_has_the_frames_of_its_videos(unpacked):
  raw = unpacked["raw"] / "ucf101"
  for split, groups in (("train", ("08", "09")), ("held_out", ("01",))):
    store, examples = _examples(unpacked, _UCF101, split)
    assert len(store.class_names) == 101
    paths = sorted(p for g in groups for p in raw.glob(f"*/*_g{g}_*"))
    assert len(examples) == len(paths)
    for path in paths:
      video = np.stack(_direct(path)).astype(float)
      errors = {}
      for example in examples:
        frames = np.stack(frame_reader.read(example, range))
        if frames.shape == video.shape:
          errors[np.square(frames - video).mean()] = example
      # The builder stores frames as JPEG of ffmpeg's default quality.
      assert 10 * np.log10(255**2 / min(errors)) > 30
      name = store.class_names[errors[min(errors)].label]
      assert name.lower() == path.parent.name.lower()


def test_a_clip_decodes_its_own_frames_only(unpacked, monkeypatch):
  _, examples = _examples(unpacked, _UCF101, "train")
  decoded = []
  original = media.pillow_frames
  monkeypatch.setattr(
    media, "pillow_frames", lambda part: decoded.append(1) or original(part)
  )
  whole = frame_reader.read(examples[0], range)
  assert len(decoded) == len(whole)
  del decoded[:]
  frames = frame_reader.read(examples[0], lambda n: [2, 4])
  np.testing.assert_array_equal(frames, [whole[2], whole[4]])
  assert len(decoded) == 2


def test_the_held_out_split_is_chosen_by_name(unpacked):
  folder = str(unpacked["prepared"] / _IMAGENET)
  store = tfds_files.TfdsFiles(folder, "held_out", "validation")
  assert len(pickle.loads(pickle.dumps(store))) == 2
  with pytest.raises(ValueError, match=r"needs one of \['test'\]"):
    tfds_files.TfdsFiles(folder, "held_out", "test")


@pytest.mark.parametrize("name", [_IMAGENET, _UCF101])
def test_worker_processes_read_the_same_examples(unpacked, name):
  store, examples = _examples(unpacked, name, "held_out")
  again = pickle.loads(pickle.dumps(store))
  assert [again[i] for i in range(len(again))] == examples
  assert again.class_names == store.class_names


def test_images_and_videos_need_no_tensorflow(unpacked):
  code = f"""if True:
    import sys
    from configs import tokenizer_image
    from input_pipeline import pipeline
    from input_pipeline.sources import tfds_files
    dataset = tokenizer_image.get_config("imagenet128").dataset
    dataset.path = {str(unpacked["prepared"] / _IMAGENET)!r}
    batch = next(pipeline.train_batches(dataset, 2))
    assert batch["video"].shape == (2, 1, 128, 128, 3)
    folder = {str(unpacked["prepared"] / _UCF101)!r}
    assert len(tfds_files.TfdsFiles(folder, "train")[0].parts) > 1
    assert "tensorflow" not in sys.modules
  """
  env = {**os.environ, "PYTHONPATH": str(_ROOT)}
  subprocess.run([sys.executable, "-c", code], check=True, env=env)


def test_the_same_records_as_tfds_data_source(unpacked):
  folder = str(unpacked["prepared"] / _IMAGENET)
  records = tfds.builder_from_directory(folder).as_data_source(split="train")
  _, examples = _examples(unpacked, _IMAGENET, "train")
  assert len(records) == len(examples)
  for example, record in zip(examples, records, strict=True):
    np.testing.assert_array_equal(
      frame_reader.read(example, range)[0], record["image"]
    )
    assert example.label == record["label"]


def test_other_folders_are_refused(unpacked, tmp_path):
  with pytest.raises(ValueError, match="dataset.path=.* no dataset_info.json"):
    tfds_files.TfdsFiles(str(unpacked["prepared"]), "train")
  source = unpacked["prepared"] / _IMAGENET
  for path in source.iterdir():
    (tmp_path / path.name).write_bytes(path.read_bytes())
  info = json.loads((source / "dataset_info.json").read_text())

  def refused(message, **changes):
    changed = json.dumps({**info, **changes})
    (tmp_path / "dataset_info.json").write_text(changed)
    with pytest.raises(ValueError, match=message):
      tfds_files.TfdsFiles(str(tmp_path), "train")

  refused("fileFormat='tfrecord' .*'array_record'", fileFormat="tfrecord")
  refused(
    "dataset.path=.* splits .*'validation'.*'train'", splits=info["splits"][1:]
  )
  train = {**info["splits"][0], "shardLengths": ["4"]}
  refused("dataset.path=.* 3 .*'train'.* 4", splits=[train])
  train["shardLengths"] = ["2", "1"]
  refused("dataset.path=.* imagenet2012-train.*-00000-of-00002", splits=[train])
  (tmp_path / "features.json").unlink()
  refused("dataset.path=.* no features.json")


def test_damaged_descriptions_are_one_line(unpacked, tmp_path):
  source = unpacked["prepared"] / _UCF101
  folder = shutil.copytree(source, tmp_path / "copied")
  for name in ("dataset_info.json", "features.json"):
    whole = (folder / name).read_text()
    for text in ("", "[]", "[" * 10**5, '{"splits": 3}', '{"x": {}}', "{}"):
      (folder / name).write_text(text)
      with pytest.raises(ValueError, match="copied") as error:
        tfds_files.TfdsFiles(str(folder), "train")
      assert "\n" not in str(error.value)
    (folder / name).write_text(whole)
  info = json.loads((folder / "dataset_info.json").read_text())
  for split in info["splits"]:
    split["filepathTemplate"] = (
      "../{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    )
  (folder / "dataset_info.json").write_text(json.dumps(info))
  with pytest.raises(ValueError, match="copied.*outside of the folder"):
    tfds_files.TfdsFiles(str(folder), "train")
