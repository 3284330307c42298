"""Stored tokens: ArrayRecord shards of a data set, and their manifest.

`main.py --mode=tokenize` writes a folder

  tokens-00003-of-00016.arrayrecord  tokens of consecutive clips
  tokens.json                        what they are, sha256 of each shard

A record is one clip in the safetensors format, so it says itself what is in
it: "ids" (t, h, w) in the smallest unsigned type that holds the vocabulary,
"label" int32 (), "index" int64 (), the clip's place in its source, and
"condition/TASK" like "ids", the tokens of the task's condition clip. Reading
one takes 25 us; npz takes 600, and neither runs code of the file.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

import numpy as np
import safetensors.numpy

from storage import parts
from storage import shards as shards_lib

CONDITION = "condition/"  # then the task's name


@dataclasses.dataclass(frozen=True)
class Contents:
  """What is stored: of two folders with equal contents, the same."""

  tokenizer: str  # magvit/tokenizer/fingerprint.py
  dataset: dict[str, Any]  # name, split, frames, size, seed
  examples: int
  examples_per_shard: int  # of all shards but the last
  clip_shape: tuple[int, int, int]  # (T, H, W)
  latent_shape: tuple[int, int, int]  # (t, h, w)
  vocabulary: int
  bits: int  # that hold an id
  ids: str  # what a number means, and in which order they stand
  dtype: str  # of stored ids
  tasks: tuple[str, ...]  # whose condition tokens are stored
  condition_frames: int  # that those tasks were given, where they count frames

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
  return safetensors.numpy.save(dict(record))


def unpack(data: bytes) -> dict[str, np.ndarray]:
  return safetensors.numpy.load(data)


class TokenShards:
  """Random-access source of stored tokens, in the form grain reads."""

  def __init__(self, folder: str):
    """Reads every shard once, for its checksum: about a second per GB.

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
    """{"ids": int32 (t, h, w), "label": int32 (), "condition/TASK": as ids}.

    The clip's place in its source, "index", is left out.
    """
    record = unpack(self._records[index])
    return {k: v.astype(np.int32) for k, v in record.items() if k != "index"}
