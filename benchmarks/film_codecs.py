"""The film's clips by tokens, by bicubic down-and-up, and by x264.

  python -m benchmarks.film_codecs --shards=DIR [--workdir=TOKENIZER]
    --output=FILE [--size=64]

DIR is of `python -m input_pipeline.prepare --format=film`. Of its held-out
clips, of as many of training, cut alike, and of those of live action, PSNR and
SSIM are printed beside the bits per pixel of

  tokens    the tokenizer's, without any further coding; none without --workdir
  bicubic   frames brought to the size of the tokens' grid, and time to its
            length, as 8-bit RGB, and back
  x264      each clip at the least quantization parameter at which it takes no
            more bits than the tokens, if there is one, else at 51
  x264_51   each clip at 51, the lowest rate of x264

FILE is a result for the report: OUTPUT/results/film_codecs.json of a workdir
shows there.
"""

import argparse
from collections.abc import Callable
import dataclasses
import fractions
import functools
import os
import sys
import tempfile
from typing import Any

import ml_collections
import numpy as np
from PIL import Image

from configs import tokenizer_video
from evaluation import evaluators
from evaluation.metrics import frames as frame_metrics
from evaluation.show import pictures
from input_pipeline import pipeline
from magvit.compression import video_codecs
from magvit.tokenizer import describe
from magvit.tokenizer import loaded
from storage import files

_PRESET = "veryslow"
_FRAME_RATE = fractions.Fraction(24)  # that of the film; it costs no bits
_LARGEST_QP = 51
_METRICS = ("psnr", "ssim")


@dataclasses.dataclass(frozen=True)
class Coded:
  """A decoded clip, uint8 (T, H, W, 3), and the bits that it took."""

  video_THWC: np.ndarray
  bits: float


def bicubic(video_THWC: np.ndarray, grid_thw: tuple[int, int, int]) -> Coded:
  """Reduces a clip to a small one of 8-bit RGB, and enlarges that again.

  Pillow's bicubic filter is antialiased, in space and along time.
  """
  small_thwC = _resized(video_THWC, grid_thw)
  bits = small_thwC.size * 8
  return Coded(_resized(small_thwC, video_THWC.shape[:3]), bits)


def _resized(video_THWC: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
  """Resizes one axis after the other, in float; rounded to uint8 at the end."""
  x = video_THWC.astype(np.float32)
  for axis, size in enumerate(shape):
    rows = np.moveaxis(x, axis, 0)
    picture = Image.fromarray(rows.reshape(len(rows), -1))
    resized = picture.resize((picture.width, size), Image.Resampling.BICUBIC)
    x = np.moveaxis(np.asarray(resized).reshape(size, *rows.shape[1:]), 0, axis)
  return np.rint(x.clip(0, 255)).astype(np.uint8)


def least_qp(size_at: Callable[[int], int], limit: int) -> int:
  """The least quantization parameter whose size is within the limit, or 51.

  Sizes are taken to fall as the parameter rises.
  """
  low, high = 0, _LARGEST_QP
  while low < high:
    middle = (low + high) // 2
    if size_at(middle) <= limit:
      high = middle
    else:
      low = middle + 1
  return low


def x264(video_THWC: np.ndarray, bits: float) -> dict[str, Coded]:
  """A clip within so many bits, and at the lowest rate, all bytes counted."""
  codec = video_codecs.x264(_PRESET, ())
  with tempfile.TemporaryDirectory() as folder:

    @functools.cache
    def encoded(qp: int) -> str:
      path = os.path.join(folder, f"{qp}.h264")
      video_codecs.encode(codec, qp, video_THWC, _FRAME_RATE, path)
      return path

    size_at = lambda qp: os.path.getsize(encoded(qp))
    chosen = least_qp(size_at, int(bits // 8))
    return {
      name: Coded(
        video_codecs.decode(codec, encoded(qp), video_THWC.shape[:3]),
        8 * size_at(qp),
      )
      for name, qp in (("x264", chosen), ("x264_51", _LARGEST_QP))
    }


def compare(
  video_NTHWC: np.ndarray,
  grid_thw: tuple[int, int, int],
  bits_per_token: float,
  reconstruct: Callable[[np.ndarray], np.ndarray] | None = None,
) -> dict[str, dict[str, float]]:
  """Mean scores of each way to code the clips: {way: {score: value}}.

  `fitting` is the share of the clips that x264 brings within the tokens' bits.

  Args:
    video_NTHWC: clips, uint8.
    grid_thw: (frames, height, width) of a clip's tokens.
    bits_per_token: bits of one.
    reconstruct: clips to their reconstructions, uint8; None: no tokenizer.
  """
  bits = bits_per_token * np.prod(grid_thw)
  coded = []
  for video in video_NTHWC:
    ways = {}
    if reconstruct is not None:
      ways["tokens"] = Coded(reconstruct(video[None])[0], bits)
    coded.append({**ways, "bicubic": bicubic(video, grid_thw)})
    coded[-1] |= x264(video, bits)
  pixels = np.prod(video_NTHWC.shape[1:4])
  scores = {}
  for way in coded[0]:
    outputs = np.stack([each[way].video_THWC for each in coded])
    scores[way] = {
      "bits_per_pixel": float(np.mean([c[way].bits for c in coded]) / pixels)
    }
    for name in _METRICS:
      metric = frame_metrics.FRAME_METRICS[name].score
      assert metric is not None
      pair = (x / np.float64(255.0) for x in (video_NTHWC, outputs))
      scores[way][name] = float(metric(*pair).mean())
  fits = [each["x264"].bits <= bits for each in coded]
  scores["x264"]["fitting"] = float(np.mean(fits))
  return scores


def _table(name: str, count: int, scores: dict[str, dict[str, float]]) -> None:
  print(f"{name}: {count} clips")
  print(f"  {'':<10}{'bits/pixel':>12}{'PSNR, dB':>10}{'SSIM':>8}")
  for way, row in scores.items():
    numbers = f"{row['bits_per_pixel']:>12.4f}{row['psnr']:>10.2f}"
    print(f"  {way:<10}{numbers}{row['ssim']:>8.3f}")
  share = scores["x264"]["fitting"]
  print(f"  x264 brings {share:.0%} of the clips within the tokens' bits")


def _result(
  sets: dict[str, dict[str, dict[str, float]]], step: int, facts: dict[str, Any]
) -> dict[str, Any]:
  """The scores as a result that the report shows."""
  metrics = {
    f"{name}_{way}_{score}": value
    for name, scores in sets.items()
    for way, row in scores.items()
    for score, value in row.items()
  }
  facts = {"protocol": "film_codecs", **facts}
  result = evaluators.Result("film_codecs", metrics, facts)
  return {"step": step, **dataclasses.asdict(result)}


def through_tokens(
  tokenizer: loaded.LoadedTokenizer, video_BTHWC: np.ndarray
) -> np.ndarray:
  """Clips, uint8 (B, T, H, W, 3), encoded and decoded."""
  output = tokenizer.decode(tokenizer.encode(video_BTHWC))
  return pictures.to_uint8(np.asarray(output), "round", "reconstructions")


def flags(description: str) -> argparse.ArgumentParser:
  """Flags that say which clips, and by which tokenizer, if by one."""
  parser = argparse.ArgumentParser(description=description)
  parser.add_argument("--shards", required=True, help="folder of the film")
  parser.add_argument("--workdir", help="workdir of a tokenizer of the film")
  size = "pixels of the clips without --workdir"
  parser.add_argument("--size", type=int, default=64, help=size)
  return parser


def load(
  args: argparse.Namespace,
) -> tuple[ml_collections.ConfigDict, loaded.LoadedTokenizer | None]:
  """The tokenizer of `flags` and its config; without one that of `film64`.

  Raises:
    ValueError: no shards or no tokenizer.
  """
  check_shards(args.shards)
  if args.workdir:
    tokenizer = loaded.load_tokenizer(args.workdir)
    return tokenizer.config, tokenizer
  config = tokenizer_video.get_config("film64")
  config.dataset.size = args.size
  return config, None


def check_shards(path: str, *more: str) -> None:
  """Raises ValueError if the film's shards, or more folders there, lack."""
  for folder in (path, *(os.path.join(path, name) for name in more)):
    if not os.path.isdir(folder):
      raise ValueError(
        f"--shards={path}: {folder} is no folder; python -m"
        f" input_pipeline.prepare --format=film --output={path} makes it"
      )


def main() -> None:
  parser = flags("The film's clips by tokens, by bicubic down-and-up, by x264.")
  parser.add_argument("--output", required=True, help="JSON to write")
  args = parser.parse_args()
  try:
    _run(args)
  except (OSError, ValueError) as error:
    sys.exit(f"film_codecs: {error}")


def _run(args: argparse.Namespace) -> None:
  config, tokenizer = load(args)
  check_shards(args.shards, "live_action")
  reconstruct, step = None, 0
  if tokenizer:
    step = tokenizer.step or 0
    reconstruct = functools.partial(through_tokens, tokenizer)
  grid_thw = describe.sizes(config).latent(describe.clip_shape(config))
  bits_per_token = float(np.log2(describe.vocabulary(config)))

  def clips(folder: str, split: str, count: int | None = None) -> np.ndarray:
    """Clips (N, T, H, W, 3), uint8, cut by the rules of evaluation."""
    config.dataset.path = os.path.join(args.shards, folder)
    source = pipeline.source(config.dataset, split, count, training=False)
    return np.stack([source[i]["video"] for i in range(len(source))])

  held_out = clips("", "held_out")
  videos = {
    "held_out": held_out,
    "train": clips("", "train", len(held_out)),
    "live_action": clips("live_action", "held_out"),
  }
  sets = {}
  for name, video_NTHWC in videos.items():
    sets[name] = compare(video_NTHWC, grid_thw, bits_per_token, reconstruct)
    _table(name, len(video_NTHWC), sets[name])
  facts = {
    "tokens": f"{'x'.join(map(str, grid_thw))} of {bits_per_token:g} bits",
    "bicubic": "Pillow, antialiased in space and time, 8-bit RGB between",
    "x264": f"{_PRESET}, tuned for PSNR, 4:2:0, all bytes of the stream",
    "scores": "on 8-bit RGB, mean over frames, then over clips",
    "ffmpeg": video_codecs.version(),
  }
  files.write_json(args.output, _result(sets, step, facts))
  print(f"wrote {args.output}")


if __name__ == "__main__":
  main()
