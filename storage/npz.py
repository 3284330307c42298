"""Arrays of an .npz file, some rows at a time: samples can be 10 GB.

Arrays by numpy.savez lie in the file uncompressed, and are mapped. Those by
numpy.savez_compressed are unpacked from their start on; reading rows in rising
order takes one pass.
"""

from collections.abc import Iterable
from collections.abc import Mapping
import os
from typing import IO
import zipfile

import numpy as np

from storage import files

_CHUNK = 2**24  # bytes that are unpacked at once when rows are skipped


class Rows:
  """Rows of an array in a file.

  Attributes:
    shape: shape of the array.
    dtype: type of its elements.
  """

  def __init__(self, path: str, name: str = "arr_0"):
    """Opens the array.

    Raises:
      ValueError: no .npz, no such array, or one of Python objects.
    """
    self._path, self._member = path, f"{name}.npy"
    try:
      with zipfile.ZipFile(path) as archive:
        held = [os.path.splitext(n)[0] for n in archive.namelist()]
        if name not in held:
          raise ValueError(f"it holds {', '.join(held)}, and no {name}")
        info = archive.getinfo(self._member)
        with archive.open(info) as member:
          header = _read_header(member)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
      raise ValueError(f"cannot read {path} as .npz: {error}") from None
    self.shape, fortran, self.dtype, header_size = header
    if fortran or self.dtype.hasobject or not self.shape:
      raise ValueError(
        f"{path}: {name} must be rows of numbers in C order, got"
        f" {self.dtype} of shape {self.shape}"
      )
    self._map = None
    if info.compress_type == zipfile.ZIP_STORED:
      self._map = np.memmap(
        path,
        self.dtype,
        "r",
        _data_start(path, info) + header_size,
        self.shape,
      )
    self._stream, self._next = None, 0

  def __len__(self) -> int:
    return self.shape[0]

  def read(self, start: int, stop: int) -> np.ndarray:
    """Rows from start to stop, in memory."""
    if self._map is not None:
      return np.array(self._map[start:stop])
    row = int(np.prod(self.shape[1:], dtype=np.int64)) * self.dtype.itemsize
    stream = self._stream
    if stream is None or start < self._next:
      stream = self._stream = zipfile.ZipFile(self._path).open(self._member)
      _read_header(stream)
      self._next = 0
    _skip(stream, (start - self._next) * row)
    data = stream.read((stop - start) * row)
    self._next = stop
    rows = np.frombuffer(data, self.dtype)
    return rows.reshape(-1, *self.shape[1:]).copy()


def _skip(stream: IO[bytes], size: int) -> None:
  while size > 0:
    size -= len(stream.read(min(size, _CHUNK)))


def names(path: str) -> list[str]:
  """Names of the arrays in a file; ValueError if it is no .npz."""
  try:
    with zipfile.ZipFile(path) as archive:
      return [os.path.splitext(name)[0] for name in archive.namelist()]
  except (OSError, zipfile.BadZipFile) as error:
    raise ValueError(f"cannot read {path} as .npz: {error}") from None


def load(path: str, name: str) -> np.ndarray:
  """Loads one array of a small .npz."""
  with np.load(path) as archive:
    return archive[name]


def write(
  path: str, num: int, arrays: Mapping[str, Iterable[np.ndarray]]
) -> None:
  """Writes an .npz as numpy.savez does, each array of `num` rows in parts.

  Raises ValueError if the parts of an array have another number of rows.
  """
  with (
    files.published(path, one_writer=True) as temporary,
    zipfile.ZipFile(temporary, "w") as archive,
  ):
    for name, parts in arrays.items():
      with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        write_rows(member, num, parts)


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


def _read_header(member) -> tuple[tuple[int, ...], bool, np.dtype, int]:
  version = np.lib.format.read_magic(member)
  read = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
  }
  if version not in read:
    raise ValueError(
      f"version {version} of the .npy format must be one of {sorted(read)}"
    )
  shape, fortran, dtype = read[version](member)
  return shape, fortran, dtype, member.tell()


def _data_start(path: str, info: zipfile.ZipInfo) -> int:
  """Offset of a member's bytes; names of any length stand before them."""
  with open(path, "rb") as f:
    f.seek(info.header_offset + 26)
    name, extra = np.frombuffer(f.read(4), "<u2").tolist()
  return info.header_offset + 30 + name + extra
