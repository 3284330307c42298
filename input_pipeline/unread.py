"""Fields of a data set that would be given in vain: an error, not a surprise.

A field that differs from its value in configs/base.py says what somebody wants;
where nothing reads it, a model would learn from other clips than they think.
"""

from typing import Any

import ml_collections

from configs import base
from input_pipeline import stores
from input_pipeline.sources import folders

# Fields that only clips of files are cut by.
_CUTTING = (
  *("stride", "train_window", "eval_window", "short_videos", "train_crop"),
  *("eval_crop", "short_side", "flip"),
)
_RESIZING = ("scale", "filter")  # joint images have these, too
_FILES = ("path", "lists", "held_out", "held_out_share", "fold", "mixture")
_OF_DIGITS = ("motion", "labels")
_JOINT = ("name", "format", "path", "crop", "flip")
_FOLDER_ROW = "a row folder64"


def check(dataset: ml_collections.ConfigDict) -> None:
  """Raises ValueError for a field of config.dataset that nothing reads.

  Folders are looked at alone to tell shards from files.
  """
  given = _given(dataset)
  _check_joint(dataset, given)
  if dataset.format == "embedded":
    _check_embedded(dataset, given)
  else:
    _check_files(dataset, given)


def _given(dataset: ml_collections.ConfigDict) -> dict[str, Any]:
  """The fields that differ from configs/base.py, with their values."""
  usual = base.common().dataset
  plain = lambda value: tuple(value) if isinstance(value, list) else value
  return {
    name: value
    for name, value in dataset.items()
    if name in usual and plain(value) != plain(usual[name])
  }


def _check_embedded(
  dataset: ml_collections.ConfigDict, given: dict[str, Any]
) -> None:
  joint = dataset.joint_images and dataset.joint_format != "embedded"
  names = (*_FILES, *_CUTTING, *(() if joint else _RESIZING))
  for name in names:
    if name in given:
      raise ValueError(
        f"dataset.{name}={given[name]!r} is not read: the data set"
        f" {dataset.name!r} is embedded (dataset.format='embedded'). For files"
        " on disk add --config.dataset.format=auto and"
        f" --config.dataset.name=NAME, or take {_FOLDER_ROW}; else leave it out"
      )
  for name in _OF_DIGITS:
    if name in given and dataset.name != "digits":
      raise _needless(name, given, "the embedded 'digits' alone have it")


def _check_files(
  dataset: ml_collections.ConfigDict, given: dict[str, Any]
) -> None:
  if dataset.name in ("digits", "photo"):
    raise ValueError(
      f"dataset.name={dataset.name!r} is an embedded data set, and"
      f" dataset.format={dataset.format!r} reads files: name yours with"
      " --config.dataset.name=NAME"
    )
  digits = dataset.joint_images and dataset.joint_format == "embedded"
  for name in _OF_DIGITS:
    if name in given and not (digits and name == "motion"):
      raise _needless(name, given, "the embedded 'digits' alone have it")
  with_lists = dataset.name in folders.WITH_LISTS
  if "lists" in given and not with_lists:
    raise _needless("lists", given, f"{dataset.name!r} has none")
  if "fold" in given and dataset.name != "ucf101":
    raise _needless("fold", given, "'ucf101' alone has folds")
  if "held_out_share" in given and not _shares(dataset):
    why = "lists, folders or `prepare` say which clips are held out"
    raise _needless("held_out_share", given, why)
  for name in ("lists", "fold"):
    kind = stores.kind(dataset)
    if name in given and kind != "folder":
      remedy = f"what is in them was chosen with --{name} of `prepare`"
      if kind == "tfds":
        remedy = "TFDS has its own splits: name the folder of another"
      raise _needless(name, given, f"dataset.path holds {kind}; {remedy}")


def _shares(dataset: ml_collections.ConfigDict) -> bool:
  """Whether clips, or the joint images, may be held out by their names."""
  if dataset.joint_images and dataset.joint_format != "embedded":
    return True
  held_out = stores.held_out_folder(dataset)
  return stores.kind(dataset) == "folder" and folders.splits_by_hash(
    dataset.name, dataset.path, held_out
  )


def _check_joint(
  dataset: ml_collections.ConfigDict, given: dict[str, Any]
) -> None:
  for part in _JOINT:
    name = f"joint_{part}"
    if name not in given:
      continue
    if not dataset.joint_images:
      raise ValueError(
        f"dataset.{name}={given[name]!r} is not read: there are no joint"
        " images. Say how many with --config.dataset.joint_images=N, or leave"
        " it out"
      )
    embedded = dataset.joint_format == "embedded"
    if embedded and part in ("path", "crop", "flip"):
      raise ValueError(
        f"dataset.{name}={given[name]!r} is not read: the joint images"
        f" {dataset.joint_name!r} are embedded. For files on disk add"
        " --config.dataset.joint_format=auto; else leave it out"
      )


def _needless(name: str, given: dict[str, Any], why: str) -> ValueError:
  return ValueError(
    f"dataset.{name}={given[name]!r} is not read: {why}. Leave it out"
  )
