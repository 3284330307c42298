"""Data sets that TensorFlow Datasets has prepared as ArrayRecord files.

The package of that name reads them here, without TensorFlow and without
decoding. A folder holds

  dataset_info.json                                splits, shards, examples
  features.json                                    fields of an example
  imagenet2012-train.array_record-00000-of-01024   records: tf.train.Example
  label.labels.txt                                 names of the classes

An example's "image" is an encoded image, its "video" a list of encoded frames;
"label" is a number. docs/data.md says how to prepare one.
"""

import os
from typing import Any

from google.protobuf import json_format
import numpy as np

from input_pipeline.decoding import frame_reader
from storage import schema
from storage import shards as shards_lib

INFO = "dataset_info.json"
_FEATURES = "features.json"
_SPLITS = {"train": ("train",), "held_out": ("validation", "test")}


class TfdsFiles:
  """Random-access encoded examples of one split."""

  def __init__(self, folder: str, split: str, held_out: str = ""):
    """Opens a split.

    Args:
      folder: folder of a version of the data set.
      split: "train" or "held_out".
      held_out: the set's split that is "held_out"; "": "validation", or "test"
        where there is none.

    Raises:
      ValueError: no such data set or split, another file format, a file that
        is missing or of another length, no images or videos in it.
    """
    import tensorflow_datasets as tfds  # slow to import; few runs need it

    self._arguments = (folder, split, held_out)
    builder = _builder(folder)
    splits = builder.info.splits
    wanted = _SPLITS[split]
    if split == "held_out" and held_out:
      wanted = (held_out,)
    names = [name for name in wanted if name in splits]
    if not names:
      raise ValueError(
        f"dataset.path={folder} has the splits {sorted(splits)}, and {split!r}"
        f" needs one of {list(wanted)} (dataset.held_out={held_out!r}): prepare"
        " that, too, or name another"
      )
    self._name = f"{folder} {names[0]}"
    _check_files(folder, splits[names[0]])
    features = builder.info.features
    media = [key for key in ("video", "image") if key in features]
    if not media:
      raise ValueError(
        f"dataset.path={folder} has the features {sorted(features)}: expected"
        " 'image' or 'video'; name another data set"
      )
    self._media = media[0]
    self._examples = builder.as_data_source(
      names[0],
      decoders={
        key: tfds.decode.SkipDecoding()
        for key, feature in features.items()
        if isinstance(feature, tfds.features.Image)
      },
    )
    self.class_names = ()
    if isinstance(dict(features).get("label"), tfds.features.ClassLabel):
      self.class_names = tuple(features["label"].names)

  def __reduce__(self):
    # Each process opens the files itself: the package pickles a data set by the
    # name of its folder, which would undo the changes of _video_builder.
    return TfdsFiles, self._arguments

  def __len__(self) -> int:
    return len(self._examples)

  def __getitem__(self, index: int) -> frame_reader.Encoded:
    example = self._examples[index]
    media, label = example[self._media], example.get("label")
    return frame_reader.Encoded(
      f"{self._name}[{index}]",
      label if isinstance(label, int) else 0,
      (media,) if isinstance(media, bytes) else tuple(media),
    )


def _builder(folder: str) -> Any:
  """The data set's tfds.core.DatasetBuilder."""
  import tensorflow_datasets as tfds

  for name in (INFO, _FEATURES):
    if not os.path.isfile(os.path.join(folder, name)):
      raise ValueError(
        f"dataset.path={folder} holds no {name}: name the folder of a version"
        " of a prepared data set, like imagenet2012/5.1.0"
      )
    # The package reads what is nested however deep.
    schema.load(os.path.join(folder, name), dict[str, Any], "prepare it again")
  with open(os.path.join(folder, _FEATURES)) as f:
    features = f.read()
  try:
    if "video_feature.Video" in features:
      builder = _video_builder(folder, features)
    else:
      builder = tfds.builder_from_directory(folder)
  except Exception as error:  # errors of many classes, for damaged files
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    raise ValueError(
      f"dataset.path={folder}: {INFO} or {_FEATURES} is damaged ({reason}):"
      " prepare it again"
    ) from error
  file_format = builder.info.as_proto.file_format
  if file_format != "array_record":
    raise ValueError(
      f"{folder}/{INFO}: fileFormat={file_format!r} must be"
      " 'array_record', which can be read in any order: prepare the data set"
      " with download_and_prepare(file_format='array_record')"
    )
  return builder


def _video_builder(folder: str, features: str) -> Any:
  """Builder of a data set with videos, which works without TensorFlow.

  The package's Video feature needs it; so videos are declared as the files hold
  them, as lists of encoded frames.
  `features` is the text of features.json.
  """
  import tensorflow_datasets as tfds
  from tensorflow_datasets.core import dataset_info
  from tensorflow_datasets.core import read_only_builder

  info = dataset_info.read_proto_from_builder_dir(folder)
  json_format.Parse(features, info.features)
  frames = tfds.features.Tensor(shape=(None,), dtype=np.object_)
  for feature in info.features.features_dict.features.values():
    if feature.HasField("video"):
      feature.CopyFrom(frames.to_proto())
  return read_only_builder.builder_from_metadata(folder, info)


def _check_files(folder: str, split: Any) -> None:
  """Raises ValueError unless a tfds.core.SplitInfo's files are complete."""
  for path in map(os.fspath, split.filepaths):
    if os.path.dirname(os.path.abspath(path)) != os.path.abspath(folder):
      raise ValueError(
        f"dataset.path={folder}: its dataset_info.json names {path!r}, which is"
        " outside of the folder: prepare it again"
      )
  for name in split.filenames:
    if not os.path.isfile(os.path.join(folder, name)):
      raise ValueError(
        f"dataset.path={folder} lacks {name}, which its dataset_info.json"
        " names: copy the whole folder"
      )
  paths = [os.path.join(folder, name) for name in split.filenames]
  num_records = len(shards_lib.Records(paths))
  if num_records != split.num_examples:
    raise ValueError(
      f"dataset.path={folder} holds {num_records} examples of"
      f" {split.name!r}, and its dataset_info.json says {split.num_examples}:"
      " prepare it again"
    )
