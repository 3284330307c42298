"""Encoded images and videos in ArrayRecord shards, and their manifest.

`python -m input_pipeline.prepare` writes a folder for each split

  train/media-00003-of-00016.arrayrecord  examples, in the order of the list
  train/media.json                        what they are, sha256 of each shard

A record is one example in the safetensors format, which runs no code: "media"
uint8 (n,), the bytes of a file, or of a video's frames one behind the other;
"sizes" int64 (k,), of each; "label" int32 (); "name" uint8 (m,), its path.
"""

from collections.abc import Sequence
import dataclasses
import hashlib
import json
import os
from typing import Any

from grain.sources import ArrayRecordDataSource
import numpy as np
import safetensors.numpy

from input_pipeline.decoding import frame_reader

MANIFEST = "media.json"
_REMEDY = (
  "delete it and run the `python -m input_pipeline.prepare` that made it again"
)


@dataclasses.dataclass(frozen=True)
class Plan:
  """What is stored: of two folders with equal plans, the same."""

  name: str  # of the data set
  split: str  # "train" or "held_out"
  class_names: tuple[str, ...]
  listed: int  # examples in the list, the broken ones, too
  listing_sha256: str  # of names and labels, in order
  examples_per_shard: int  # listed ones
  encoding: dict[str, Any]  # of the media; {}: the files' own bytes

  @property
  def shard_names(self) -> list[str]:
    count = -(-self.listed // self.examples_per_shard)
    return [f"media-{i:05}-of-{count:05}.arrayrecord" for i in range(count)]

  def places(self, number: int) -> range:
    """Which of the listed examples a shard is made of."""
    start = number * self.examples_per_shard
    return range(start, min(start + self.examples_per_shard, self.listed))


@dataclasses.dataclass(frozen=True)
class Shard:
  """One finished file."""

  name: str
  bytes: int
  sha256: str
  lengths: tuple[int, ...]  # frames of each of its examples
  broken: tuple[tuple[str, str], ...]  # (path, reason) of what was left out


def to_json(plan: Plan, shards: Sequence[Shard] = ()) -> str:
  """The manifest; that of an unfinished folder has no shards."""
  fields = dataclasses.asdict(plan)
  if shards:
    fields["examples"] = sum(len(shard.lengths) for shard in shards)
    fields["broken"] = sum(len(shard.broken) for shard in shards)
    fields["shards"] = [dataclasses.asdict(shard) for shard in shards]
  return json.dumps(fields, indent=1) + "\n"


def plan_of(manifest: dict[str, Any]) -> Plan:
  fields = {f.name: manifest[f.name] for f in dataclasses.fields(Plan)}
  return Plan(**{**fields, "class_names": tuple(fields["class_names"])})


def read_manifest(folder: str) -> dict[str, Any]:
  """Of a split's folder, finished or not.

  Raises:
    ValueError: no manifest there, or one of another format.
  """
  path = os.path.join(folder, MANIFEST)
  if not os.path.isfile(path):
    raise ValueError(
      f"{folder} holds no {MANIFEST}: make it with"
      " `python -m input_pipeline.prepare`"
    )
  with open(path) as f:
    try:
      manifest = json.load(f)
      plan_of(manifest)
      return manifest
    except (ValueError, TypeError, KeyError) as error:
      raise ValueError(
        f"{path} is no manifest of media ({error!r}): make it with"
        " `python -m input_pipeline.prepare` in a new folder"
      ) from error


def shards_of(manifest: dict[str, Any]) -> list[Shard]:
  """[] of an unfinished folder."""
  shards = [Shard(**fields) for fields in manifest.get("shards", ())]
  return [
    dataclasses.replace(
      shard,
      lengths=tuple(shard.lengths),
      broken=tuple((path, reason) for path, reason in shard.broken),
    )
    for shard in shards
  ]


def pack(encoded: frame_reader.Encoded) -> bytes:
  """A record; `parts` must be bytes."""
  return safetensors.numpy.save(
    {
      "media": np.frombuffer(b"".join(encoded.parts), np.uint8),
      "sizes": np.array([len(part) for part in encoded.parts], np.int64),
      "label": np.array(encoded.label, np.int32),
      "name": np.frombuffer(encoded.name.encode(), np.uint8),
    }
  )


def unpack(record: bytes) -> frame_reader.Encoded:
  arrays = safetensors.numpy.load(record)
  data, ends = arrays["media"].tobytes(), np.cumsum(arrays["sizes"])
  parts = tuple(
    data[end - size : end]
    for end, size in zip(ends, arrays["sizes"], strict=True)
  )
  return frame_reader.Encoded(
    arrays["name"].tobytes().decode(), int(arrays["label"]), parts
  )


def describe_file(path: str) -> tuple[int, str]:
  """(bytes, sha256)."""
  with open(path, "rb") as f:
    digest = hashlib.file_digest(f, "sha256").hexdigest()
  return os.path.getsize(path), digest


class MediaShards:
  """Random-access encoded examples of a finished folder."""

  def __init__(self, path: str, split: str):
    """Checks the size of every shard; `prepare --check` reads them, too.

    Raises:
      ValueError: an unfinished folder; a shard that is missing or of another
        size.
    """
    folder = os.path.join(path, split)
    manifest = read_manifest(folder)
    shards = shards_of(manifest)
    if not shards:
      raise ValueError(
        f"{folder} is not finished: run the `python -m input_pipeline.prepare`"
        " that began it again"
      )
    for shard in shards:
      check_size(folder, shard)
    self.lengths = [n for shard in shards for n in shard.lengths]
    self.class_names = tuple(manifest["class_names"])
    self._records = ArrayRecordDataSource(
      [os.path.join(folder, shard.name) for shard in shards if shard.lengths]
    )
    if len(self._records) != len(self.lengths):
      raise ValueError(
        f"{folder} holds {len(self._records)} examples, and its {MANIFEST} says"
        f" {len(self.lengths)}: make the folder again"
      )

  def __len__(self) -> int:
    return len(self.lengths)

  def __getitem__(self, index: int) -> frame_reader.Encoded:
    return unpack(self._records[index])


def check_size(folder: str, shard: Shard) -> None:
  """Raises ValueError for a shard that is missing or of another size."""
  path = os.path.join(folder, shard.name)
  found = os.path.getsize(path) if os.path.isfile(path) else None
  if found != shard.bytes:
    raise ValueError(
      f"the shard {path} is {'missing' if found is None else 'damaged'}:"
      f" expected {shard.bytes} bytes and found {found}; {_REMEDY}"
    )


def check_contents(folder: str, shard: Shard) -> None:
  """Raises ValueError for a shard whose bytes were changed."""
  check_size(folder, shard)
  _, digest = describe_file(os.path.join(folder, shard.name))
  if digest != shard.sha256:
    raise ValueError(
      f"the shard {os.path.join(folder, shard.name)} is damaged: expected"
      f" sha256 {shard.sha256[:16]} and found {digest[:16]}; {_REMEDY}"
    )
