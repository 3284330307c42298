"""Tests of clips of data on disk: order, contents, mixtures, every format."""

import zipfile

import numpy as np
import pytest

from configs import autoregressive
from configs import datasets
from configs import tokenizer_image
from configs import tokenizer_video
from input_pipeline import pipeline
from input_pipeline import prepare
from input_pipeline.decoding import media
from input_pipeline.sources import folders
from storage import parts
from tests import batches as batches_lib
from tests import raw_data
from tests import tiny
from tests.input_pipeline.sources import tfds_reference


@pytest.fixture(scope="module")
def root(tmp_path_factory):
  """Raw UCF-101 and BAIR, shards of both, and ImageNet prepared by TFDS."""
  root = tmp_path_factory.mktemp("data")
  raw_data.ucf101(root / "ucf101", root / "ucf101")
  raw_data.bair(root / "bair")
  with zipfile.ZipFile(tfds_reference.FILE) as archive:
    archive.extractall(root)
  pool, parts.futures.ProcessPoolExecutor = (
    parts.futures.ProcessPoolExecutor,
    lambda workers, context, start, job: parts.futures.ThreadPoolExecutor(
      1, initializer=start, initargs=job
    ),
  )
  for name in ("ucf101", "bair"):
    for split in ("train", "held_out"):
      listing = folders.listing(name, str(root / name), "", split, 1)
      prepare.prepare(listing, name, split, str(root / f"{name}_shards"))
  parts.futures.ProcessPoolExecutor = pool
  return root


def _dataset(root, name="ucf101", **changes):
  c = tiny.tokenizer()
  getattr(datasets, name)(c)
  c.dataset.update({"path": str(root / name), "eval_examples": 2, **changes})
  return c.dataset


def test_shards_and_raw_files_give_the_same_batches(root):
  for name in ("ucf101", "bair"):
    raw = _dataset(root, name, flip=True)
    shards = _dataset(root, name, flip=True)
    shards.path += "_shards"
    batches = batches_lib.take(raw, 4)
    batches_lib.assert_equal(batches, batches_lib.take(shards, 4))
    assert batches[0]["video"].shape == (2, 5, 16, 16, 3)
    assert pipeline.class_names(raw) == pipeline.class_names(shards)


def test_a_clip_is_a_crop_of_a_window_of_its_video(root):
  dataset = _dataset(root, frames=4, stride=2, size=48)
  clips = pipeline.source(dataset, "train")
  listing = folders.listing("ucf101", dataset.path, "", "train", 1)
  assert len(clips) == len(listing.entries) == 4
  for number, entry in enumerate(listing.entries):
    clip = clips[number]
    assert clip["label"] == entry.label
    whole = np.stack(list(media.probe(entry.files[0]).frames()))
    # 48 x 64 pixels: the crop moves sideways, by a fraction of a pixel.
    errors = [
      np.abs(whole[t : t + 7 : 2, :, x : x + 48].astype(float) - clip["video"])
      .mean()
      .item()
      for t in range(len(whole) - 6)
      for x in range(17)
    ]
    assert min(errors) < 5 < np.median(errors)


def test_clips_differ_between_epochs_and_an_epoch_has_every_video(root):
  dataset = _dataset(root)
  (first,), (second,) = (
    [b] for b in batches_lib.take(dataset, 2, batch_size=4)
  )
  for batch in (first, second):
    assert sorted(batch["label"]) == [0, 0, 1, 1]
  flat = lambda batch: {video.tobytes() for video in batch["video"]}
  assert not flat(first) & flat(second)
  # Epoch 0 is what `source` has, in another order.
  clips = pipeline.source(dataset, "train")
  assert flat(first) == {clips[i]["video"].tobytes() for i in range(4)}
  other_seed = _dataset(root, seed=1)
  assert flat(first) != flat(batches_lib.take(other_seed, 1, batch_size=4)[0])


def test_processes_share_each_global_batch(root):
  dataset = _dataset(root)
  whole = batches_lib.take(dataset, 3, batch_size=4)
  parts = [
    batches_lib.take(dataset, 3, 4, parts=(i,), num_parts=2) for i in range(2)
  ]
  for batch, *shares in zip(whole, *parts, strict=True):
    for i, share in enumerate(shares):
      rows = slice(2 * i, 2 * i + 2)
      batches_lib.assert_equal(
        [{k: v[rows] for k, v in batch.items()}], [share]
      )


@pytest.mark.slow
def test_workers_change_nothing_nor_does_resuming_with_others(root):
  dataset = _dataset(root)
  expected = batches_lib.take(dataset, 8)  # two batches are an epoch
  state = None
  for workers in (1, 4):
    dataset.workers = workers
    data = pipeline.train_batches(dataset, 2)
    if state:
      data.set_state(state)
      batches_lib.assert_equal(expected[3:], [next(data) for _ in range(5)])
    else:
      batches_lib.assert_equal(expected[:3], [next(data) for _ in range(3)])
      state = data.get_state()
    data.close()
  dataset.workers = 4
  batches_lib.assert_equal(expected, batches_lib.take(dataset, 8))


def test_evaluations_use_their_own_rules_on_every_split(root):
  dataset, plain = (
    _dataset(root, train_crop="squash", flip=True),
    _dataset(root),
  )
  for split in ("train", "held_out"):
    clips = pipeline.source(dataset, split, training=False)
    unflipped = pipeline.source(plain, split, training=False)
    for i in range(len(clips)):
      np.testing.assert_array_equal(clips[i]["video"], unflipped[i]["video"])
    batches = list(pipeline.eval_batches(dataset, split, len(clips), 3))
    evaluated = {
      video.tobytes()
      for batch, real in batches
      for video in batch["video"][:real]
    }
    assert evaluated == {clips[i]["video"].tobytes() for i in range(len(clips))}
  few = [b["video"] for b, _ in pipeline.eval_batches(dataset, "train", 2, 2)]
  again = [b["video"] for b, _ in pipeline.eval_batches(dataset, "train", 2, 2)]
  np.testing.assert_array_equal(few, again)
  with pytest.raises(ValueError, match="^9 clips .*--num.* 2 "):
    next(pipeline.eval_batches(dataset, "held_out", 9, 3))


def test_numbers_of_clips_by_the_rules_of_protocols(root):
  count = lambda name, **changes: len(
    pipeline.source(_dataset(root, name, **changes), "held_out")
  )
  assert count("ucf101") == 2
  assert count("ucf101", eval_window="ends", eval_crop="three") == 12
  assert count("bair") == 1
  windows = pipeline.source(
    _dataset(root, "bair", eval_window="all"), "held_out"
  )
  assert len(windows) == 11 - 5 + 1
  for i in range(6):  # overlapping windows of one video
    np.testing.assert_array_equal(
      windows[i]["video"][1:], windows[i + 1]["video"][:-1]
    )


def test_a_mixture_draws_by_weight_and_joins_classes(root):
  parts = (f"3:{root}/ucf101_shards", f"1:{root}/bair_shards")
  dataset = _dataset(root, mixture=parts)
  assert pipeline.class_names(dataset) == ("ApplyEyeMakeup", "HandstandPushups")
  ucf, bair = _dataset(root), _dataset(root, "bair", train_crop="random")
  one_set = lambda dataset, n: {
    video.tobytes()
    for batch in batches_lib.take(dataset, n)
    for video in batch["video"]
  }
  mixed = batches_lib.take(dataset, 8)
  videos = [v.tobytes() for batch in mixed for v in batch["video"]]
  assert len(set(videos) & one_set(ucf, 6)) == 12
  assert len(set(videos) & one_set(bair, 2)) == 4
  for wrong in ("ucf", "0:x", "-1:x", "1:"):
    dataset.mixture = (wrong,)
    with pytest.raises(
      ValueError, match=f"dataset.mixture=.*: '{wrong}' .*WEIGHT:"
    ):
      pipeline.train_batches(dataset, 2)


def test_images_of_imagenet_train_beside_clips(root):
  dataset = _dataset(
    root,
    joint_images=2,
    joint_name="imagenet2012",
    joint_format="auto",
    joint_path=f"{root}/prepared/imagenet2012/5.1.0",
  )
  batch = batches_lib.take(dataset, 1)[0]
  assert batch["video"].shape == (2, 5, 16, 16, 3)
  assert batch["image"].shape == (2, 1, 16, 16, 3)
  assert batch["image"].std() > 10


def test_broken_and_short_videos_and_wrong_paths_are_named(root, tmp_path):
  dataset = _dataset(root, frames=13)
  with pytest.raises(ValueError, match="_g0._c01.avi: it has .* spans 13"):
    batches_lib.take(dataset, 2)
  dataset.short_videos = "hold"
  assert batches_lib.take(dataset, 1)[0]["video"].shape[1] == 13
  raw_data.ucf101(tmp_path, tmp_path)
  broken = tmp_path / "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi"
  broken.write_bytes(b"")
  with pytest.raises(ValueError, match=f"cannot read {broken}"):
    batches_lib.take(_dataset(root, path=str(tmp_path)), 2)
  for changes, message in (
    (dict(path=""), "dataset.path='' .*input_pipeline.prepare"),
    (dict(format="tfrecord"), "dataset.format='tfrecord' .*'embedded'.*'tfds'"),
    (dict(format="shards"), "holds no media.json"),
    (dict(format="tfds"), "holds no dataset_info.json"),
    (dict(workers=-1), "dataset.workers=-1 .* 0"),
  ):
    with pytest.raises(ValueError, match=message):
      pipeline.train_batches(_dataset(root, **changes), 2)


def test_the_held_out_folder_is_a_field_that_old_configs_lack(tmp_path):
  for split in ("train", "val", "test"):
    raw_data.image(tmp_path / split / "a" / f"{split}.png", 0)
  dataset = tokenizer_image.get_config("imagenet128").dataset
  dataset.path, dataset.name = str(tmp_path), "mine"
  with pytest.raises(ValueError, match="dataset.held_out=val"):
    pipeline.source(dataset, "held_out")
  dataset.held_out = "test"
  assert len(pipeline.source(dataset, "held_out")) == 1
  assert len(pipeline.image_source(_as_images(dataset))) == 1
  (tmp_path / "test/a/test.png").unlink()
  del dataset.held_out
  (tmp_path / "test/a").rmdir()
  (tmp_path / "test").rmdir()
  assert len(pipeline.source(dataset, "held_out")) == 1


def _as_images(dataset):
  images = dataset.copy_and_resolve_references()
  images.joint_name, images.joint_format = "mine", "folder"
  images.joint_path = images.path
  return images


def test_every_row_of_real_data_needs_a_path_alone(root):
  for config, folder in (
    (tokenizer_video.get_config("ucf101"), "ucf101_shards"),
    (tokenizer_video.get_config("v1_bair_b"), "bair_shards"),
    (tokenizer_image.get_config("imagenet128"), "prepared/imagenet2012/5.1.0"),
    (autoregressive.get_config("ucf101"), "ucf101"),
  ):
    dataset = config.dataset
    assert dataset.format == "auto" and dataset.shuffle
    dataset.path, dataset.short_videos = str(root / folder), "hold"
    batch = next(pipeline.train_batches(dataset, 1))
    size = (dataset.frames, dataset.size, dataset.size, 3)
    assert batch["video"].shape == (1, *size)
