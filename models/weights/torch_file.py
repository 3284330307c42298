"""Tensors of torch's files, read without torch and without running code.

`torch.save` and TorchScript write a zip archive: NAME/data.pkl, a pickle of
names and shapes, and NAME/data/KEY, the raw numbers of each storage. Before
version 1.6 `torch.save` wrote the pickle and the numbers one after another, as
many published files still have them. The numbers are mapped, not copied.
"""

from collections.abc import Callable
from collections.abc import Iterable
import io
import math
import re
from typing import Any
import zipfile
import zlib

import ml_dtypes
import numpy as np

from models.weights import pickled

_ZIP = b"PK\x03\x04"
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION = 1001
_MOST_DIRECTORY = 2**24  # bytes of a zip archive's list: of 150,000 records
_MOST_MODULES, _MOST_DEPTH, _LONGEST_NAME = 20_000, 64, 1000
_MOST_VIEWS = 4  # how often the tensors may show the file's bytes altogether

# Bytes of a storage, as a function of its description.
_Find = Callable[[pickled.Storage], np.ndarray]


def read(path: str) -> dict[str, np.ndarray]:
  """Tensors of a .pth, .pt or .ckpt file by name.

  A training checkpoint (Lightning's) gives the tensors of its "state_dict", a
  TorchScript archive those of its modules and the modules in them. Floating
  point becomes float32.

  Raises:
    ValueError: a damaged file, or one with other objects than tensors and plain
      values.
  """
  data = np.memmap(path, np.uint8, "r")
  if bytes(data[:4]) == _ZIP:
    tree, find = _read_zip(path, data)
  else:
    tree, find = _read_legacy(data)
  if isinstance(tree, dict):
    tree = tree.get("state_dict", tree)
  if isinstance(tree, pickled.Module):
    tree = dict(_tensors_of(tree))
  if not isinstance(tree, dict) or not all(
    isinstance(name, str) and isinstance(x, pickled.Tensor)
    for name, x in tree.items()
  ):
    raise ValueError("it must hold a state dict: tensors by name")
  _check_sizes(tree, len(data))
  return {name: _array(name, tensor, find) for name, tensor in tree.items()}


def _read_zip(path: str, data: np.ndarray) -> tuple[Any, _Find]:
  """(what the pickle holds, function that finds storages)."""
  records = _records(path)
  pickles = [x for x in records if re.fullmatch(r"[^/]+/data\.pkl", x)]
  if len(pickles) != 1:
    raise ValueError("it is an archive without the data.pkl of torch")
  folder = pickles[0].removesuffix("data.pkl")
  order = records.get(f"{folder}byteorder")
  if order is not None and bytes(_record(order, data)) != b"little":
    raise ValueError("its numbers are big-endian")
  text = _record(records[pickles[0]], data)
  if len(text) > pickled.MOST_BYTES:
    raise ValueError(f"its pickle has {len(text)} bytes")
  read_already: dict[str, np.ndarray] = {}
  total = 0

  def find(storage: pickled.Storage) -> np.ndarray:
    nonlocal total
    name = f"{folder}data/{storage.key}"
    if name not in records:
      raise ValueError(f"its record {name!r} is missing")
    if name not in read_already:
      total += records[name].file_size
      if total > len(data):
        raise ValueError("its records overlap")
      read_already[name] = _record(records[name], data)
    return read_already[name]

  return pickled.load(io.BytesIO(text.tobytes()), {}), find


class _Directory(io.FileIO):
  """A file whose archive's list is read only if it is of a sane size."""

  def read(self, size: int | None = -1, /) -> bytes:
    if size is not None and size > _MOST_DIRECTORY:
      raise ValueError(f"the list of its records has {size} bytes")
    return super().read(size)


def _records(path: str) -> dict[str, zipfile.ZipInfo]:
  try:
    with _Directory(path) as f, zipfile.ZipFile(f) as archive:
      return {info.filename: info for info in archive.infolist()}
  except zipfile.BadZipFile as error:
    raise ValueError(f"its archive is damaged: {error}") from error


def _record(info: zipfile.ZipInfo, data: np.ndarray) -> np.ndarray:
  """Bytes of a record, mapped; ValueError if they are damaged."""
  if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
    raise ValueError(
      f"its record {info.filename!r} is compressed or encrypted, which torch"
      " does not do: save it again with torch.save"
    )
  header = bytes(data[info.header_offset : info.header_offset + 30])
  if len(header) < 30 or not header.startswith(_ZIP):
    raise ValueError(f"its record {info.filename!r} is damaged")
  # The lengths of the name and of another field, which come next.
  lengths = np.frombuffer(header, "<u2", 2, 26).tolist()
  start = info.header_offset + 30 + sum(lengths)
  record = data[start : start + info.file_size]
  if len(record) != info.file_size or zlib.crc32(record.data) != info.CRC:
    raise ValueError(
      f"its record {info.filename!r} is damaged: its bytes are not those that"
      " were saved; get the file again"
    )
  return record


def _read_legacy(data: np.ndarray) -> tuple[Any, _Find]:
  """(what the pickle holds, function that finds storages)."""
  stream = io.BytesIO(data[: pickled.MOST_BYTES].tobytes())
  storages: dict[str, pickled.Storage] = {}
  load = lambda: pickled.load(stream, storages)
  if stream.getbuffer()[:1] != b"\x80" or load() != _LEGACY_MAGIC:
    raise ValueError(
      "it begins as no file of torch since 0.1.10: open it with torch, and save"
      " it again"
    )
  if load() != _LEGACY_VERSION:
    raise ValueError("its version is unknown")
  system, tree, keys = load(), load(), load()
  if not isinstance(system, dict) or not system.get("little_endian", True):
    raise ValueError("its numbers are big-endian")
  if not isinstance(keys, list) or len(keys) > len(storages):
    raise ValueError("it lists no storages")
  numbers, at = {}, stream.tell()
  for key in keys:
    if not isinstance(key, str) or key not in storages or key in numbers:
      raise ValueError("it lists other storages than it has")
    storage = storages[key]
    numel = int.from_bytes(bytes(data[at : at + 8]), "little")
    size = storage.numel * np.dtype(storage.dtype).itemsize
    numbers[key] = data[at + 8 : at + 8 + size]
    at += 8 + size
    if numel != storage.numel or at > len(data):
      raise ValueError(f"its storage {key!r} is cut short or damaged")

  def find(storage: pickled.Storage) -> np.ndarray:
    if storage.key not in numbers:
      raise ValueError(f"its storage {storage.key!r} is missing")
    return numbers[storage.key]

  return tree, find


def _tensors_of(
  root: pickled.Module,
) -> Iterable[tuple[str, pickled.Tensor]]:
  """(name, tensor) of a module's attributes, and of the modules among them."""
  left, count = [("", root)], 0
  while left:
    prefix, module = left.pop()
    count += 1
    if count > _MOST_MODULES or prefix.count(".") > _MOST_DEPTH:
      raise ValueError("its modules are too many, or hold each other")
    if module.is_opaque:
      raise ValueError(
        f"its module {prefix.rstrip('.') or 'model'!r} has a state that only"
        " code of the file can read, which is not run. If you trust it, open it"
        " where torch is installed, and save the tensors alone:"
        " torch.save(torch.jit.load(FILE).state_dict(), NEW_FILE)"
      )
    for name, value in module.attributes.items():
      if not isinstance(name, str) or len(name) > _LONGEST_NAME:
        raise ValueError("an attribute of a module has no proper name")
      if isinstance(value, pickled.Tensor):
        yield prefix + name, value
      elif isinstance(value, pickled.Module):
        left.append((f"{prefix}{name}.", value))


def _check_sizes(tensors: dict[str, pickled.Tensor], size: int) -> None:
  """Checks that tensors are views of their storages, and small altogether."""
  total = 0
  for name, tensor in tensors.items():
    if len(name) > _LONGEST_NAME * _MOST_DEPTH:
      raise ValueError(f"a name of a tensor has {len(name)} characters")
    count = math.prod(tensor.size)
    steps = zip(tensor.size, tensor.stride, strict=True)
    last = tensor.offset + sum((n - 1) * step for n, step in steps)
    numel = tensor.storage.numel
    if count and (last >= numel or count > numel):
      raise ValueError(
        f"its tensor {name!r} of shape {tensor.size} is larger than its storage"
        f" of {numel} numbers: save a copy of it, tensor.contiguous()"
      )
    total += count * np.dtype(tensor.storage.dtype).itemsize
  if total > _MOST_VIEWS * size:
    raise ValueError(f"its tensors have {total} bytes, and the file {size}")


def _array(name: str, tensor: pickled.Tensor, find: _Find) -> np.ndarray:
  """A tensor's numbers; `_check_sizes` has passed it."""
  storage, dtype = tensor.storage, np.dtype(tensor.storage.dtype)
  data = find(storage)
  if len(data) < storage.numel * dtype.itemsize:
    raise ValueError(f"the storage of its tensor {name!r} is cut short")
  if not math.prod(tensor.size):
    array = np.zeros(tensor.size, dtype)
  else:
    numbers = np.uint8 if dtype.kind == "b" else dtype
    flat = np.frombuffer(data, numbers, storage.numel)
    array = np.lib.stride_tricks.as_strided(
      flat[tensor.offset :],
      tensor.size,
      [step * dtype.itemsize for step in tensor.stride],
      writeable=False,
    )
  if dtype.kind == "b":
    return array != 0  # a byte of another value is no bool of numpy
  if np.issubdtype(dtype, np.floating) or dtype == ml_dtypes.bfloat16:
    return array.astype(np.float32, copy=False)
  return array
