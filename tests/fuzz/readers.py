"""The readers of files that others may have made, and a small seed for each."""

from collections.abc import Callable
import dataclasses
import fractions
import json
import pathlib
import shutil
from typing import Any

import numpy as np

from tests.fuzz import child
from tests.fuzz import planted


@dataclasses.dataclass(frozen=True)
class Reader:
  """A reader under test.

  Attributes:
    name: its name in READERS.
    make: writes the seed into a folder.
    read: reads such a folder; what it returns can be compared.
    targets: patterns of the files that are changed.
    mend: makes the checksums of a changed file (folder, path) true again.
    exact: whether checksums promise that what can be read is as it was, as long
      as they are not mended.
    sealed: whether that holds even then.
    alone: whether the changed file is read without the others of the seed, but
      for those of the same name with another suffix.
  """

  name: str
  make: Callable[[pathlib.Path], None]
  read: Callable[[pathlib.Path], Any]
  targets: tuple[str, ...] = ("*",)
  mend: Callable[[pathlib.Path, pathlib.Path], None] | None = None
  exact: bool = False
  sealed: bool = False
  alone: bool = False


class Inconsistent(Exception):
  """What was read contradicts itself, or what a reader promises."""


def _check(holds: bool, words: str) -> None:
  if not holds:
    raise Inconsistent(words)


# Images and videos.


def _make_images(folder: pathlib.Path) -> None:
  from PIL import Image

  rng = np.random.default_rng(0)
  pages = [
    Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8))
    for _ in range(3)
  ]
  first, rest = pages[0], pages[1:]
  for name in ("1.png", "2.jpg", "3.webp", "4.tiff", "5.bmp", "6.ppm"):
    first.save(folder / name)
  for name in ("7.gif", "8.webp", "9.tiff", "10.png"):
    first.save(folder / name, save_all=True, append_images=rest, duration=100)
  first.convert("P").save(folder / "palette.png")
  Image.fromarray(np.zeros((8, 8), np.uint16)).save(folder / "deep.png")


def _make_videos(folder: pathlib.Path) -> None:
  from tests import raw_data

  clip = raw_data.frames(9, seed=0, height=32, width=48)
  for name, codec in (
    ("a.mp4", "libx264"),
    ("b.avi", "mpeg4"),
    ("c.mkv", "libx264"),
    ("d.webm", "libvpx-vp9"),
    ("e.mov", "mjpeg"),
  ):
    try:
      raw_data.video(folder / name, clip, codec=codec)
    except Exception:
      if codec != "mjpeg":
        raise


def _read_media(folder: pathlib.Path) -> Any:
  """Reads each file as reconstruct does, and as training does."""
  from input_pipeline.decoding import frame_reader
  from input_pipeline.decoding import media

  read = {}
  for path in sorted(folder.iterdir()):
    opened = media.probe(str(path))
    shapes, count = set(), 0
    for frame_HWC in opened.frames():
      shapes.add((frame_HWC.shape, frame_HWC.dtype.name))
      count += 1
    _check(len(shapes) == 1, f"{path}: frames {shapes}")
    ((shape, dtype),) = shapes
    _check(dtype == "uint8" and shape[2] == 3, f"{path}: {shape} {dtype}")
    for part in (str(path), path.read_bytes()):
      encoded = frame_reader.Encoded(str(path), 0, (part,))
      frames = frame_reader.read(encoded, lambda length: range(length)[:2])
      _check({f.shape for f in frames} == {shape}, f"{path}: other shapes")
    read[path.name] = (shape, count)
  return read


# Archives of arrays.


def _make_npz(folder: pathlib.Path) -> None:
  rng = np.random.default_rng(0)
  video = rng.integers(0, 256, (6, 2, 4, 4, 3), np.uint8)
  arrays = {"arr_0": video, "arr_1": np.arange(6), "mu": rng.normal(size=8)}
  np.savez(folder / "plain.npz", **arrays)
  np.savez_compressed(folder / "packed.npz", **arrays)


def _read_npz(folder: pathlib.Path) -> Any:
  from storage import npz

  read = {}
  for path in sorted(folder.iterdir()):
    names = npz.names(str(path))
    for name in names:
      array = npz.load(str(path), name)
      read[path.name, name] = child.digest(array)
    rows = npz.Rows(str(path))
    first = rows.read(0, 2)
    _check(first.shape == (min(2, len(rows)), *rows.shape[1:]), "rows")
    np.testing.assert_array_equal(
      rows.read(0, len(rows)), npz.load(str(path), "arr_0")
    )
  return read


# Shards with a manifest.


def _describe_shards(folder: pathlib.Path, path: pathlib.Path) -> None:
  """Makes the bytes and the checksum of shards in a manifest true again."""
  from storage import files

  (manifest,) = path.parent.glob("*.json")
  try:
    fields = json.loads(manifest.read_bytes())
    for shard in fields["shards"]:
      changed = path.parent / shard["name"]
      shard["bytes"] = changed.stat().st_size
      shard["sha256"] = files.sha256(str(changed))
  except (ValueError, KeyError, TypeError, OSError, RecursionError):
    return
  manifest.write_text(json.dumps(fields))


def _make_tokens(folder: pathlib.Path) -> None:
  from input_pipeline.sources import token_shards
  from storage import shards

  contents = token_shards.Contents(
    tokenizer="f" * 64,
    dataset=dict(name="digits", split="train", frames=5, size=16, seed=0),
    examples=10,
    examples_per_shard=4,
    clip_shape=(5, 16, 16),
    latent_shape=(3, 2, 2),
    vocabulary=64,
    bits=6,
    ids="in raster order",
    dtype="uint8",
    tasks=("central_inpainting",),
    condition_frames=3,
  )
  rng = np.random.default_rng(0)
  draw = lambda: rng.integers(64, size=(3, 2, 2), dtype=np.uint8)
  for number, name in enumerate(contents.layout.names):
    records = [
      token_shards.pack(
        {
          "ids": draw(),
          "condition/central_inpainting": draw(),
          "label": np.asarray(index % 10, np.int32),
          "index": np.asarray(index, np.int64),
        }
      )
      for index in contents.layout.places(number)
    ]
    # Records lie open, so that changes reach them.
    shards.write(str(folder / name), records, compress=False)
  described = [shards.describe(str(folder), n) for n in contents.layout.names]
  (folder / "tokens.json").write_text(shards.to_json(contents, described))


def _read_tokens(folder: pathlib.Path) -> Any:
  from input_pipeline.sources import token_shards

  source = token_shards.TokenShards(str(folder), num_classes=10)
  contents, read = source.contents, []
  for index in range(len(source)):
    example = source[index]
    for name, array in example.items():
      if name != "label":
        _check(
          array.shape == tuple(contents.latent_shape), f"{name} {array.shape}"
        )
        _check(0 <= array.min() and array.max() < contents.vocabulary, name)
    _check(0 <= example["label"] < 10, f"label {example['label']}")
    read.append(child.digest(*example.values()))
  return read


def _make_media_shards(folder: pathlib.Path) -> None:
  from input_pipeline.sources import media_shards
  from storage import shards

  rng = np.random.default_rng(0)
  plan = media_shards.Plan(
    name="classes",
    split="train",
    class_names=("a", "b"),
    listed=6,
    listing_sha256="e" * 64,
    examples_per_shard=4,
    encoding={},
  )
  train, described = folder / "train", []
  train.mkdir()
  from input_pipeline.decoding import frame_reader

  for number, name in enumerate(plan.layout.names):
    places = list(plan.layout.places(number))
    records = [
      media_shards.pack(
        frame_reader.Encoded(f"{place}.png", place % 2, (rng.bytes(30),))
      )
      for place in places
    ]
    shards.write(str(train / name), records, compress=False)
    fields = vars(shards.describe(str(train), name))
    described.append(
      media_shards.Shard(**fields, lengths=(1,) * len(places), broken=())
    )
  text = media_shards.to_json(plan, described)
  (train / "media.json").write_text(text)


def _read_media_shards(folder: pathlib.Path) -> Any:
  from input_pipeline.sources import media_shards

  source, read = media_shards.MediaShards(str(folder), "train"), []
  for index in range(len(source)):
    encoded = source[index]
    _check(0 <= encoded.label < len(source.class_names), f"{encoded.label}")
    _check(all(isinstance(part, bytes) for part in encoded.parts), "parts")
    read.append((encoded.label, encoded.parts))
  return read


# Files of coded tokens.

_TOKENIZER = "0123456789abcdef" * 4


def _make_coded(folder: pathlib.Path) -> None:
  from magvit.compression import file_format

  rng = np.random.default_rng(0)
  coded = file_format.Coded(
    ids_thw=rng.integers(0, 64, (3, 4, 5), np.int32),
    vocabulary=64,
    video_shape=(9, 31, 40),
    frame_rate=fractions.Fraction(30000, 1001),
    tokenizer=_TOKENIZER,
  )
  (folder / "a.mvt").write_bytes(file_format.pack(coded))


def _read_coded(folder: pathlib.Path) -> Any:
  from magvit.compression import file_format
  from models.tokenizer import geometry

  grid = file_format.Grid(64, geometry.Sizes(time=4, space=8))
  path = folder / "a.mvt"
  data = path.read_bytes()
  coded = file_format.unpack(data, _TOKENIZER, name=str(path), grid=grid)
  return (
    child.digest(coded.ids_thw),
    coded.video_shape,
    coded.frame_rate,
    coded.vocabulary,
  )


def _mend_coded(folder: pathlib.Path, path: pathlib.Path) -> None:
  """Makes the number of words and the file's checksum true again."""
  import struct
  import zlib

  from magvit.compression import file_format

  data, head = bytearray(path.read_bytes()), file_format.HEADER_BYTES
  if len(data) < head:
    return
  struct.pack_into("<I", data, head - 8, (len(data) - head) // 4)
  crc = zlib.crc32(bytes(data[: head - 4]) + bytes(data[head:]))
  struct.pack_into("<I", data, head - 4, crc)
  path.write_bytes(data)


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
      _check(isinstance(name, str) and isinstance(tensor, np.ndarray), name)
      _check(tensor.dtype != object, f"{name} of objects")
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
  _check(exports.step(str(folder)) >= 0, "step")
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


READERS = {
  reader.name: reader
  for reader in (
    Reader("images", _make_images, _read_media, alone=True),
    Reader("videos", _make_videos, _read_media, alone=True),
    Reader("npz", _make_npz, _read_npz, alone=True),
    Reader("tokens", _make_tokens, _read_tokens, mend=_describe_shards),
    Reader(
      "media shards",
      _make_media_shards,
      _read_media_shards,
      mend=_describe_shards,
    ),
    Reader(
      "coded tokens",
      _make_coded,
      _read_coded,
      mend=_mend_coded,
      exact=True,
      sealed=True,
    ),
    Reader(
      "weights",
      _make_weights,
      _read_weights,
      mend=_mend_index,
      alone=True,
    ),
    Reader("config", _make_config, _read_config),
    Reader(
      "checkpoints",
      _make_checkpoints,
      _read_checkpoints,
      mend=_describe_checkpoint,
      exact=True,
    ),
    Reader("export", _make_export, _read_export, exact=True),
    *(
      Reader(f"planted {name}", planted.make, read)
      for name, read in planted.READS.items()
    ),
  )
}
