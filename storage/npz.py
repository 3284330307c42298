"""Arrays of an .npz file, some rows at a time: samples can be 10 GB.

Arrays by numpy.savez lie in the file uncompressed, and are mapped. Those by
numpy.savez_compressed are unpacked from their start on; reading rows in rising
order takes one pass.

Files may be anyone's: an array is read only if its header, the sizes in the
archive and the bytes at hand agree, so that no header makes memory grow beyond
the bytes that the file unpacks to. No array of Python objects is read, for they
could run code.
"""

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import dataclasses
import math
import os
from typing import IO
import weakref
import zipfile

import numpy as np

from storage import files
from storage import listing
from storage import schema
from storage import stores

_CHUNK = 2**24  # bytes that are unpacked at once
_RATIO = 1032  # most bytes that deflate, the method of numpy, makes of one
_LARGEST = 2**63  # bytes that NumPy can count
_HEADERS = {
  (1, 0): np.lib.format.read_array_header_1_0,
  (2, 0): np.lib.format.read_array_header_2_0,
}


@dataclasses.dataclass(frozen=True)
class _Array:
  """An array of an archive, as its header describes it."""

  info: zipfile.ZipInfo
  shape: tuple[int, ...]
  dtype: np.dtype
  fortran: bool  # whether columns are stored one by one, not rows
  header_size: int  # bytes before those of the elements

  @property
  def nbytes(self) -> int:
    return math.prod(self.shape) * self.dtype.itemsize


class Rows:
  """Rows of an array in a file.

  Attributes:
    shape: shape of the array.
    dtype: type of its elements.
  """

  def __init__(self, path: str, name: str = "arr_0"):
    """Opens the array, and reads it once to compare it with its checksum.

    Raises:
      ValueError: no .npz, no such array, one of Python objects, or one that is
        damaged.
    """
    self._path = path
    with _archive(path) as archive:
      array = self._array = _find(archive, name)
      if array.fortran or array.dtype.kind not in "biufc" or not array.shape:
        raise ValueError(
          f"{name} must be rows of numbers in C order, got {array.dtype} of"
          f" shape {array.shape}"
        )
      with _elements(archive, array) as member:
        _skip(member, array.nbytes)
        _expect_end(member)
    self.shape, self.dtype = array.shape, array.dtype
    self._map = None
    if array.info.compress_type == zipfile.ZIP_STORED and array.nbytes:
      held = stores.fetched(path)
      start = _data_start(held, array.info) + array.header_size
      self._map = np.memmap(held, self.dtype, "r", start, self.shape)
    self._open = contextlib.ExitStack()  # the archive, and the stream
    weakref.finalize(self, self._open.close)
    self._stream, self._next = None, 0

  def __len__(self) -> int:
    return self.shape[0]

  def read(self, start: int, stop: int) -> np.ndarray:
    """Rows from start to stop, in memory.

    Raises:
      ValueError: the file has changed since it was opened.
    """
    stop = min(stop, len(self))
    if self._map is not None:
      return np.array(self._map[start:stop])
    rows = np.empty((stop - start, *self.shape[1:]), self.dtype)
    row = self._array.nbytes // max(len(self), 1)
    with _readable(self._path), contextlib.ExitStack() as failure:
      failure.callback(self._close)
      if self._stream is None or start < self._next:
        self._close()
        archive = zipfile.ZipFile(stores.fetched(self._path))
        self._open.enter_context(archive)
        self._stream = self._open.enter_context(_elements(archive, self._array))
      _skip(self._stream, (start - self._next) * row)
      _fill(self._stream, rows)
      failure.pop_all()
    self._next = stop
    return rows

  def _close(self) -> None:
    self._open.close()
    self._stream, self._next = None, 0


def names(path: str) -> list[str]:
  """Names of the arrays in a file; ValueError if it is no .npz."""
  with _archive(path) as archive:
    return _names(archive)


def load(path: str, name: str) -> np.ndarray:
  """Loads one array of a small .npz.

  Raises:
    ValueError: no .npz, no such array, one of Python objects, or one that is
      damaged.
  """
  with _archive(path) as archive:
    array = _find(archive, name)
    shape = array.shape[::-1] if array.fortran else array.shape
    elements = np.empty(shape, array.dtype)
    with _elements(archive, array) as member:
      _fill(member, elements)
      _expect_end(member)
  return elements.T if array.fortran else elements


def is_whole(path: str, num: int | None = None) -> bool:
  """Whether a file is an .npz whose arrays can be read, of `num` rows each.

  None admits any number of rows.
  """
  try:
    held = names(path)
    rows = [len(load(path, name)) for name in held]
  except (TypeError, ValueError):  # an array without rows has no length
    return False
  return bool(rows) and (num is None or set(rows) == {num})


def write(
  path: str,
  num: int,
  arrays: Mapping[str, Iterable[np.ndarray]],
  texts: Mapping[str, str] | None = None,
) -> None:
  """Writes an .npz as numpy.savez does, each array of `num` rows in parts.

  `texts` are arrays of one text each. Raises ValueError if the parts of an
  array have another number of rows.
  """
  with (
    files.published(path) as temporary,
    zipfile.ZipFile(temporary, "w") as archive,
  ):
    for name, parts in arrays.items():
      with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        write_rows(member, num, parts)
    for name, text in (texts or {}).items():
      with archive.open(f"{name}.npy", "w") as member:
        np.lib.format.write_array(member, np.array(text), allow_pickle=False)


def write_rows(npy: IO[bytes], num: int, parts: Iterable[np.ndarray]) -> None:
  """Writes `num` rows as numpy.save does, with one part of them in memory.

  Raises ValueError if all parts together have another number of rows.
  """
  count = 0
  for number, rows in enumerate(parts):
    if number == 0:
      header = {"descr": rows.dtype.str, "fortran_order": False}
      header["shape"] = (num, *rows.shape[1:])
      np.lib.format.write_array_header_1_0(npy, header)
    npy.write(rows.tobytes())
    count += len(rows)
  if count != num:
    raise ValueError(f"expected {num} rows, and the parts hold {count}")


@contextlib.contextmanager
def _readable(path: str) -> Iterator[None]:
  """Turns every failure inside into a ValueError that names the file."""
  try:
    yield
  except Exception as error:  # damaged archives raise errors of many classes
    # zipfile repeats names from the file, however long they are.
    reason = schema.brief(str(error) or type(error).__name__, 300)
    raise ValueError(
      f"cannot read {listing.text(path)} as .npz: {reason}"
    ) from error


@contextlib.contextmanager
def _archive(path: str) -> Iterator[zipfile.ZipFile]:
  with _readable(path):
    held = stores.fetched(path)
    reason = listing.unreadable(held)
    if reason:
      raise ValueError(reason)
    with zipfile.ZipFile(held) as archive:
      yield archive


def _names(archive: zipfile.ZipFile) -> list[str]:
  return [os.path.splitext(name)[0] for name in archive.namelist()]


def _find(archive: zipfile.ZipFile, name: str) -> _Array:
  """The array of this name; ValueError unless all that is said of it agrees."""
  member_name = f"{name}.npy"
  if member_name not in archive.namelist():
    held = [listing.text(other) for other in _names(archive)]
    raise ValueError(f"it holds {', '.join(held) or 'nothing'}, and no {name}")
  if archive.namelist().count(member_name) > 1:
    raise ValueError(
      f"it holds {name} more than once, and which is meant is not known: save"
      " it again"
    )
  info = archive.getinfo(member_name)
  if info.flag_bits & 1:
    raise ValueError(f"{name} is encrypted: save it again without a password")
  if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
    raise ValueError(
      f"{name} is compressed by a method that numpy.savez does not use (number"
      f" {info.compress_type}): save it again"
    )
  size = os.path.getsize(os.fspath(archive.filename or ""))
  held = min(info.compress_size, size - info.header_offset)
  if info.file_size > _RATIO * held + _RATIO:
    raise ValueError(
      f"{name} cannot have {info.file_size} bytes, for the file holds {held} of"
      " it: the file is damaged"
    )
  with archive.open(info) as member:
    version = np.lib.format.read_magic(member)
    if version not in _HEADERS:
      raise ValueError(
        f"version {version} of the .npy format must be one of"
        f" {sorted(_HEADERS)}"
      )
    shape, fortran, dtype = _HEADERS[version](member)
    array = _Array(info, shape, dtype, fortran, member.tell())
  _check_header(name, array)
  return array


def _check_header(name: str, array: _Array) -> None:
  """Raises ValueError for Python objects, and shapes that are not the bytes."""
  shape, dtype = array.shape, array.dtype
  if dtype.hasobject or not dtype.itemsize:
    raise ValueError(
      f"{name} must hold numbers or text, got {dtype} of shape {shape}"
    )
  counted = math.prod(max(size, 1) for size in shape) * dtype.itemsize
  held = array.info.file_size - array.header_size
  if min(shape, default=0) < 0 or counted >= _LARGEST or array.nbytes != held:
    raise ValueError(
      f"{name} has {held} bytes, and its header says {dtype} of shape {shape}:"
      " the file is damaged"
    )


def _elements(archive: zipfile.ZipFile, array: _Array) -> IO[bytes]:
  """The array's bytes, from the first element on."""
  with contextlib.ExitStack() as failure:
    # An archive stays open as long as a member is.
    member = failure.enter_context(archive.open(array.info))
    _skip(member, array.header_size)
    failure.pop_all()
  return member


def _skip(stream: IO[bytes], size: int) -> None:
  while size > 0:
    piece = stream.read(min(size, _CHUNK))
    _expect_some(piece, size)
    size -= len(piece)


def _fill(stream: IO[bytes], array: np.ndarray) -> None:
  """Reads the elements of a C-contiguous array from a stream."""
  left = array.reshape(-1).view(np.uint8)
  while left.size:
    piece = stream.read(min(left.size, _CHUNK))
    _expect_some(piece, left.size)
    left[: len(piece)] = np.frombuffer(piece, np.uint8)
    left = left[len(piece) :]


def _expect_some(piece: bytes, missing: int) -> None:
  if not piece:
    raise ValueError(f"it breaks off: {missing} bytes of an array are missing")


def _expect_end(stream: IO[bytes]) -> None:
  """Reads the end of a member, at which zipfile compares the checksum."""
  if stream.read(1):
    raise ValueError("an array has more bytes than its header says")


def _data_start(path: str, info: zipfile.ZipInfo) -> int:
  """Offset of a member's bytes; names of any length stand before them."""
  with open(path, "rb") as f:
    f.seek(info.header_offset + 26)
    name, extra = np.frombuffer(f.read(4), "<u2").tolist()
  return info.header_offset + 30 + name + extra
