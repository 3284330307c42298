"""Folders of ArrayRecord shards, and the manifest that says what they hold.

NAME-00003-of-00016.arrayrecord  records of consecutive examples
MANIFEST                         JSON: fields that say what the examples are,
                                 and of a finished folder "shards", with name,
                                 bytes and sha256 of each
"""

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import json
import os
from typing import Any

from array_record.python import array_record_module

from storage import files
from storage import parts


@dataclasses.dataclass(frozen=True)
class Shard:
  """One finished file."""

  name: str
  bytes: int
  sha256: str


def layout(kind: str, examples: int, per_shard: int) -> parts.Layout:
  """Which consecutive examples each shard holds, and how it is called."""
  pattern = kind + "-{number:05}-of-{count:05}.arrayrecord"
  return parts.Layout(examples, per_shard, pattern)


def write(path: str, records: Iterable[bytes], compress: bool = True) -> None:
  """Writes a shard; a kill leaves none that looks finished."""
  # Groups of one record: readers jump, so none decompresses its neighbours.
  options = "group_size:1" + ("" if compress else ",uncompressed")
  with files.published(path, one_writer=True) as temporary:
    writer = array_record_module.ArrayRecordWriter(str(temporary), options)
    for record in records:
      writer.write(record)
    writer.close()


def describe(folder: str, name: str) -> Shard:
  path = os.path.join(folder, name)
  return Shard(name, os.path.getsize(path), files.sha256(path))


@dataclasses.dataclass(frozen=True)
class Format:
  """A kind of such folders.

  Attributes:
    manifest: name of the file; without its suffix it names the kind.
    contents: dataclass of the fields that say what the examples are.
    shard: dataclass of a shard, `Shard` or a subclass.
    remedy: how to make a folder or a shard again, for errors.
  """

  manifest: str
  contents: type
  shard: type[Shard]
  remedy: str

  def read(self, folder: str) -> tuple[Any, list[Any]]:
    """(contents, shards), no shards if the folder is unfinished.

    Raises:
      ValueError: no manifest there, or one of another format.
    """
    path = os.path.join(folder, self.manifest)
    if not os.path.isfile(path):
      raise ValueError(
        f"{folder} holds no {self.manifest}, so nothing was made there to the"
        f" end: {self.remedy}"
      )
    with open(path) as f:
      try:
        return self.parse(f.read())
      except (ValueError, TypeError, KeyError, AttributeError) as error:
        kind = os.path.splitext(self.manifest)[0]
        raise ValueError(
          f"{path} is no manifest of {kind} ({error!r}): {self.remedy}, in a"
          " new folder"
        ) from error

  def parse(self, text: str) -> tuple[Any, list[Any]]:
    manifest = json.loads(text)
    shards = [from_json(self.shard, s) for s in manifest.get("shards", ())]
    return from_json(self.contents, manifest), shards

  def check_size(self, folder: str, shard: Shard) -> None:
    """Raises ValueError for a shard that is missing or of another size."""
    path = os.path.join(folder, shard.name)
    if not os.path.isfile(path):
      raise ValueError(f"{folder} lacks the shard {shard.name}: {self.remedy}")
    self._check(folder, shard, "bytes", os.path.getsize(path))

  def check_contents(self, folder: str, shard: Shard) -> None:
    """Raises ValueError for a shard that is missing or was changed."""
    self.check_size(folder, shard)
    digest = files.sha256(os.path.join(folder, shard.name))
    self._check(folder, shard, "sha256", digest)

  def _check(self, folder: str, shard: Shard, field: str, found: Any) -> None:
    expected = getattr(shard, field)
    if found != expected:
      raise ValueError(
        f"the shard {shard.name} in {folder} is damaged: expected {field}"
        f" {expected} and found {found}; delete it and {self.remedy}"
      )


def to_json(
  contents: Any, shards: Sequence[Shard] = (), indent: int = 2, **totals: int
) -> str:
  """The manifest; that of an unfinished folder has no shards or totals."""
  fields = dataclasses.asdict(contents)
  if shards:
    fields |= {**totals, "shards": [dataclasses.asdict(s) for s in shards]}
  return json.dumps(fields, indent=indent) + "\n"


def from_json(kind: type, fields: Mapping[str, Any]) -> Any:
  """A dataclass from its fields as JSON keeps them; further ones are ignored.

  Raises:
    KeyError: a missing field.
  """
  return kind(
    **{f.name: _frozen(fields[f.name]) for f in dataclasses.fields(kind)}
  )


def _frozen(value: Any) -> Any:
  """JSON's lists as tuples, at every depth."""
  return tuple(map(_frozen, value)) if isinstance(value, list) else value
