"""Stores of each `dataset.format`, and the clips of one store or a mixture.

auto    whichever of the following the folder holds
folder  raw files, in a layout of input_pipeline/sources/folders.py
tfds    files of TensorFlow Datasets: input_pipeline/sources/tfds_files.py
shards  shards of `prepare`: input_pipeline/sources/media_shards.py

Shards may also lie in an object store, like gs://BUCKET/SHARDS.
"""

from collections.abc import Sequence
import math
import os

import ml_collections

from input_pipeline import clips as clips_lib
from input_pipeline.sources import entries
from input_pipeline.sources import folders
from input_pipeline.sources import media_shards
from input_pipeline.sources import own_folders
from input_pipeline.sources import tfds_files
from storage import paths
from storage import stores as object_stores

FORMATS = ("auto", "folder", "tfds", "shards")


def source(
  dataset: ml_collections.ConfigDict, split: str, training: bool
) -> clips_lib.Clips:
  """Clips of one split of `dataset.path`.

  Raises:
    ValueError: data that are missing or not as expected; see Clips.
  """
  store = _store(dataset, split)
  if isinstance(store, entries.Folder):
    store.check_frames(dataset.frames)
  if dataset.mixture:  # labels are those of the mixture, by class name
    _, stores = _mixed_stores(dataset)
    store = clips_lib.renumber(store, clips_lib.all_names(stores))
  return clips_lib.Clips(store, dataset, split, training)


def mixture(
  dataset: ml_collections.ConfigDict,
) -> tuple[list[clips_lib.Clips], list[float]]:
  """Training clips of each part of `dataset.mixture`, and their weights.

  All parts share one list of classes: classes of the same name are one. Clips
  of a set without classes have the label 0.

  Raises:
    ValueError: a part that is not "WEIGHT:FOLDER" with a folder of shards.
  """
  weights, stores = _mixed_stores(dataset)
  names = clips_lib.all_names(stores)
  clips = [
    clips_lib.Clips(
      clips_lib.renumber(store, names), dataset, "train", training=True
    )
    for store in stores
  ]
  return clips, weights


def class_names(dataset: ml_collections.ConfigDict) -> Sequence[str]:
  """Names of the training split's classes; () if the data are not at hand."""
  if dataset.mixture:
    return clips_lib.all_names(_mixed_stores(dataset)[1])
  if not object_stores.is_folder(paths.expand(dataset.path, urls=True)):
    return ()
  return _store(dataset, "train").class_names


def attribution(dataset: ml_collections.ConfigDict) -> str:
  """Whose the held-out clips are; "" if nobody says or they are not at hand."""
  path = paths.expand(dataset.path, urls=True)
  if not object_stores.is_folder(path) or kind(dataset) != "shards":
    return ""
  return media_shards.MediaShards(path, "held_out").attribution


def kind(dataset: ml_collections.ConfigDict) -> str:
  """The format of `dataset.path` on disk, "folder" if nothing is there."""
  path = paths.expand(dataset.path, urls=True)
  return _detect(path) if dataset.format == "auto" else dataset.format


def held_out_folder(dataset: ml_collections.ConfigDict) -> str:
  """The folder or TFDS split that is held out; "": the only one there is."""
  # Configs that earlier versions stored lack the field, and stay as they are:
  # what was made of them is known by all their fields.
  return dataset.get("held_out", "")


def held_out_share(dataset: ml_collections.ConfigDict) -> float:
  """Share of a folder without such a folder that is held out."""
  return dataset.get("held_out_share", own_folders.HELD_OUT_SHARE)


def _mixed_stores(dataset: ml_collections.ConfigDict):
  weights, stores = [], []
  for part in dataset.mixture:
    weight, _, folder = str(part).partition(":")
    try:
      weights.append(float(weight))
    except ValueError:
      weights.append(0.0)
    if not 0 < weights[-1] < math.inf or not folder:
      raise ValueError(
        f"dataset.mixture={tuple(dataset.mixture)}: {part!r} must be"
        " 'WEIGHT:FOLDER', a positive number and a folder made by"
        " `python -m input_pipeline.prepare`"
      )
    stores.append(media_shards.MediaShards(folder, "train"))
  return weights, stores


def _store(dataset: ml_collections.ConfigDict, split: str) -> clips_lib.Store:
  if dataset.format not in FORMATS:
    raise ValueError(
      f"dataset.format={dataset.format!r} must be 'embedded' or one of"
      f" {FORMATS}"
    )
  if split not in clips_lib.SPLITS:
    raise ValueError(f"split={split!r} must be one of {clips_lib.SPLITS}")
  path = paths.expand(dataset.path, urls=True)
  if not object_stores.is_folder(path):
    raise ValueError(
      f"dataset.path={path!r} is no folder: name that of the data, or of the"
      " shards that `python -m input_pipeline.prepare` made of them, with"
      " --config.dataset.path=DIR"
    )
  form = kind(dataset)
  if form != "shards" and object_stores.is_url(path):
    raise ValueError(
      f"dataset.path={path} holds no shards, and from a store nothing else is"
      " read: make them of the data by `python -m input_pipeline.prepare` and"
      " copy them there, or copy the data to a disk and name that folder"
    )
  held_out = held_out_folder(dataset)
  if form == "tfds":
    return tfds_files.TfdsFiles(path, split, held_out)
  if form == "shards":
    if held_out:
      raise ValueError(
        f"dataset.held_out={held_out!r} is for raw folders and TFDS, and"
        f" dataset.path={path!r} holds shards: choose with --held_out of"
        " input_pipeline.prepare"
      )
    return media_shards.MediaShards(path, split)
  lists = paths.expand(dataset.lists)
  share = held_out_share(dataset)
  return entries.Folder(
    folders.listing(
      dataset.name, path, lists, split, dataset.fold, held_out, share
    )
  )


def _detect(path: str) -> str:
  is_url = object_stores.is_url(path)
  if not is_url and os.path.exists(os.path.join(path, tfds_files.INFO)):
    return "tfds"
  for split in clips_lib.SPLITS:
    manifest = os.path.join(path, split, media_shards.FORMAT.manifest)
    if object_stores.exists(manifest):
      return "shards"
  return "folder"
