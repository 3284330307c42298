"""Writes files as torch does, byte by byte and without torch; for tests."""

import dataclasses
import io
import struct
from typing import Any
import zipfile

import numpy as np


@dataclasses.dataclass(frozen=True)
class Global:
  name: str  # "module name"


@dataclasses.dataclass(frozen=True)
class Call:
  """What pickle calls a reduction."""

  function: str
  arguments: tuple


@dataclasses.dataclass(frozen=True)
class Object:
  """An object of a class of the file, as TorchScript's modules are."""

  name: str
  state: Any


@dataclasses.dataclass(frozen=True)
class Persistent:
  value: tuple


def pickled(value: Any) -> bytes:
  return b"\x80\x02" + _body(value) + b"."


def _body(value: Any) -> bytes:
  match value:
    case None | True | False:
      return {None: b"N", True: b"\x88", False: b"\x89"}[value]
    case int():
      size = value.bit_length() // 8 + 1
      return (
        b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)
      )
    case float():
      return b"G" + struct.pack(">d", value)
    case str():
      data = value.encode()
      return b"X" + struct.pack("<I", len(data)) + data
    case tuple():
      return b"(" + b"".join(map(_body, value)) + b"t"
    case list():
      return b"](" + b"".join(map(_body, value)) + b"e"
    case dict():
      flat = (x for pair in value.items() for x in pair)
      return b"}(" + b"".join(map(_body, flat)) + b"u"
    case Global():
      return b"c" + value.name.replace(" ", "\n").encode() + b"\n"
    case Call():
      return _body(Global(value.function)) + _body(value.arguments) + b"R"
    case Object():
      return _body(Global(value.name)) + b")\x81" + _body(value.state) + b"b"
    case Persistent():
      return _body(value.value) + b"Q"
  raise TypeError(value)


def storage(key: str, kind: str, numel: int) -> Persistent:
  name = Global(f"torch {kind}Storage")
  return Persistent(("storage", name, key, "cuda:0", numel))


def tensor(stored: Persistent, offset: int, size: tuple, stride: tuple) -> Call:
  hooks = Call("collections OrderedDict", ())
  arguments = (stored, offset, size, stride, False, hooks)
  return Call("torch._utils _rebuild_tensor_v2", arguments)


def whole(key: str, kind: str, array: np.ndarray) -> Call:
  """A tensor that is all of its storage."""
  stride = tuple(x // array.itemsize for x in array.strides)
  return tensor(storage(key, kind, array.size), 0, array.shape, stride)


def archive(
  pickle: bytes,
  storages: dict[str, bytes],
  compression: int = zipfile.ZIP_STORED,
  **more: bytes,
) -> bytes:
  """A zip archive as torch.save and TorchScript write it."""
  buffer = io.BytesIO()
  with zipfile.ZipFile(buffer, "w", compression) as file:
    file.writestr("archive/data.pkl", pickle)
    for key, data in storages.items():
      file.writestr(f"archive/data/{key}", data)
    for name, data in {"byteorder": b"little", "version": b"3", **more}.items():
      file.writestr(f"archive/{name}", data)
  return buffer.getvalue()


def legacy(value: Any, storages: dict[str, tuple[int, bytes]]) -> bytes:
  """A file as torch.save wrote it before version 1.6."""
  system = {"protocol_version": 1001, "little_endian": True}
  head = (0x1950A86A20F9469CFC6C, 1001, system, value, list(storages))
  data = b"".join(map(pickled, head))
  for numel, numbers in storages.values():
    data += struct.pack("<q", numel) + numbers
  return data
