"""Peak memory and speed of coding long videos in chunks.

  python -m benchmarks.streaming [--output=FILE]

The peak for 65 and for 1,025 frames is expected to be the same. Each length
runs in its own process, because the peak of a process never falls.
"""

import argparse
import json
import pathlib
import resource
import subprocess
import sys
import time

import jax
import numpy as np

from configs import tokenizer_video
from magvit.tokenizer import describe
from magvit.tokenizer import loaded

_LENGTHS = (65, 257, 1025)  # frames of the videos
_SIZE = 32  # side of the videos, pixels
_CHANNELS = 16  # base channels, an eighth of the model's: minutes on a CPU


def measure(frames: int) -> dict[str, float]:
  """Codes and decodes a video: peak of the process, frames per second."""
  config = tokenizer_video.get_config("ucf101")
  config.tokenizer.base_channels = config.tokenizer.norm_groups = _CHANNELS
  net = describe.define_tokenizer(config)
  params = jax.jit(net.init)(jax.random.key(0))
  tokenizer = loaded.LoadedTokenizer(config, net, params)
  rng = np.random.default_rng(0)

  def pieces():
    for _ in range(frames):
      yield rng.integers(0, 256, (1, 1, _SIZE, _SIZE, 3), dtype=np.uint8)

  start, count = time.perf_counter(), 0
  for video in tokenizer.decode_stream(tokenizer.encode_stream(pieces())):
    count += video.shape[1]
  assert count == frames
  seconds = time.perf_counter() - start
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
  return {"frames": frames, "peak_mib": peak, "frames_per_s": frames / seconds}


def main() -> None:
  parser = argparse.ArgumentParser()
  parser.add_argument("--frames", type=int, help="only length, in this process")
  parser.add_argument(
    "--output", type=pathlib.Path, help="JSON to write as well"
  )
  args = parser.parse_args()
  if args.frames:
    print(json.dumps(measure(args.frames)))
    return
  rows = []
  for frames in _LENGTHS:
    module = [sys.executable, "-m", "benchmarks.streaming"]
    result = subprocess.run(
      [*module, f"--frames={frames}"],
      capture_output=True,
      text=True,
      check=True,
    )
    rows.append(json.loads(result.stdout.strip().splitlines()[-1]))
    print(rows[-1])
  if args.output:
    args.output.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
  main()
