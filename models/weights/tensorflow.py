"""Tensors of TensorFlow's files, read without TensorFlow.

Frozen graphs are protocol buffers, whose messages tensorboardX has, too.
Checkpoints ("bundles") are a LevelDB table beside raw data; no package but
TensorFlow reads those. The messages in that table are tiny: their field numbers
below are those of tensorflow/core/protobuf/tensor_bundle.proto.
"""

from collections.abc import Iterator
import glob
import math
import pathlib
from typing import Any

from google.protobuf import message as protobuf
import numpy as np
from tensorboardX.proto import graph_pb2
from tensorboardX.proto import tensor_pb2

from models.weights import crc32c

# DataType of types.proto.
_DTYPES = {1: np.float32, 2: np.float64, 3: np.int32, 9: np.int64}
_TABLE_MAGIC = 0xDB4775248B80FB57
_FOOTER_BYTES = 48
_BLOCK_TRAILER_BYTES = 5  # compression and checksum
_LONGEST_KEY = 1000  # bytes of a variable's name
_MOST_CONSTANTS = 2**26, 100  # bytes of constants, or so many times the file's
_MOST_KEYS = 64  # how much longer names may be together than the index


def read_graph(path: str) -> dict[str, np.ndarray]:
  """Floating-point constants of a frozen graph (.pb), except scalars.

  Raises:
    ValueError: the file is no such graph.
  """
  data = pathlib.Path(path).read_bytes()
  try:
    graph = graph_pb2.GraphDef.FromString(data)
  except protobuf.DecodeError as error:
    raise ValueError(str(error)) from error
  tensors, total = {}, 0
  least, times = _MOST_CONSTANTS
  for node in graph.node:
    if node.op != "Const":
      continue
    tensor = _tensor(node.attr["value"].tensor)
    if tensor is not None and tensor.ndim > 0:
      # One number may stand for all of a tensor, however large it is.
      total += tensor.nbytes
      if total > max(least, times * len(data)):
        raise ValueError(
          f"its constants have {total} bytes and more, and the file {len(data)}"
        )
      tensors[node.name] = tensor
  if not tensors:
    raise ValueError("it has no constants")
  return tensors


def read_checkpoint(path: str) -> dict[str, np.ndarray]:
  """Variables of a checkpoint; `path` is its .index, the data lie beside it.

  Raises:
    ValueError: the file is no such index; or it or the data are damaged,
      missing or cut short.
  """
  entries = dict(_table(np.fromfile(path, np.uint8)))
  if b"" not in entries:
    raise ValueError("it has no header")
  header = dict(_fields(entries.pop(b"")))
  if header.get(2, 0) != 0:  # endianness
    raise ValueError("its numbers are big-endian")
  shards = [np.memmap(x, np.uint8, "r") for x in shard_paths(path)]
  if len(shards) != header.get(1):
    raise ValueError(
      f"it needs {header.get(1)} data files beside it, and there are"
      f" {len(shards)}"
    )
  left = sum(map(len, shards))
  tensors = {}
  for key, entry in entries.items():
    name, fields = key.decode(), dict(_fields(entry))
    dtype, shape = _DTYPES.get(fields.get(1, 0)), _shape(fields.get(2, b""))
    size = fields.get(5, 0)
    if dtype is None or 7 in fields or size != _num_bytes(dtype, shape):
      raise ValueError(f"variable {name!r} is of an unknown kind")
    offset, shard = fields.get(4, 0), fields.get(3, 0)
    left -= size  # so that variables that overlap are not summed for ever
    if shard >= len(shards) or offset + size > len(shards[shard]) or left < 0:
      raise ValueError(f"variable {name!r} lies outside of the data")
    data = shards[shard][offset : offset + size]
    if _masked_checksum(data) != _fixed32(fields.get(6, bytes(4))):
      raise ValueError(
        f"the numbers of variable {name!r} are not those that were saved (their"
        " checksum differs): get the file again"
      )
    tensors[name] = np.frombuffer(data.data, dtype).reshape(shape)
  return tensors


def shard_paths(path: str) -> list[str]:
  """The files of data that belong to a checkpoint's .index."""
  index = pathlib.Path(path)
  pattern = f"{glob.escape(index.stem)}.data-*-of-*"
  return sorted(str(x) for x in index.parent.glob(pattern) if x.is_file())


def _masked_checksum(data: np.ndarray) -> int:
  """CRC-32C as TensorFlow stores it, so that sums of sums stay different."""
  checksum = crc32c.crc32c(data)
  turned = (checksum >> 15 | checksum << 17) & 0xFFFFFFFF
  return (turned + 0xA282EAD8) & 0xFFFFFFFF


def _fixed32(data) -> int:
  return int.from_bytes(bytes(data), "little")


def _fields(message) -> Iterator[tuple[int, Any]]:
  """(number, value) of each field of a protocol buffer."""
  at = 0
  while at < len(message):
    key, at = _varint(message, at)
    match key & 7:
      case 0:
        value, at = _varint(message, at)
        yield key >> 3, value
        continue
      case 1:
        size = 8
      case 2:
        size, at = _varint(message, at)
      case 5:
        size = 4
      case kind:
        raise ValueError(f"a field of unknown kind {kind}")
    if at + size > len(message):
      raise ValueError("it ends inside a field")
    yield key >> 3, message[at : at + size]
    at += size


def _varint(data, at: int) -> tuple[int, int]:
  """(value, end) of a number stored as seven bits a byte, lowest first."""
  value = 0
  for shift in range(0, 64, 7):
    if at >= len(data):
      raise ValueError("it ends inside a number")
    byte = int(data[at])
    at += 1
    value |= (byte & 0x7F) << shift
    if byte < 0x80:
      if value >= 2**64:
        break
      return value, at
  raise ValueError("it has a number of over 64 bits")


def _shape(message) -> tuple[int, ...]:
  dims = [dict(_fields(x)) for k, x in _fields(message) if k == 2]
  return tuple(dim.get(1, 0) for dim in dims)


def _num_bytes(dtype, shape: tuple[int, ...]) -> int:
  return math.prod(shape) * np.dtype(dtype).itemsize


def _tensor(tensor: tensor_pb2.TensorProto) -> np.ndarray | None:
  """Array of a tensor's numbers; None unless they are floating-point."""
  dtype = _DTYPES.get(tensor.dtype)
  if dtype not in (np.float32, np.float64):
    return None
  # Numbers are stored as in memory, or as a list; one may stand for all.
  if tensor.tensor_content:
    flat = np.frombuffer(tensor.tensor_content, dtype)
  else:
    flat = np.array(
      tensor.float_val if dtype == np.float32 else tensor.double_val, dtype
    )
  if flat.size == 0:
    raise ValueError("a tensor without numbers")
  shape = tuple(dim.size for dim in tensor.tensor_shape.dim)
  return np.broadcast_to(flat.reshape(shape if flat.size > 1 else ()), shape)


def _table(data: np.ndarray) -> Iterator[tuple[bytes, np.ndarray]]:
  """Keys and values of a LevelDB table, whose keys rise."""
  footer = data[-_FOOTER_BYTES:]
  if int.from_bytes(bytes(footer[-8:]), "little") != _TABLE_MAGIC:
    raise ValueError("it is no index of a checkpoint")
  at = 0
  handles = []
  for _ in range(4):  # offset and size of the metaindex, then of the index
    value, at = _varint(footer, at)
    handles.append(value)
  budget = _MOST_KEYS * len(data)
  last, end = None, 0
  for _, handle in _block(data, *handles[2:]):
    offset, at = _varint(handle, 0)
    size, _ = _varint(handle, at)
    if offset < end:  # else a block could be read again and again
      raise ValueError("its blocks overlap")
    end = offset + size
    for key, value in _block(data, offset, size):
      budget -= len(key)
      if budget < 0 or (last is not None and key <= last):
        raise ValueError("its keys do not rise, or are too long")
      last = key
      yield key, value


def _block(
  data: np.ndarray, offset: int, size: int
) -> Iterator[tuple[bytes, np.ndarray]]:
  """Keys and values of a block of a table; keys share their first bytes."""
  whole = data[offset : offset + size + _BLOCK_TRAILER_BYTES]
  if size < 4 or len(whole) != size + _BLOCK_TRAILER_BYTES:
    raise ValueError("it is cut short")
  if whole[size] != 0:
    raise ValueError("its index is compressed")
  if _masked_checksum(whole[: size + 1]) != _fixed32(whole[size + 1 :]):
    raise ValueError(
      "it is damaged: the checksum of a block differs; get the file again"
    )
  block = whole[:size]
  num_restarts = _fixed32(block[-4:])
  end, at, key = size - 4 * (num_restarts + 1), 0, b""
  while at < end:
    shared, at = _varint(block, at)  # bytes shared with the key before
    rest, at = _varint(block, at)
    length, at = _varint(block, at)
    if shared > len(key) or rest > _LONGEST_KEY - shared:
      raise ValueError(f"a key is longer than {_LONGEST_KEY} bytes")
    if at + rest + length > end:
      raise ValueError("it ends inside a value")
    key = key[:shared] + bytes(block[at : at + rest])
    yield key, block[at + rest : at + rest + length]
    at += rest + length
