"""Encoded images and videos in ArrayRecord shards with a manifest.

`python -m input_pipeline.prepare` writes a folder for each split

  train/media-00003-of-00016.arrayrecord  examples, in the order of the list
  train/media.json                        their plan, sha256 of each shard

A record is one example in the safetensors format, which runs no code: "media"
uint8 (n,), the bytes of a file, or of all files of a video's frames in turn;
"sizes" int64 (k,), the bytes of each file; "label" int32 (); "name" uint8 (m,),
the path of the example.
"""

from collections.abc import Sequence
import dataclasses
import json
import os
import typing
from typing import Annotated
from typing import Any

import numpy as np
import safetensors.numpy

from input_pipeline.decoding import frame_reader
from storage import parts
from storage import schema
from storage import shards as shards_lib


@dataclasses.dataclass(frozen=True)
class Plan:
  """Description of a folder's contents; equal plans give equal contents."""

  name: str  # name of the data set
  split: Annotated[str, schema.one_of("train", "held_out")]
  class_names: tuple[str, ...]
  # Number of examples in the list, broken ones included.
  listed: Annotated[int, schema.at_least(0)]
  # Checksum of names and labels, in order.
  listing_sha256: Annotated[str, schema.SHA256]
  # Number of listed examples for each shard.
  examples_per_shard: Annotated[int, schema.at_least(1)]
  encoding: dict[str, Any]  # fields of Encoding; {}: the files as they are
  attribution: str = ""  # whose the videos are, for those who see pictures

  @property
  def layout(self) -> parts.Layout:
    return shards_lib.layout("media", self.listed, self.examples_per_shard)


@dataclasses.dataclass(frozen=True)
class Shard(shards_lib.Shard):
  """One shard, as the manifest describes it."""

  # Number of frames of each example.
  lengths: tuple[Annotated[int, schema.at_least(1)], ...]
  broken: tuple[tuple[str, str], ...]  # (path, reason) of examples left out


FORMAT = shards_lib.Format(
  "media",
  Plan,
  Shard,
  "run the `python -m input_pipeline.prepare` that made it (again)",
)


def to_json(plan: Plan, shards: Sequence[Shard] = ()) -> str:
  """Manifest as JSON; without shards it is that of an unfinished folder."""
  text = shards_lib.to_json(
    plan,
    shards,
    indent=1,
    examples=sum(len(shard.lengths) for shard in shards),
    broken=sum(len(shard.broken) for shard in shards),
  )
  if plan.attribution:
    return text
  # Manifests of before lack the field, and describe the same shards.
  fields = json.loads(text)
  del fields["attribution"]
  return json.dumps(fields, indent=1) + "\n"


def pack(encoded: frame_reader.Encoded) -> bytes:
  """Record of an example whose `parts` are bytes."""
  parts = typing.cast(tuple[bytes, ...], encoded.parts)
  return safetensors.numpy.save(
    {
      "media": np.frombuffer(b"".join(parts), np.uint8),
      "sizes": np.array([len(part) for part in parts], np.int64),
      "label": np.array(encoded.label, np.int32),
      "name": np.frombuffer(os.fsencode(encoded.name), np.uint8),
    }
  )


def unpack(record: bytes) -> frame_reader.Encoded:
  """The example in a record by `pack`; ValueError if it contradicts itself."""
  arrays = safetensors.numpy.load(record)
  data, ends = arrays["media"].tobytes(), np.cumsum(arrays["sizes"])
  sizes = arrays["sizes"].tolist()
  if min(sizes, default=0) < 1 or sum(sizes) != len(data):
    raise ValueError(f"{len(data)} bytes cannot be files of {sizes[:5]} bytes")
  parts = tuple(
    data[end - size : end]
    for end, size in zip(ends, arrays["sizes"], strict=True)
  )
  return frame_reader.Encoded(
    os.fsdecode(arrays["name"].tobytes()), int(arrays["label"]), parts
  )


class MediaShards:
  """Random-access encoded examples of a finished folder."""

  def __init__(self, path: str, split: str):
    """Checks the size of every shard; only `prepare --check` reads them all.

    Raises:
      ValueError: an unfinished folder; a shard that is missing or of another
        size.
    """
    folder = os.path.join(path, split)
    plan, shards = FORMAT.read(folder)
    if not shards:
      raise ValueError(f"{folder} is not finished: {FORMAT.remedy}")
    FORMAT.check_names(folder, plan.layout, shards)
    FORMAT.check_all(folder, shards, contents=False)
    self.lengths = [n for shard in shards for n in shard.lengths]
    self.class_names = plan.class_names
    self.attribution = plan.attribution
    held = [shard for shard in shards if shard.lengths]
    self._folder, self._names = folder, [shard.name for shard in held]
    counts = [len(shard.lengths) for shard in held]
    self._ends = np.cumsum(counts)
    self._records = FORMAT.open(folder, held, counts)

  def __len__(self) -> int:
    return len(self.lengths)

  def __getitem__(self, index: int) -> frame_reader.Encoded:
    """An example; ValueError for a damaged record, or one of no class."""
    record = self._records[index]
    shard = int(np.searchsorted(self._ends, index, side="right"))
    place = index - (int(self._ends[shard - 1]) if shard else 0)
    with FORMAT.record(self._folder, self._names[shard], place):
      encoded = unpack(record)
      if not 0 <= encoded.label < max(len(self.class_names), 1):
        raise ValueError(
          f"label is {encoded.label}, expected one in"
          f" 0..{max(len(self.class_names), 1) - 1}"
        )
    return encoded
