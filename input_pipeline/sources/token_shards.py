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
from typing import Any

import numpy as np
import safetensors.numpy

from storage import parts
from storage import shards as shards_lib

CONDITION = "condition/"  # prefix of a task's name


@dataclasses.dataclass(frozen=True)
class Contents:
  """Description of a folder's contents; equal ones give equal tokens."""

  tokenizer: str  # fingerprint by magvit/tokenizer/fingerprint.py
  dataset: dict[str, Any]  # name, split, frames, size, seed
  examples: int
  examples_per_shard: int  # number of examples in each shard but the last
  clip_shape: tuple[int, int, int]  # (T, H, W)
  latent_shape: tuple[int, int, int]  # (t, h, w)
  vocabulary: int
  bits: int  # number of bits that hold an id
  ids: str  # meaning of an id, and the order of ids, in words
  dtype: str  # type of stored ids
  tasks: tuple[str, ...]  # tasks whose condition tokens are stored
  condition_frames: int  # number of given frames, for tasks that count them

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

  def __init__(self, folder: str):
    """Reads every shard once for the checksum, about a second per GB.

    Raises:
      ValueError: an unfinished folder; a damaged or missing shard.
    """
    self.contents, shards = FORMAT.read(folder)
    for shard in shards:
      FORMAT.check(folder, shard, contents=True)
    names = [shard.name for shard in shards]
    self._records = FORMAT.open(folder, names, self.contents.examples)

  def __len__(self) -> int:
    return len(self._records)

  def __getitem__(self, index: int) -> dict[str, np.ndarray]:
    """{"ids": int32 (t, h, w), "label": int32 (), "condition/TASK": like ids}.

    The clip's place in its source, "index", is left out.
    """
    record = unpack(self._records[index])
    return {k: v.astype(np.int32) for k, v in record.items() if k != "index"}
