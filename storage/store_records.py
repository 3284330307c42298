"""Records of ArrayRecord shards in a store, each got by its range of bytes.

The library of ArrayRecord opens files of a disk alone. Of a shard in a store
this reader gets the end, which says where each record begins, and then the
bytes of one record at a time. A file in memory that has these bytes at their
places, and else holes, is opened by the library, so that it is the library that
unpacks a record and compares its checksum. That takes about half a millisecond
more than a file of a disk, and 16 bytes of memory for each record.

The format is Riegeli's (google/riegeli, doc/riegeli_records_file_format.md):
chunks of a header of 40 bytes and data, interrupted by a header of 24 bytes at
every multiple of 64 KiB. Our shards have one record in each chunk. The last 64
KiB say where the chunk with the index begins.
"""

from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import dataclasses
import hashlib
import itertools
import os
import struct
import tempfile
import threading

from array_record.python import array_record_module
import numpy as np
import zstandard

from storage import shard_cache
from storage import store_calls

SECONDS = 300.0  # after which a request counts as failed, however it stalls
_RIEGELI_BLOCK = 2**16
_BLOCK_HEADER, _CHUNK_HEADER = 24, 40
_MOST_INDEX = 2**30  # bytes of an unpacked index
_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"


@dataclasses.dataclass(frozen=True)
class _Index:
  """Where the records of a shard are.

  size: bytes of the shard.
  starts: place of the first byte of each record's chunk, and of the index; the
    end of a chunk is the start of the next one; int64 (records + 1,).
  end: the bytes from the index to the end of the shard, without the zeros that
    follow.
  """

  size: int
  starts: np.ndarray
  end: bytes


class StoreRecords(Sequence[bytes]):
  """The records of several shards in a store, as one sequence."""

  def __init__(
    self,
    urls: Sequence[str],
    sizes: Sequence[int],
    counts: Sequence[int],
    checksums: Sequence[str],
  ):
    """Reads nothing yet.

    Args:
      urls: the shards.
      sizes: bytes of each.
      counts: number of records of each.
      checksums: sha256 of each, by which parts of it are known on this machine.

    Raises:
      ValueError: settings of storage/shard_cache.py that cannot be read.
    """
    self._urls, self._counts = tuple(urls), tuple(counts)
    self._ends = np.cumsum(counts)
    # Shards of equal contents are one set, wherever they lie.
    shards = repr([*zip(sizes, checksums, strict=True)])
    name = hashlib.sha256(shards.encode()).hexdigest()[:32]
    self._reader = shard_cache.Reader(
      name, list(sizes), self._fetch, shard_cache.settings()
    )
    self._sizes = tuple(sizes)
    self._indexes: dict[int, _Index] = {}

  def __len__(self) -> int:
    return int(self._ends[-1]) if len(self._ends) else 0

  def __getitem__(self, index):
    """A record.

    Raises:
      ValueError: the store does not answer, or the shard is damaged; names it.
    """
    number = int(np.searchsorted(self._ends, index, side="right"))
    if not 0 <= index < len(self):
      raise IndexError(f"record {index} of {len(self)}")
    place = int(index) - (int(self._ends[number - 1]) if number else 0)
    if number not in self._indexes:
      self._indexes[number] = self._index(number)
    where = self._indexes[number]
    start, end = map(int, where.starts[place : place + 2])
    name = f"record {place} of {self._urls[number]}"
    return self._parsed(
      name, number, start, end, lambda data: _unpack(where, place, data)
    )

  def _index(self, number: int) -> _Index:
    """The index of a shard; ValueError if it has not the expected records."""
    url, size = self._urls[number], self._sizes[number]
    if size < 2 * _RIEGELI_BLOCK:
      raise ValueError(_damaged(url, f"it has {size} bytes"))
    begin = self._parsed(
      *(url, number, size - _RIEGELI_BLOCK, size),
      lambda data: _footer_start(data, size),
    )
    index = self._parsed(
      *(url, number, begin, size), lambda data: _read_index(data, begin, size)
    )
    if len(index.starts) != self._counts[number] + 1:
      raise ValueError(
        _damaged(
          url,
          f"it has {len(index.starts) - 1} records, and its manifest says"
          f" {self._counts[number]}",
        )
      )
    return index

  def _parsed(self, name, number, start, end, parse):
    """What `parse` makes of some bytes; they are got again if it cannot.

    A cut of power may have damaged those that were kept on this machine.
    """
    try:
      return parse(self._reader.read(number, start, end))
    except _BROKEN:
      self._reader.forget(number, start, end)
    try:
      return parse(self._fetch(number, start, end))
    except _BROKEN as error:
      raise ValueError(_damaged(name, str(error))) from error

  def _fetch(self, number: int, start: int, end: int) -> bytes:
    """Bytes of a shard from the store; ValueError if they cannot be got."""
    url = self._urls[number]

    def act(system) -> bytes:
      data = system.cat_file(url, start=start, end=end)
      if len(data) == end - start:
        return data
      raise EOFError(
        f"it breaks off after byte {start + len(data)}, and its manifest says"
        f" {self._sizes[number]}: copy or make it again"
      )

    try:
      return _within(SECONDS, lambda: store_calls.tried(url, act))
    except OSError as error:
      raise ValueError(
        f"cannot read {url} ({error.strerror or error})"
      ) from error


class _Damaged(Exception):
  """Bytes that are no part of a shard."""


_BROKEN = (_Damaged, IndexError, struct.error, zstandard.ZstdError)


def _damaged(name: str, reason: str) -> str:
  return (
    f"cannot read {name} ({' '.join(reason.split())}): the file is damaged:"
    " copy or make it again"
  )


def _within(seconds, act):
  """The result of `act`; TimeoutError if there is none in time."""
  result = []

  def run() -> None:
    try:
      result.append((act(), None))
    except BaseException as error:
      result.append((None, error))

  # It ends with the process, unlike threads of an executor.
  thread = threading.Thread(target=run, name="fetch", daemon=True)
  thread.start()
  thread.join(seconds)
  if not result:
    raise TimeoutError(f"the store has not answered for {seconds:.0f} s")
  value, error = result[0]
  if error is not None:
    raise error
  return value


def _unpack(index: _Index, place: int, chunk: bytes) -> bytes:
  """The record in the bytes of its chunk, by the library."""
  with _opened(index, chunk, int(index.starts[place])) as reader:
    return reader.read([place])[0]


@contextlib.contextmanager
def _opened(index: _Index, chunk: bytes = b"", start: int = 0):
  """The library's reader of a shard that has one chunk alone."""
  with _memory_file() as (descriptor, path):
    os.ftruncate(descriptor, index.size)
    os.pwrite(descriptor, chunk, start)
    os.pwrite(descriptor, index.end, int(index.starts[-1]))
    try:
      reader = array_record_module.ArrayRecordReader(
        path, options=_OPTIONS, file_reader_buffer_size=2**15
      )
      try:
        yield reader
      finally:
        reader.close()
    except RuntimeError as error:
      raise _Damaged(str(error)) from error


@contextlib.contextmanager
def _memory_file() -> Iterator[tuple[int, str]]:
  """(descriptor, path) of an empty file, which is gone afterwards."""
  if hasattr(os, "memfd_create"):
    descriptor = os.memfd_create("magvit-shard")
    try:
      yield descriptor, f"/proc/self/fd/{descriptor}"
    finally:
      os.close(descriptor)
  else:  # not Linux
    with tempfile.NamedTemporaryFile() as file:
      yield file.fileno(), file.name


def _footer_start(postscript: bytes, size: int) -> int:
  """Place of the index, which the last 64 KiB of a shard say."""
  record = _records(postscript, size - _RIEGELI_BLOCK)[0]
  start = _fields(record).get(1, 0)
  if not 0 < start < size - _RIEGELI_BLOCK:
    raise _Damaged(f"its index begins at {start} of {size} bytes")
  return start


def _read_index(data: bytes, begin: int, size: int) -> _Index:
  """The index that begins at a place, with all that follows in the shard."""
  chunks = _records(data, begin)[1:]  # the first one describes the others
  places = [_fields(chunk).get(1, -1) for chunk in chunks]
  starts = np.array([*places, begin], np.int64)
  index = _Index(size, starts, data.rstrip(b"\0"))
  if starts[0] < 0 or (np.diff(starts) <= 0).any():
    raise _Damaged("the places of its records are not in order")
  # The library compares the checksums of the index, too.
  with _opened(index) as reader:
    if reader.num_records() != len(places):
      raise _Damaged("it has chunks of several records, unlike our shards")
  return index


def _records(data: bytes, start: int) -> list[bytes]:
  """The records of the chunk that begins at byte `start` of a shard.

  Args:
    data: the bytes from there on, headers of blocks included.
    start: place of the first.
  """
  first = -start % _RIEGELI_BLOCK
  pieces = [data[:first]] if first else []
  pieces += [
    data[place + _BLOCK_HEADER : place + _RIEGELI_BLOCK]
    for place in range(first, len(data), _RIEGELI_BLOCK)
  ]
  chunk = b"".join(pieces)
  _, size, _, kind, decoded = struct.unpack_from("<5Q", chunk)
  count, body = kind >> 8, chunk[_CHUNK_HEADER:][:size]
  if chr(kind & 255) != "r" or decoded > _MOST_INDEX or count > decoded:
    raise _Damaged("it has no chunk of records where one is expected")
  compression = chr(body[0])
  sizes_size, place = _varint(body, 1)
  sizes = _decompress(compression, body[place : place + sizes_size])
  values = _decompress(compression, body[place + sizes_size :])
  lengths, place = [], 0
  for _ in range(count):
    length, place = _varint(sizes, place)
    lengths.append(length)
  ends = list(itertools.accumulate(lengths, initial=0))
  if ends[-1] != len(values) or not count:
    raise _Damaged("the sizes of its records contradict each other")
  return [values[a:b] for a, b in itertools.pairwise(ends)]


def _decompress(compression: str, data: bytes) -> bytes:
  if compression == "\0":
    return data
  if compression != "z":
    raise _Damaged(f"{compression!r} is no compression of our shards")
  size, place = _varint(data, 0)
  if size > _MOST_INDEX:
    raise _Damaged(f"its index would have {size} bytes")
  if not size:
    return b""
  return zstandard.ZstdDecompressor().decompress(
    data[place:], max_output_size=size
  )


def _fields(message: bytes) -> dict[int, int]:
  """Numbers of a protocol buffer that holds nothing else, by their fields."""
  fields, place = {}, 0
  while place < len(message):
    key, place = _varint(message, place)
    if key & 7:
      raise _Damaged("its index is of another form")
    fields[key >> 3], place = _varint(message, place)
  return fields


def _varint(data: bytes, place: int) -> tuple[int, int]:
  """(whole number at a place, place after it)."""
  value = 0
  for shift in range(0, 70, 7):
    byte = data[place]
    place += 1
    value |= (byte & 127) << shift
    if byte < 128:
      return value, place
  raise _Damaged("a number in its index has no end")
