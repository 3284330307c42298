"""Readers of clips and of tokens, and a small seed for each."""

import fractions
import json
import pathlib
from typing import Any

import numpy as np

from tests.fuzz import child
from tests.fuzz import reader

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
    reader.check(len(shapes) == 1, f"{path}: frames {shapes}")
    ((shape, dtype),) = shapes
    reader.check(dtype == "uint8" and shape[2] == 3, f"{path}: {shape} {dtype}")
    for part in (str(path), path.read_bytes()):
      encoded = frame_reader.Encoded(str(path), 0, (part,))
      frames = frame_reader.read(encoded, lambda length: range(length)[:2])
      reader.check(
        {f.shape for f in frames} == {shape}, f"{path}: other shapes"
      )
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
    reader.check(first.shape == (min(2, len(rows)), *rows.shape[1:]), "rows")
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
  from tests import coded_clips

  # Records lie open, so that changes reach them.
  coded_clips.write(folder, compress=False)


def _read_tokens(folder: pathlib.Path) -> Any:
  from input_pipeline.sources import token_shards

  source = token_shards.TokenShards(str(folder), num_classes=10)
  contents, read = source.contents, []
  for index in range(len(source)):
    example = source[index]
    for name, array in example.items():
      if name != "label":
        reader.check(
          array.shape == tuple(contents.latent_shape), f"{name} {array.shape}"
        )
        reader.check(
          0 <= array.min() and array.max() < contents.vocabulary, name
        )
    reader.check(0 <= example["label"] < 10, f"label {example['label']}")
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
    reader.check(
      0 <= encoded.label < len(source.class_names), f"{encoded.label}"
    )
    reader.check(
      all(isinstance(part, bytes) for part in encoded.parts), "parts"
    )
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


READERS = (
  reader.Reader("images", _make_images, _read_media, alone=True),
  reader.Reader("videos", _make_videos, _read_media, alone=True),
  reader.Reader("npz", _make_npz, _read_npz, alone=True),
  reader.Reader("tokens", _make_tokens, _read_tokens, mend=_describe_shards),
  reader.Reader(
    "media shards",
    _make_media_shards,
    _read_media_shards,
    mend=_describe_shards,
  ),
  reader.Reader(
    "coded tokens",
    _make_coded,
    _read_coded,
    mend=_mend_coded,
    exact=True,
    sealed=True,
  ),
)
