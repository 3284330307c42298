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
from collections.abc import Sequence
import dataclasses
import hashlib
import json
import os
from typing import Any

from grain.sources import ArrayRecordDataSource
import numpy as np
import safetensors.numpy

MANIFEST = "tokens.json"
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
  def shard_names(self) -> list[str]:
    count = -(-self.examples // self.examples_per_shard)
    return [f"tokens-{i:05}-of-{count:05}.arrayrecord" for i in range(count)]

  def places(self, name: str) -> range:
    """Which clips of the source a shard holds."""
    start = self.shard_names.index(name) * self.examples_per_shard
    return range(start, min(start + self.examples_per_shard, self.examples))


@dataclasses.dataclass(frozen=True)
class Shard:
  """One file of a finished folder."""

  name: str
  bytes: int
  sha256: str


def contents_from_json(text: str) -> tuple[Contents, list[Shard]]:
  """Of tokens.json; an unfinished folder's has no shards."""
  fields = json.loads(text)
  shards = [Shard(**shard) for shard in fields.pop("shards", [])]
  for name, value in fields.items():
    fields[name] = tuple(value) if isinstance(value, list) else value
  return Contents(**fields), shards


def to_json(contents: Contents, shards: Sequence[Shard] = ()) -> str:
  fields = dataclasses.asdict(contents)
  if shards:
    fields["shards"] = [dataclasses.asdict(shard) for shard in shards]
  return json.dumps(fields, indent=2) + "\n"


def read_manifest(folder: str) -> tuple[Contents, list[Shard]]:
  """Of a finished folder.

  Raises:
    ValueError: no manifest there, or one of another format.
  """
  path = os.path.join(folder, MANIFEST)
  if not os.path.isfile(path):
    raise ValueError(
      f"dataset.tokens={folder} holds no {MANIFEST}, so nothing was tokenized"
      " there to the end: run --mode=tokenize --output=FOLDER (again)"
    )
  with open(path) as f:
    try:
      return contents_from_json(f.read())
    except (ValueError, TypeError, AttributeError) as error:
      raise ValueError(
        f"{path} is no manifest of tokens ({error}): run --mode=tokenize into"
        " a new folder"
      ) from error


def describe_shard(folder: str, name: str) -> Shard:
  path = os.path.join(folder, name)
  with open(path, "rb") as f:
    digest = hashlib.file_digest(f, "sha256").hexdigest()
  return Shard(name, os.path.getsize(path), digest)


def check_shard(folder: str, shard: Shard) -> None:
  """Raises ValueError naming a shard that is missing or was changed."""
  remedy = "run the --mode=tokenize that made it again"
  if not os.path.isfile(os.path.join(folder, shard.name)):
    raise ValueError(f"{folder} lacks the shard {shard.name}: {remedy}")
  found = describe_shard(folder, shard.name)
  if found != shard:
    raise ValueError(
      f"the shard {shard.name} in {folder} is damaged: {found.bytes} bytes of"
      f" sha256 {found.sha256[:16]}, and {MANIFEST} says {shard.bytes} of"
      f" {shard.sha256[:16]}; delete it and {remedy}"
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
    self.contents, shards = read_manifest(folder)
    for shard in shards:
      check_shard(folder, shard)
    self._records = ArrayRecordDataSource(
      [os.path.join(folder, shard.name) for shard in shards]
    )
    if len(self._records) != self.contents.examples:
      raise ValueError(
        f"dataset.tokens={folder} holds {len(self._records)} clips, and its"
        f" {MANIFEST} says {self.contents.examples}: make the folder again"
      )

  def __len__(self) -> int:
    return len(self._records)

  def __getitem__(self, index: int) -> dict[str, np.ndarray]:
    """{"ids": int32 (t, h, w), "label": int32 (), "condition/TASK": as ids}.

    The clip's place in its source, "index", is left out.
    """
    record = unpack(self._records[index])
    return {k: v.astype(np.int32) for k, v in record.items() if k != "index"}
