"""Data sets that TensorFlow Datasets has prepared as ArrayRecord files.

They are read without TensorFlow, and without its package of data sets: that
one needs TensorFlow as soon as a data set has videos. A folder holds

  dataset_info.json                                splits, shards, examples
  imagenet2012-train.array_record-00000-of-01024   records: tf.train.Example
  label.labels.txt                                 names of the classes

An example's "image" is an encoded image, its "video" a list of them, the
frames; "label" is a number. README.md says how to prepare one.
"""

import functools
import json
import os

from google.protobuf import descriptor_pb2
from google.protobuf import descriptor_pool
from google.protobuf import message_factory
from grain.sources import ArrayRecordDataSource

from input_pipeline.decoding import frame_reader

INFO = "dataset_info.json"
_SPLITS = {"train": ("train",), "held_out": ("validation", "test")}


class TfdsFiles:
  """Random-access encoded examples of one split."""

  def __init__(self, folder: str, split: str):
    """`split` is "train" or "held_out": "validation", or else "test".

    Raises:
      ValueError: no such data set or split, another file format, a file that
        is missing or of another length.
    """
    self._folder = folder
    info = _read_info(folder)
    names = {part["name"]: part for part in info["splits"]}
    found = [name for name in _SPLITS[split] if name in names]
    if not found:
      raise ValueError(
        f"dataset.path={folder} has the splits {sorted(names)}, and"
        f" {split!r} is one of {list(_SPLITS[split])}: prepare that, too"
      )
    self._split = found[0]
    lengths = [int(n) for n in names[self._split]["shardLengths"]]
    files = _file_names(info, names[self._split], len(lengths))
    for name in files:
      if not os.path.isfile(os.path.join(folder, name)):
        raise ValueError(
          f"dataset.path={folder} lacks {name}, which its dataset_info.json"
          " names: copy the whole folder"
        )
    self._records = ArrayRecordDataSource(
      [os.path.join(folder, name) for name in files]
    )
    if len(self._records) != sum(lengths):
      raise ValueError(
        f"dataset.path={folder} holds {len(self._records)} examples of"
        f" {self._split!r}, and its dataset_info.json says {sum(lengths)}:"
        " prepare it again"
      )
    self.class_names = _class_names(folder)

  def __len__(self) -> int:
    return len(self._records)

  def __getitem__(self, index: int) -> frame_reader.Encoded:
    name = f"{self._folder} {self._split}[{index}]"
    example = _example_type().FromString(self._records[index])
    features = example.features.feature
    media = [key for key in ("video", "image") if key in features]
    if not media:
      raise ValueError(
        f"{name} has the features {sorted(features)}: expected 'image' or"
        " 'video'"
      )
    labels = features["label"].int64_list.value  # [] where there is none
    return frame_reader.Encoded(
      name,
      labels[0] if labels else 0,
      tuple(features[media[0]].bytes_list.value),
    )


def _read_info(folder: str) -> dict:
  path = os.path.join(folder, INFO)
  if not os.path.isfile(path):
    raise ValueError(
      f"dataset.path={folder} holds no dataset_info.json: name the folder of"
      " a version of a prepared data set, like imagenet2012/5.1.0"
    )
  with open(path) as f:
    info = json.load(f)
  if info.get("fileFormat") != "array_record":
    raise ValueError(
      f"{path}: fileFormat={info.get('fileFormat')!r} must be 'array_record',"
      " which can be read in any order: prepare the data set with"
      " download_and_prepare(file_format='array_record')"
    )
  return info


def _file_names(info: dict, split: dict, count: int) -> list[str]:
  template = split.get(
    "filepathTemplate", "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
  )
  return [
    template.format(
      DATASET=info["name"],
      SPLIT=split["name"],
      FILEFORMAT=info["fileFormat"],
      SHARD_INDEX=f"{i:05}",
      NUM_SHARDS=f"{count:05}",
      SHARD_X_OF_Y=f"{i:05}-of-{count:05}",
    )
    for i in range(count)
  ]


def _class_names(folder: str) -> tuple[str, ...]:
  path = os.path.join(folder, "label.labels.txt")
  if not os.path.isfile(path):
    return ()
  with open(path) as f:
    return tuple(f.read().split("\n")[:-1])


@functools.cache
def _example_type():
  """tf.train.Example: the fields of its public .proto that occur here."""
  field = descriptor_pb2.FieldDescriptorProto
  file = descriptor_pb2.FileDescriptorProto(
    name="example.proto", package="tfds_files", syntax="proto3"
  )

  def message(name: str, *fields) -> descriptor_pb2.DescriptorProto:
    made = file.message_type.add(name=name)
    made.field.extend(fields)
    return made

  def one(name: str, number: int, kind: str) -> field:
    return field(
      name=name,
      number=number,
      label=field.LABEL_OPTIONAL,
      type=field.TYPE_MESSAGE,
      type_name=f".tfds_files.{kind}",
    )

  def many(name: str, number: int, kind: int, **more) -> field:
    return field(
      name=name, number=number, label=field.LABEL_REPEATED, type=kind, **more
    )

  message("BytesList", many("value", 1, field.TYPE_BYTES))
  message("Int64List", many("value", 1, field.TYPE_INT64))
  message(
    "Feature",
    one("bytes_list", 1, "BytesList"),
    one("int64_list", 3, "Int64List"),
  )
  entry = ".tfds_files.Features.FeatureEntry"
  features = message(
    "Features", many("feature", 1, field.TYPE_MESSAGE, type_name=entry)
  )
  pair = features.nested_type.add(name="FeatureEntry")
  pair.options.map_entry = True
  key = field(
    name="key", number=1, label=field.LABEL_OPTIONAL, type=field.TYPE_STRING
  )
  pair.field.extend([key, one("value", 2, "Feature")])
  message("Example", one("features", 1, "Features"))
  pool = descriptor_pool.DescriptorPool()
  pool.Add(file)
  descriptor = pool.FindMessageTypeByName("tfds_files.Example")
  return message_factory.GetMessageClass(descriptor)
