"""Files of named tensors that others publish, as numpy arrays."""

from collections.abc import Iterator
import contextlib
import pathlib
import typing
from typing import Any
import zipfile

from flax import serialization
from flax import traverse_util
import numpy as np
import safetensors.numpy

from models.weights import tensorflow as tensorflow_files
from models.weights import torch_file
from storage import files
from storage import npz
from storage import schema
from storage import stores

_MOST_PACKED = 100  # bytes of arrays in a byte of a larger file
_ANY_SIZE = 2**26  # bytes that arrays may have however small the file is


def read(path: str) -> dict[str, np.ndarray]:
  """Tensors of a file by name; `_READERS` lists the suffixes.

  A training checkpoint (Lightning's .ckpt) gives the tensors of its
  "state_dict", a TorchScript archive those of its modules, a frozen TensorFlow
  graph (.pb) its constants, a TensorFlow checkpoint (named by its .index, with
  the data beside it) its variables, and a flax tree (.flax, msgpack) its
  "params", with names joined by slashes. No reader runs code of a file,
  unpickles objects or writes anything.

  Raises:
    ValueError: the suffix is unknown, or the file is missing or unreadable.
  """
  suffix = pathlib.Path(path).suffix
  if suffix not in _READERS:
    raise ValueError(f"{path} must end in one of {', '.join(_READERS)}")
  if not stores.is_file(path):
    raise ValueError(f"{path} is no file")
  return _READERS[suffix](path)


def sha256(path: str) -> str:
  """Hash of a file in hexadecimal; that of a .index includes its data files."""
  is_index = pathlib.Path(path).suffix == ".index"
  data_paths = tensorflow_files.shard_paths(path) if is_index else []
  return files.sha256(path, *data_paths)


def _read_torch(path: str) -> dict[str, np.ndarray]:
  with _named(path, "a file of torch tensors"):
    return torch_file.read(stores.fetched(path))


def _read_flax(path: str) -> dict[str, np.ndarray]:
  with _named(path, "a .flax file"):
    data = stores.read(path)
    tree = typing.cast(dict[str, Any], serialization.msgpack_restore(data))
    tensors = traverse_util.flatten_dict(tree.get("params", tree), sep="/")
  if not all(isinstance(x, np.ndarray) for x in tensors.values()):
    raise ValueError(f"{path} must hold arrays only")
  return typing.cast(dict[str, np.ndarray], tensors)


def _read_graph(path: str) -> dict[str, np.ndarray]:
  with _named(path, "a frozen graph"):
    return tensorflow_files.read_graph(stores.fetched(path))


def _read_checkpoint(path: str) -> dict[str, np.ndarray]:
  with _named(path, "a checkpoint of TensorFlow"):
    if stores.is_url(path):
      raise ValueError("its data lie in files beside it: copy all to a disk")
    return tensorflow_files.read_checkpoint(path)


def _read_safetensors(path: str) -> dict[str, np.ndarray]:
  with _named(path, "a .safetensors file"):
    return safetensors.numpy.load_file(stores.fetched(path))


def _read_npz(path: str) -> dict[str, np.ndarray]:
  with _named(path, "an .npz file"):
    with zipfile.ZipFile(stores.fetched(path)) as archive:
      unpacked = sum(info.file_size for info in archive.infolist())
    size = stores.size(path)
    if unpacked > max(_ANY_SIZE, _MOST_PACKED * size):
      raise ValueError(f"its arrays have {unpacked} bytes, and the file {size}")
    return {name: npz.load(path, name) for name in npz.names(path)}


@contextlib.contextmanager
def _named(path: str, kind: str) -> Iterator[None]:
  """Turns every failure inside into a ValueError that names the file."""
  try:
    yield
  except Exception as error:  # libraries raise nearly anything
    # Some repeat what is in the file, however long it is.
    reason = schema.brief(error, 300)
    raise ValueError(f"{path} is not {kind}: {reason}") from error


_READERS = {
  ".ckpt": _read_torch,
  ".pth": _read_torch,
  ".pt": _read_torch,
  ".safetensors": _read_safetensors,
  ".npz": _read_npz,
  ".flax": _read_flax,
  ".pb": _read_graph,
  ".index": _read_checkpoint,
}
