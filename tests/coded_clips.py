"""Shards of ten coded clips, made up, as --mode=tokenize writes them."""

import pathlib

import numpy as np

from input_pipeline.sources import token_shards
from storage import shards

SHAPE = (3, 2, 2)


def contents(**changes) -> token_shards.Contents:
  fields = dict(
    tokenizer="f" * 64,
    dataset=dict(name="digits", split="train", frames=5, size=16, seed=0),
    examples=10,
    examples_per_shard=4,
    clip_shape=(5, 16, 16),
    latent_shape=SHAPE,
    vocabulary=64,
    bits=6,
    ids="in raster order",
    dtype="uint8",
    tasks=("central_inpainting",),
    condition_frames=3,
  )
  return token_shards.Contents(**{**fields, **changes})


def record(index: int) -> dict[str, np.ndarray]:
  rng = np.random.default_rng(index)
  draw = lambda: rng.integers(64, size=SHAPE, dtype=np.uint8)
  return {
    "ids": draw(),
    "condition/central_inpainting": draw(),
    "label": np.asarray(index % 10, np.int32),
    "index": np.asarray(index, np.int64),
  }


def write(folder: pathlib.Path, compress: bool = True, **changes) -> None:
  """Writes ten clips in three shards, unless `changes` say, and tokens.json."""
  clips = contents(**changes)
  layout = clips.layout
  for number, name in enumerate(layout.names):
    records = map(record, layout.places(number))
    packed = map(token_shards.pack, records)
    shards.write(str(folder / name), packed, compress=compress)
  described = [shards.describe(str(folder), name) for name in layout.names]
  manifest = shards.to_json(clips, described)
  (folder / "tokens.json").write_text(manifest)
