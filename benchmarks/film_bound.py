"""What an ideal code of as many bits as the tokens makes of the film.

  python -m benchmarks.film_bound --shards=DIR [--workdir=TOKENIZER] [--size=64]

DIR is of `python -m input_pipeline.prepare --format=film`. Prints the
distortion that no code of Gaussian blocks goes below (Cover and Thomas,
Elements of Information Theory, theorem 10.3.3: reverse water-filling over the
eigenvalues of their covariance), for blocks of one token and of 2 x 2 tokens
side by side, with the tokens' bits for each. The covariances are those of the
clips to train on, without their first frames, which have tokens for
themselves.

Pictures are not Gaussian, and of all sources of one covariance the Gaussian is
the hardest to code: a network may pass these numbers by what covariances do
not tell. With --workdir the tokenizer's own error on held-out clips is
printed, too, as one mean over all pixels, and not as the mean of frames' PSNR
that other tables have.
"""

import argparse
import sys

import numpy as np

from benchmarks import film_codecs
from input_pipeline import pipeline
from magvit.tokenizer import describe

_CLIPS = 512  # enough for 30,000 blocks of 2 x 2 tokens


def gaussian_distortion(variances_K: np.ndarray, bits: float) -> float:
  """Least mean squared error of K Gaussians in so many bits together.

  Args:
    variances_K: their variances, at least one above 0.
    bits: bits of all K, 0 or more.

  Returns:
    The mean over the K of their errors: of each its variance, or the level of
    the water if that is less.
  """
  # In the logarithm of the level, the bits fall in pieces that are straight
  # lines: with the n largest above the level, bits = sum(log2(v / level)) / 2.
  sorted_K = np.sort(variances_K[variances_K > 0])[::-1]
  logs_K = np.log2(sorted_K)
  n_K = np.arange(1, len(logs_K) + 1)
  levels_K = (np.cumsum(logs_K) - 2 * bits) / n_K
  # One level is right: that of the last component that still rises above it.
  level = levels_K[np.flatnonzero(levels_K <= logs_K)[-1]]
  return float(np.minimum(variances_K, 2.0**level).mean())


def blocks(video_NTHWC: np.ndarray, shape_thw: tuple[int, ...]) -> np.ndarray:
  """Clips as vectors of their blocks: float32 (blocks, t * h * w * C)."""
  n, *sizes, channels = video_NTHWC.shape
  grid = [size // by for size, by in zip(sizes, shape_thw, strict=True)]
  split = [x for pair in zip(grid, shape_thw, strict=True) for x in pair]
  x = video_NTHWC.reshape(n, *split, channels)
  x = x.transpose(0, 1, 3, 5, 2, 4, 6, 7)
  return x.reshape(-1, np.prod(shape_thw) * channels).astype(np.float32)


def psnr_of_gaussian_code(blocks_NK: np.ndarray, bits: float) -> float:
  """PSNR, dB, of the ideal code of Gaussian blocks; pixels are in [0, 255]."""
  covariance_KK = np.cov(blocks_NK / np.float32(255), rowvar=False)
  variances_K = np.linalg.eigvalsh(covariance_KK).clip(0)
  return float(-10 * np.log10(gaussian_distortion(variances_K, bits)))


def main() -> None:
  args = film_codecs.flags((__doc__ or "").splitlines()[0]).parse_args()
  try:
    _run(args)
  except (OSError, ValueError) as error:
    sys.exit(f"film_bound: {error}")


def _run(args: argparse.Namespace) -> None:
  config, tokenizer = film_codecs.load(args)
  config.dataset.path = args.shards
  strides_thw = describe.sizes(config).strides
  bits_per_token = float(np.log2(describe.vocabulary(config)))
  clips = pipeline.source(config.dataset, "train")
  chosen = np.linspace(0, len(clips) - 1, min(_CLIPS, len(clips))).astype(int)
  video_NTHWC = np.stack([clips[i]["video"][1:] for i in chosen])
  print(f"covariances of {len(video_NTHWC)} training clips")
  for side in (1, 2):
    shape = (strides_thw[0], *(side * x for x in strides_thw[1:]))
    bits = side**2 * bits_per_token
    psnr = psnr_of_gaussian_code(blocks(video_NTHWC, shape), bits)
    name = "x".join(map(str, shape))
    print(f"  Gaussian blocks of {name}, {bits:g} bits: {psnr:.2f} dB")
  if tokenizer:
    held_out = pipeline.source(config.dataset, "held_out")
    errors = []
    for i in range(len(held_out)):
      video = held_out[i]["video"][None]
      output = film_codecs.through_tokens(tokenizer, video)
      errors.append(np.square((output - video.astype(np.float64)) / 255).mean())
    psnr = -10 * np.log10(np.mean(errors))
    print(f"  the tokenizer, {len(errors)} held-out clips: {psnr:.2f} dB")


if __name__ == "__main__":
  main()
