"""Stored tokens of a data set in ArrayRecord shards with a manifest.

`main.py --mode=tokenize` writes a folder

  tokens-00003-of-00016.arrayrecord  tokens of consecutive clips
  tokens.json                        their contents, sha256 of each shard

A record is one clip in the safetensors format, which names its arrays: "ids"
(t, h, w) in the smallest unsigned type that holds the vocabulary, "label" int32
(), "index" int64 (), the clip's place in its source, and "condition/TASK" like
"ids", the tokens of the task's condition clip. Reading one takes 25 us, where
npz takes 600; neither runs code from the file.
"""

from collections.abc import Mapping
import dataclasses
from typing import Annotated
from typing import Any

import numpy as np
import safetensors.numpy

from storage import parts
from storage import schema
from storage import shards as shards_lib

CONDITION = "condition/"  # prefix of a task's name


_Size = Annotated[int, schema.at_least(1)]


@dataclasses.dataclass(frozen=True)
class Contents:
  """Description of a folder's contents; equal ones give equal tokens."""

  tokenizer: str  # fingerprint by magvit/tokenizer/fingerprint.py
  dataset: dict[str, Any]  # name, split, frames, size, seed
  examples: _Size
  examples_per_shard: _Size  # number of examples in each shard but the last
  clip_shape: tuple[_Size, _Size, _Size]  # (T, H, W)
  latent_shape: tuple[_Size, _Size, _Size]  # (t, h, w)
  vocabulary: _Size
  bits: Annotated[int, schema.at_least(0)]  # number of bits that hold an id
  ids: str  # meaning of an id, and the order of ids, in words
  # Type of stored ids.
  dtype: Annotated[str, schema.one_of("uint8", "uint16", "uint32")]
  tasks: tuple[str, ...]  # tasks whose condition tokens are stored
  # Number of given frames, for tasks that count them.
  condition_frames: Annotated[int, schema.at_least(0)]

  @property
  def layout(self) -> parts.Layout:
    return shards_lib.layout("tokens", self.examples, self.examples_per_shard)


FORMAT = shards_lib.Format(
  "tokens",
  Contents,
  shards_lib.Shard,
  "run the --mode=tokenize --output=FOLDER that made it (again)",
)


def pack(record: Mapping[str, np.ndarray]) -> bytes:
  """Bytes of a record."""
  return safetensors.numpy.save(dict(record))


def unpack(data: bytes) -> dict[str, np.ndarray]:
  """The record in bytes by `pack`."""
  return safetensors.numpy.load(data)


class TokenShards:
  """Random-access source of stored tokens, in the form grain reads."""

  def __init__(self, folder: str, num_classes: int = 0):
    """Reads every shard once for the checksum, about a second per GB.

    Those of a store are not read before a record of theirs is.

    Args:
      folder: a finished folder.
      num_classes: number of classes that labels are of; 0 if it is not known.

    Raises:
      ValueError: an unfinished folder; a damaged or missing shard.
    """
    self.contents, shards = FORMAT.read(folder)
    if not shards:
      raise ValueError(f"{folder} is not finished: {FORMAT.remedy}")
    self._path, self._num_classes = folder, num_classes
    FORMAT.check_names(folder, self.contents.layout, shards)
    FORMAT.check_all(folder, shards, contents=True)
    self._names = [shard.name for shard in shards]
    layout = self.contents.layout
    counts = [len(layout.places(number)) for number in range(len(shards))]
    self._records = FORMAT.open(folder, shards, counts)

  def __len__(self) -> int:
    return len(self._records)

  def __getitem__(self, index: int) -> dict[str, np.ndarray]:
    """{"ids": int32 (t, h, w), "label": int32 (), "condition/TASK": like ids}.

    The clip's place in its source, "index", is left out.

    Raises:
      ValueError: a record that is damaged, or not what the manifest says.
    """
    data = self._records[index]
    shard, place = divmod(index, self.contents.examples_per_shard)
    with FORMAT.record(self._path, self._names[shard], place):
      record = unpack(data)
      self._check(record, index)
    return {k: v.astype(np.int32) for k, v in record.items() if k != "index"}

  def _check(self, record: Mapping[str, np.ndarray], index: int) -> None:
    """Raises ValueError for a record that the manifest does not describe."""
    contents = self.contents
    grid = (contents.dtype, contents.latent_shape)
    wanted = {
      "ids": grid,
      **{CONDITION + task: grid for task in contents.tasks},
      "label": ("int32", ()),
      "index": ("int64", ()),
    }
    if record.keys() != wanted.keys():
      raise ValueError(f"it holds {sorted(record)}, expected {sorted(wanted)}")
    for name, (dtype, shape) in wanted.items():
      array = record[name]
      if (array.dtype.name, array.shape) != (dtype, shape):
        raise ValueError(
          f"{name} is {array.dtype} {array.shape}, expected {dtype} {shape}"
        )
      # Numbers that do not fit would be looked up as others, without a word.
      if shape and array.max() >= contents.vocabulary:
        raise ValueError(
          f"{name} holds {array.max()}, expected ids below the vocabulary of"
          f" {contents.vocabulary}"
        )
    label, most = int(record["label"]), self._num_classes or 2**31
    if not 0 <= label < most:
      raise ValueError(f"label is {label}, expected one in 0..{most - 1}")
    if record["index"] != index:
      raise ValueError(f"index is {record['index']}, expected {index}")
