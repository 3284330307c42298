"""Readers of weights and workdirs, and a small seed for each."""

import pathlib
import shutil
from typing import Any

import numpy as np

from tests.fuzz import child
from tests.fuzz import reader

# Weights.


def _make_weights(folder: pathlib.Path) -> None:
  import flax.serialization
  import safetensors.numpy

  from tests.models.features import networks_reference
  from tests.models.weights import torch_archive

  rng = np.random.default_rng(0)
  tensors = {
    "conv/kernel": rng.normal(size=(3, 3, 2, 4)).astype(np.float32),
    "conv/bias": np.arange(4, dtype=np.float32),
  }
  np.savez(folder / "b.npz", **tensors)
  safetensors.numpy.save_file(
    tensors, folder / "c.safetensors", {"network": "x"}
  )
  flax_tree = {"params": {"conv": {"kernel": tensors["conv/kernel"]}}}
  data = flax.serialization.msgpack_serialize(flax_tree)
  (folder / "d.flax").write_bytes(data)
  recorded = networks_reference.load()
  for name, kind in (("e.pb", "graph"), ("a.index", "index")):
    (folder / name).write_bytes(recorded[f"file_{kind}"].tobytes())
  kernel, bias = tensors["conv/kernel"], tensors["conv/bias"]
  module = {
    "kernel": torch_archive.whole("0", "Float", kernel),
    "bias": torch_archive.whole("1", "Float", bias),
  }
  storages = {"0": kernel.tobytes(), "1": bias.tobytes()}
  zipped = torch_archive.archive(torch_archive.pickled(module), storages)
  (folder / "f.pth").write_bytes(zipped)
  counted = {k: (len(data) // 4, data) for k, data in storages.items()}
  (folder / "g.pt").write_bytes(torch_archive.legacy(module, counted))
  name = "a.data-00000-of-00001"
  (folder / name).write_bytes(recorded["file_data"].tobytes())


def _read_weights(folder: pathlib.Path) -> Any:
  from models.weights import readers

  read = {}
  for path in sorted(folder.iterdir()):
    if ".data-" in path.name:
      continue
    tensors = readers.read(str(path))
    for name, tensor in tensors.items():
      reader.check(
        isinstance(name, str) and isinstance(tensor, np.ndarray), name
      )
      reader.check(tensor.dtype != object, f"{name} of objects")
    read[path.name] = {
      k: child.digest(np.asarray(v)) for k, v in tensors.items()
    }
    readers.sha256(str(path))
  return read


def crc32c(data: bytes) -> int:
  crc = 0xFFFFFFFF
  for byte in data:
    crc ^= byte
    for _ in range(8):
      crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
  return crc ^ 0xFFFFFFFF


def _mend_index(folder: pathlib.Path, path: pathlib.Path) -> None:
  """Makes checksums of the blocks of TensorFlow's index true again.

  A block is followed by a byte and the masked crc32c of both; where blocks lie
  is read from the unchanged part, if that is still whole.
  """
  if path.suffix != ".index":
    return
  from models.weights import tensorflow as tensorflow_files

  data = bytearray(path.read_bytes())
  try:
    footer = data[-48:]
    at, handles = 0, []
    for _ in range(4):
      value, at = tensorflow_files._varint(footer, at)
      handles.append(value)
  except (ValueError, IndexError, AttributeError):
    return
  blocks = [(0, min(handles[0], len(data)))]
  blocks += [tuple(handles[:2]), tuple(handles[2:])]
  for offset, size in blocks:
    if size and offset + size + 5 <= len(data) and size < 10**5:
      for length in (size, size - 5):  # the first block, without its trailer
        end = offset + length
        crc = crc32c(bytes(data[offset : end + 1]))
        masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
        if (offset == 0) == (length == size - 5):
          data[end + 1 : end + 5] = masked.to_bytes(4, "little")
  path.write_bytes(data)


# Workdirs and exports.


def _make_config(folder: pathlib.Path) -> None:
  from tests import tiny

  text = tiny.masked("").to_json(indent=2)
  (folder / "config.json").write_text(text)


def _read_config(folder: pathlib.Path) -> Any:
  from magvit import trained
  from magvit.workdir import folder as workdir_lib

  config = workdir_lib.read_config(str(folder))
  trained.find_algorithm(config)
  return config.to_json()


def _make_export(folder: pathlib.Path) -> None:
  from magvit.modes import export
  from tests import tiny
  from tests import untrained

  workdir = folder.parent / "tmp" / "workdir"
  untrained.write(str(workdir), tiny.tokenizer())
  folder.rmdir()
  export.export(str(workdir), str(folder))
  shutil.rmtree(workdir)


def _read_export(folder: pathlib.Path) -> Any:
  from magvit.workdir import exports
  from magvit.workdir import folder as workdir_lib

  workdir_lib.read_config(str(folder))
  reader.check(exports.step(str(folder)) >= 0, "step")
  arrays = exports.tensors(str(folder))
  return child.digest(*(arrays[name] for name in sorted(arrays)))


# Checkpoints.

_PARAMS = {
  "kernel": np.arange(12, dtype=np.float32).reshape(3, 4),
  "bias": np.ones(3, np.float32),
}


def _make_checkpoints(folder: pathlib.Path) -> None:
  from magvit.workdir import weights

  weights.save_average(str(folder), 1, _PARAMS)


def _read_checkpoints(folder: pathlib.Path) -> Any:
  import jax

  from magvit import mesh as mesh_lib
  from magvit.workdir import weights

  shapes = {
    name: jax.ShapeDtypeStruct(array.shape, array.dtype)
    for name, array in _PARAMS.items()
  }
  mesh = mesh_lib.data_mesh(jax.devices()[:1])
  weights.latest_step(str(folder))
  part = {"ema": {"tokenizer": shapes}}
  restored = weights.restore_part(str(folder), part, mesh)["ema"]["tokenizer"]
  return {name: child.digest(np.asarray(x)) for name, x in restored.items()}


def _describe_checkpoint(folder: pathlib.Path, path: pathlib.Path) -> None:
  """Makes the checksums of a checkpoint true again."""
  from magvit.workdir import steps

  if path.name != "digests.json":
    checkpoint = path.relative_to(folder).parts[:2]
    (folder.joinpath(*checkpoint) / "digests.json").unlink()
    steps.write_digests(str(folder.joinpath(*checkpoint)))


READERS = (
  reader.Reader(
    "weights",
    _make_weights,
    _read_weights,
    mend=_mend_index,
    alone=True,
  ),
  reader.Reader("config", _make_config, _read_config),
  reader.Reader(
    "checkpoints",
    _make_checkpoints,
    _read_checkpoints,
    mend=_describe_checkpoint,
    exact=True,
  ),
  reader.Reader("export", _make_export, _read_export, exact=True),
)
