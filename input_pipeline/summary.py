"""A data set in words, for the log: what is read, how much, how it is cut."""

from collections.abc import Iterator
import os

import ml_collections

from input_pipeline import clips as clips_lib
from input_pipeline import pipeline
from input_pipeline import stores
from input_pipeline.sources import folders
from input_pipeline.sources import token_shards

_KINDS = {
  "folder": "files of the folder",
  "tfds": "TensorFlow Datasets in",
  "shards": "shards in",
}
_SHOWN = 4  # most names of classes


def lines(
  dataset: ml_collections.ConfigDict,
  train: pipeline.Source | None,
  held_out: pipeline.Source,
) -> Iterator[str]:
  """Yields lines on the data of a run.

  Args:
    dataset: the config's section `dataset`.
    train: its training clips, None where they are not read.
    held_out: its held-out clips.
  """
  where = "embedded, made as it is read"
  if dataset.format != "embedded":
    where = f"{_KINDS[stores.kind(dataset)]} {dataset.path}"
  names = pipeline.class_names(dataset)
  shown = ", ".join(names[:_SHOWN]) + ", ..." * (len(names) > _SHOWN)
  classes = f"{len(names)} classes ({shown})" if names else "no classes"
  yield f"data: {dataset.name!r}, {where}; {classes}"
  attribution = pipeline.attribution(dataset)
  if attribution:
    yield f"data: {attribution}"
  if train is not None:
    yield f"data: trains on {_trained_on(dataset, train)}"
  cut = _cut(dataset, dataset.eval_window, dataset.eval_crop)
  some = f"{dataset.eval_examples:,} of {_count(held_out)}"
  folder = _folder(dataset, "held_out")
  yield f"data: evaluates {some} held-out clips{folder}, {cut}"


def _trained_on(
  dataset: ml_collections.ConfigDict, train: pipeline.Source
) -> str:
  if dataset.tokens:
    stored = token_shards.FORMAT.read(dataset.tokens)[0]
    return f"{stored.examples:,} clips stored as tokens in {dataset.tokens}"
  cut = _cut(dataset, dataset.train_window, dataset.train_crop)
  if dataset.format != "embedded" and dataset.flip:
    cut += ", half of them mirrored"
  if dataset.mixture:
    return f"clips of {', '.join(dataset.mixture)}, {cut}"
  joint = ""
  if dataset.joint_images:
    joint = (
      f"; beside them images of {dataset.joint_path or dataset.joint_name}"
    )
  folder = _folder(dataset, "train")
  count = _count(train)
  if dataset.get("train_examples", 0):
    count = f"{dataset.train_examples:,} of {count}"
  return f"{count} clips{folder}, {cut}{joint}"


def _count(clips: pipeline.Source) -> str:
  return "endlessly many" if pipeline.is_endless(clips) else f"{len(clips):,}"


def _folder(dataset: ml_collections.ConfigDict, split: str) -> str:
  """Words on the folder of a split, where files are in one."""
  if dataset.format == "embedded" or stores.kind(dataset) == "tfds":
    return ""
  if stores.kind(dataset) == "shards":
    return f" of {os.path.join(dataset.path, split)}"
  if dataset.name in folders.WITH_LISTS:
    return f" of the list in {dataset.lists or dataset.path}"
  held_out = stores.held_out_folder(dataset)
  return (
    f" of {folders.split_folder(dataset.name, dataset.path, split, held_out)}"
  )


def _cut(dataset: ml_collections.ConfigDict, window: str, crop: str) -> str:
  """Words on the frames and pixels of a clip."""
  size = f"{dataset.size} x {dataset.size} pixels"
  if dataset.frames > 1:
    size = f"{dataset.frames} frames of {size}"
  if dataset.format == "embedded":
    return size
  if dataset.frames > 1:
    size += f" (stride {dataset.stride}, window {window!r})"
  return f"{size}, crop {crop!r}"


def check_first(
  dataset: ml_collections.ConfigDict, clips: pipeline.Source, split: str
) -> None:
  """Reads the first clip of files, and all lengths that are known.

  Raises:
    ValueError: it cannot be read, or a video is too short for a clip.
  """
  if not isinstance(clips, clips_lib.Clips):
    return
  short = clips.too_short()
  if short:
    raise ValueError(
      f"{len(short)} of the {split!r} videos in dataset.path={dataset.path}"
      f" are too short for a clip, one of {short[0]} frames: set"
      " dataset.short_videos='hold' to repeat the last frame, or lower"
      " dataset.frames or dataset.stride"
    )
  clips.draw(0, 0)
