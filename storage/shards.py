"""Folders of ArrayRecord shards with a manifest that describes them.

KIND-00003-of-00016.arrayrecord  records of consecutive examples
KIND.json                        description of the examples; once finished,
                                 name, bytes and sha256 of each shard, too
"""

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import dataclasses
import json
import os
import typing
from typing import Annotated
from typing import Any

from array_record.python import array_record_module
from grain.sources import ArrayRecordDataSource

from storage import files
from storage import parts
from storage import schema
from storage import store_records
from storage import stores


@dataclasses.dataclass(frozen=True)
class Shard:
  """A finished shard: name, size and checksum of the file."""

  name: Annotated[str, schema.FILE_NAME]
  bytes: Annotated[int, schema.at_least(0)]
  sha256: Annotated[str, schema.SHA256]


def layout(kind: str, examples: int, per_shard: int) -> parts.Layout:
  """Layout of consecutive examples in shards, with the shards' names."""
  pattern = kind + "-{number:05}-of-{count:05}.arrayrecord"
  return parts.Layout(examples, per_shard, pattern)


def write(path: str, records: Iterable[bytes], compress: bool = True) -> None:
  """Writes a shard; a kill leaves none that looks finished.

  Raises:
    ValueError: the file cannot be written, for example to a full disk.
  """
  # Readers jump; with groups of one record none decompresses the neighbours.
  options = "group_size:1" + ("" if compress else ",uncompressed")
  with files.published(path) as temporary:
    with _named("write", path):
      writer = array_record_module.ArrayRecordWriter(str(temporary), options)
    for record in records:
      with _named("write", path):
        writer.write(record)
    with _named("write", path):
      writer.close()


@contextlib.contextmanager
def _named(action: str, path: str) -> Iterator[None]:
  """Names the file in the errors of its library, which are RuntimeErrors."""
  try:
    yield
  except (OSError, RuntimeError) as error:
    reason = " ".join(str(error).split()) or "it is cut off"
    remedy = {
      "write": "make room there, or name another folder",
      "read": "the file is damaged: copy or make it again",
    }[action]
    raise ValueError(f"cannot {action} {path} ({reason}): {remedy}") from error


class Records(Sequence[bytes]):
  """The records of several files, as one random-access sequence."""

  def __init__(self, paths: Sequence[str]):
    """Opens the files; ValueError that names one that is damaged."""
    self._paths = tuple(paths)
    # Grain has two base classes for it, by the platform, one without a length.
    try:
      source = ArrayRecordDataSource(self._paths)
    except RuntimeError:  # it does not say which file is damaged
      for path in self._paths:
        count_records(path)
      raise
    self._records = typing.cast(Sequence[bytes], source)

  def __len__(self) -> int:
    return len(self._records)

  def __getitem__(self, index):
    """A record; ValueError that names the file if it is damaged there."""
    try:
      return self._records[index]
    except RuntimeError:
      first = 0
      for path in self._paths:
        count = count_records(path)
        if index < first + count:
          with _named("read", f"record {index - first} of {path}"):
            raise
        first += count
      raise


def count_records(path: str) -> int:
  """Number of a file's records; ValueError for a damaged file."""
  with _named("read", path):
    return len(typing.cast(Sequence[bytes], ArrayRecordDataSource([path])))


def is_whole(path: str, count: int) -> bool:
  """Whether a file has so many records, none of them damaged."""
  if not stores.is_file(path):
    return False
  try:
    records = Records([path])
    return len(records) == count and all(
      records[i] is not None for i in range(count)
    )
  except ValueError:
    return False


def describe(folder: str, name: str) -> Shard:
  """The shard of a finished file."""
  path = os.path.join(folder, name)
  return Shard(name, stores.size(path), files.sha256(path))


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
    if not stores.exists(os.path.join(whole.path, self.manifest)):
      return []
    _, shards = self.read(whole.path)
    exists = lambda shard: stores.exists(os.path.join(whole.path, shard.name))
    return [shard for shard in shards if exists(shard)]

  def read(self, folder: str) -> tuple[Any, list[Any]]:
    """(contents, shards) of the manifest; no shards in an unfinished folder.

    Raises:
      ValueError: no manifest, or a damaged one.
    """
    path = os.path.join(folder, self.manifest)
    if not stores.is_file(path):
      raise ValueError(
        f"{folder} holds no {self.manifest}, so no job has finished there:"
        f" {self.remedy}"
      )
    remedy = f"{self.remedy}, in a new folder"
    name = f"{path} is no manifest of {self.kind}"
    fields = schema.read(path, remedy)
    schema.convert(fields, dict[str, Any], name, remedy)
    stored = fields.pop("shards", [])
    kinds = tuple[self.shard, ...]
    shards = schema.convert(stored, kinds, name, remedy, "shards")
    described = {f.name for f in dataclasses.fields(self.contents)}
    contents = {k: v for k, v in fields.items() if k in described}
    totals = {k: v for k, v in fields.items() if k not in described}
    schema.convert(totals, dict[str, int], name, remedy)
    return schema.convert(contents, self.contents, name, remedy), list(shards)

  def check_names(
    self, folder: str, whole: parts.Layout, shards: Sequence[Shard]
  ) -> None:
    """Raises ValueError unless the shards are those of a layout, in order."""
    count = -(-whole.examples // whole.per_part)
    held = [shard.name for shard in shards]
    if count != len(held) or whole.names != held:
      raise ValueError(
        f"{os.path.join(folder, self.manifest)} names {len(held)} shards, and"
        f" {whole.examples} examples, {whole.per_part} in each, need {count} of"
        f" {whole.pattern!r}: {self.remedy}, in a new folder"
      )

  def finish(self, folder: str, text: str) -> str:
    """Writes the manifest of a finished folder; returns the path."""
    path = os.path.join(folder, self.manifest)
    return str(files.write_atomically(path, text))

  def open(
    self, folder: str, shards: Sequence[Shard], counts: Sequence[int]
  ) -> Sequence[bytes]:
    """Records of shards, each of which has one at least.

    Those of a store are opened when a record of theirs is read, and no record
    is got before (`store_records`).

    Args:
      folder: the folder.
      shards: the shards in order.
      counts: number of records of each.

    Raises:
      ValueError: they have other numbers of records.
    """
    paths = [_inside(folder, shard.name) for shard in shards]
    if stores.is_url(folder):
      sizes = [shard.bytes for shard in shards]
      checksums = [shard.sha256 for shard in shards]
      return store_records.StoreRecords(paths, sizes, counts, checksums)
    records = Records(paths)
    if len(records) != sum(counts):
      raise ValueError(
        f"{folder} holds {len(records)} examples, and its {self.manifest} says"
        f" {sum(counts)}: {self.remedy}, in a new folder"
      )
    return records

  @contextlib.contextmanager
  def record(self, folder: str, name: str, place: int) -> Iterator[None]:
    """Names a record in errors of reading what is in it."""
    try:
      yield
    except Exception as error:  # libraries that unpack it raise any class
      reason = str(error) if isinstance(error, ValueError) else repr(error)
      raise ValueError(
        f"{os.path.join(folder, name)}: record {place} is none of"
        f" {self.kind} ({reason}): {self.remedy}, in a new folder"
      ) from error

  def check_all(
    self, folder: str, shards: Sequence[Shard], contents: bool
  ) -> None:
    """Checks all shards, as `check` does.

    The checksums of those of a store are not compared, for that would read all
    of them; each record has one of its own, which is compared when it is read.
    """
    if not stores.is_url(folder):
      for shard in shards:
        self.check(folder, shard, contents)
      return
    sizes = stores.sizes(folder)
    for shard in shards:
      if shard.name not in sizes:
        raise self._lacks(folder, shard)
      self._compare(folder, shard, {"bytes": sizes[shard.name]})

  def check(self, folder: str, shard: Shard, contents: bool) -> None:
    """Raises ValueError for a shard that is missing or of another size.

    With `contents` the checksum is compared as well.
    """
    path = _inside(folder, shard.name)
    if not stores.is_file(path):
      raise self._lacks(folder, shard)
    actual: dict[str, int | str] = {"bytes": stores.size(path)}
    if contents:
      actual["sha256"] = files.sha256(path)
    self._compare(folder, shard, actual)

  def _lacks(self, folder: str, shard: Shard) -> ValueError:
    return ValueError(f"{folder} lacks the shard {shard.name}: {self.remedy}")

  def _compare(
    self, folder: str, shard: Shard, actual: dict[str, int | str]
  ) -> None:
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


def _inside(folder: str, name: str) -> str:
  """Path of a file in a folder; ValueError if a link leads out of it."""
  path = os.path.join(folder, name)
  if stores.is_url(path):  # which has no links
    return path
  if os.path.dirname(os.path.realpath(path)) != os.path.realpath(folder):
    raise ValueError(
      f"{path} leads out of its folder, to {os.path.realpath(path)}: put the"
      " file itself there"
    )
  return path
