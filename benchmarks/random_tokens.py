"""Shards of random tokens, as --mode=tokenize writes them, to be read."""

import pathlib

import numpy as np

from input_pipeline.sources import token_shards
from storage import shards

_LATENTS, _BITS = (5, 16, 16), 18  # those of a clip of the papers


def write(folder: pathlib.Path, clips: int, clips_per_shard: int) -> int:
  """Writes a folder for `dataset.tokens`; returns the bytes of its shards."""
  folder.mkdir(parents=True, exist_ok=True)
  contents = token_shards.Contents(
    tokenizer="0" * 64,
    dataset={},
    examples=clips,
    examples_per_shard=clips_per_shard,
    clip_shape=(17, 128, 128),
    latent_shape=_LATENTS,
    vocabulary=2**_BITS,
    bits=_BITS,
    ids="drawn at random",
    dtype="uint32",
    tasks=(),
    condition_frames=1,
  )
  rng = np.random.default_rng(0)

  def record(index: int) -> bytes:
    ids = rng.integers(2**_BITS, size=_LATENTS, dtype=np.uint32)
    label, place = np.asarray(0, np.int32), np.asarray(index, np.int64)
    return token_shards.pack({"ids": ids, "label": label, "index": place})

  made = []
  for number, name in enumerate(contents.layout.names):
    places = contents.layout.places(number)
    shards.write(str(folder / name), map(record, places))
    made.append(shards.describe(str(folder), name))
  token_shards.FORMAT.finish(str(folder), shards.to_json(contents, made))
  return sum(shard.bytes for shard in made)
