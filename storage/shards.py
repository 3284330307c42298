"""Folders of ArrayRecord shards with a manifest that describes them.

KIND-00003-of-00016.arrayrecord  records of consecutive examples
KIND.json                        description of the examples; once finished,
                                 name, bytes and sha256 of each shard, too
"""

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import json
import os
import typing
from typing import Any

from array_record.python import array_record_module
from grain.sources import ArrayRecordDataSource

from storage import files
from storage import parts


@dataclasses.dataclass(frozen=True)
class Shard:
  """A finished shard: name, size and checksum of the file."""

  name: str
  bytes: int
  sha256: str


def layout(kind: str, examples: int, per_shard: int) -> parts.Layout:
  """Layout of consecutive examples in shards, with the shards' names."""
  pattern = kind + "-{number:05}-of-{count:05}.arrayrecord"
  return parts.Layout(examples, per_shard, pattern)


def write(path: str, records: Iterable[bytes], compress: bool = True) -> None:
  """Writes a shard; a kill leaves none that looks finished."""
  # Readers jump; with groups of one record none decompresses the neighbours.
  options = "group_size:1" + ("" if compress else ",uncompressed")
  with files.published(path) as temporary:
    writer = array_record_module.ArrayRecordWriter(str(temporary), options)
    for record in records:
      writer.write(record)
    writer.close()


def open_records(paths: Sequence[str]) -> Sequence[bytes]:
  """The records of several files, as one random-access sequence."""
  # Grain has two base classes for it, by the platform, one without a length.
  return typing.cast(Sequence[bytes], ArrayRecordDataSource(paths))


def describe(folder: str, name: str) -> Shard:
  """The shard of a finished file."""
  path = os.path.join(folder, name)
  return Shard(name, os.path.getsize(path), files.sha256(path))


@dataclasses.dataclass(frozen=True)
class Format:
  """A kind of folders of shards, with the manifest KIND.json."""

  kind: str
  contents: type  # dataclass of the fields that describe the examples
  shard: type[Shard]
  remedy: str  # advice in errors: how to make a folder or a shard again

  @property
  def manifest(self) -> str:
    return f"{self.kind}.json"

  def claim(
    self, whole: parts.Folder, text: str, record: str | None = None
  ) -> list[Any]:
    """Claims a folder; returns the manifest's shards that still exist.

    Until the folder is finished, `text`, a manifest without shards, stands in
    the file `record`, by default the manifest's.
    """
    whole.claim(record or self.manifest, text, self.kind, self.manifest)
    if not os.path.exists(os.path.join(whole.path, self.manifest)):
      return []
    _, shards = self.read(whole.path)
    exists = lambda shard: os.path.exists(os.path.join(whole.path, shard.name))
    return [shard for shard in shards if exists(shard)]

  def read(self, folder: str) -> tuple[Any, list[Any]]:
    """(contents, shards) of the manifest; no shards in an unfinished folder.

    Raises:
      ValueError: no manifest, or a damaged one.
    """
    path = os.path.join(folder, self.manifest)
    if not os.path.isfile(path):
      raise ValueError(
        f"{folder} holds no {self.manifest}, so no job has finished there:"
        f" {self.remedy}"
      )
    try:
      fields = files.read_json(path)
      shards = [from_json(self.shard, s) for s in fields.get("shards", ())]
      return from_json(self.contents, fields), shards
    except (ValueError, TypeError, KeyError, AttributeError) as error:
      raise ValueError(
        f"{path} is no manifest of {self.kind} ({error!r}): {self.remedy}, in a"
        " new folder"
      ) from error

  def finish(self, folder: str, text: str) -> str:
    """Writes the manifest of a finished folder; returns the path."""
    path = os.path.join(folder, self.manifest)
    return str(files.write_atomically(path, text))

  def open(
    self, folder: str, names: Sequence[str], count: int
  ) -> Sequence[bytes]:
    """Records of shards; ValueError if their number is not `count`."""
    paths = [os.path.join(folder, name) for name in names]
    records = open_records(paths)
    if len(records) != count:
      raise ValueError(
        f"{folder} holds {len(records)} examples, and its {self.manifest} says"
        f" {count}: {self.remedy}, in a new folder"
      )
    return records

  def check(self, folder: str, shard: Shard, contents: bool) -> None:
    """Raises ValueError for a shard that is missing or of another size.

    With `contents` the checksum is compared as well.
    """
    path = os.path.join(folder, shard.name)
    if not os.path.isfile(path):
      raise ValueError(f"{folder} lacks the shard {shard.name}: {self.remedy}")
    actual: dict[str, int | str] = {"bytes": os.path.getsize(path)}
    if contents:
      actual["sha256"] = files.sha256(path)
    for field, value in actual.items():
      if value != getattr(shard, field):
        raise ValueError(
          f"the shard {shard.name} in {folder} is damaged: expected {field}"
          f" {getattr(shard, field)} and found {value}; delete it and"
          f" {self.remedy}"
        )


def to_json(
  contents: Any, shards: Sequence[Shard] = (), indent: int = 2, **totals: int
) -> str:
  """Manifest as JSON; an unfinished folder's has no shards and no totals."""
  fields = dataclasses.asdict(contents)
  if shards:
    fields |= {**totals, "shards": [dataclasses.asdict(s) for s in shards]}
  return json.dumps(fields, indent=indent) + "\n"


def from_json(kind: type, fields: Mapping[str, Any]) -> Any:
  """A dataclass from its fields in JSON; KeyError for a missing field."""
  return kind(
    **{f.name: _frozen(fields[f.name]) for f in dataclasses.fields(kind)}
  )


def _frozen(value: Any) -> Any:
  """The value, with JSON's lists as tuples at every depth."""
  return tuple(map(_frozen, value)) if isinstance(value, list) else value
