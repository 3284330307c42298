"""Fréchet distances on the film's held-out frames that must be small, or not.

  python -m benchmarks.film --shards=DIR --weights=FILE [--output=FILE]

DIR is of `python -m input_pipeline.prepare --format=film --size=64`, FILE of
`python -m models.weights.fetch --network=efficientnet_lite0`. Clips are dealt
out to two halves in turn. The first half is compared with the second, with the
second after its pixels were shuffled, and with reconstructions of the second by
a tokenizer whose weights were just drawn. The exit code is 1 unless the halves
are the closest by far.
"""

import argparse
import json
import pathlib
import sys

import jax
import numpy as np

from benchmarks import film_codecs
from configs import tokenizer_video
from evaluation.metrics import frechet
from evaluation.protocols import networks
from evaluation.show import pictures
from input_pipeline import pipeline
from magvit.tokenizer import describe

_EVERY = 8  # frames from one that is compared to the next, for they are alike
_FACTOR = 2.0  # the other distances are at least so many times as large


def main():
  parser = argparse.ArgumentParser()
  parser.add_argument("--shards", required=True, help="folder of the film")
  parser.add_argument("--weights", required=True, help="EfficientNet-Lite0's")
  output = "JSON to write as well"
  parser.add_argument("--output", type=pathlib.Path, help=output)
  args = parser.parse_args()
  try:
    distances = _distances(args.shards, args.weights)
  except (OSError, ValueError) as error:
    sys.exit(f"film: {error}")
  if args.output:
    args.output.write_text(json.dumps(distances, indent=2))
  least, *rest = distances.values()
  sys.exit(0 if all(x > _FACTOR * least for x in rest) else 1)


def _distances(shards: str, weights: str) -> dict[str, float]:
  """Fréchet distances of the first half, by name of what it is compared with.

  Raises:
    ValueError: no shards, or no weights.
  """
  film_codecs.check_shards(shards)
  extract = networks.load("efficientnet_lite0", weights)
  config = tokenizer_video.get_config("film64_small")
  config.dataset.path = shards
  clips = pipeline.source(config.dataset, "held_out")
  whole = np.stack([clips[i]["video"] for i in range(len(clips))])
  first, second = (whole[start::2, ::_EVERY] for start in (0, 1))
  rng = np.random.default_rng(0)
  pixels = second.reshape(*second.shape[:2], -1, 3)
  shuffled = rng.permuted(pixels, axis=2).reshape(second.shape)
  others = {
    "the other half": second,
    "its pixels shuffled": shuffled,
    "its reconstructions, untrained": _untrained(config, whole[1::2])[
      :, ::_EVERY
    ],
  }
  gaussian = lambda x: frechet.statistics(_features(extract, x))
  reference = gaussian(first)
  distances = {
    name: round(frechet.distance(reference, gaussian(x)), 4)
    for name, x in others.items()
  }
  frames = first.shape[0] * first.shape[1]
  for name, distance in distances.items():
    print(f"{frames} held-out frames against {name}: {distance}")
  return distances


def _features(extract: networks.Extractor, video_BTHWC: np.ndarray):
  """Pooled features of all frames, float32 (B T, 1280)."""
  return np.concatenate(
    [extract(video_BTHWC[:, t])["pool"] for t in range(video_BTHWC.shape[1])]
  )


def _untrained(config, video_BTHWC: np.ndarray) -> np.ndarray:
  """Reconstructions by a tokenizer with drawn weights, uint8."""
  tokenizer = describe.define_tokenizer(config)
  params = tokenizer.init(jax.random.key(0))
  reconstruct = describe.predict_functions(tokenizer)["reconstruct"]
  compiled = jax.jit(
    lambda params, x: reconstruct({"tokenizer": params}, {"video": x}, None)
  )
  outputs = [
    np.asarray(compiled(params, clip[None])["video"]) for clip in video_BTHWC
  ]
  return pictures.to_uint8(np.concatenate(outputs), "round", "outputs", 0)


if __name__ == "__main__":
  main()
