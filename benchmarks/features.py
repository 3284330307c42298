"""Our Inception features against torch-fidelity's, with the same weights.

  python -m benchmarks.features [--batch=32] [--size=256] [--repeats=5]
    [--output=FILE]

Both compute pool3 and logits of the same uint8 images, in turn, in float32 on
two threads. The report has images a second by wall and by CPU seconds, the
largest difference of the features, and as a floor the time that matrix products
of as many operations take. It needs torch, torchvision and torch-fidelity
beside requirements.txt; nothing is downloaded. Read ratios, not times.
"""

import argparse
import json
import os
import pathlib
import statistics

import jax
import numpy as np
import torch

from benchmarks import timing
from models.features import networks as feature_networks
from models.weights import feature_networks as feature_weights
from models.weights import safetensors_file
from tests.models.features import networks_reference


def main():
  parser = argparse.ArgumentParser()
  parser.add_argument("--batch", type=int, default=32, help="images at once")
  parser.add_argument("--size", type=int, default=256, help="side, pixels")
  parser.add_argument("--repeats", type=int, default=5, help="timed runs")
  parser.add_argument("--threads", type=int, default=2, help="torch's threads")
  parser.add_argument(
    "--output", type=pathlib.Path, help="JSON to write as well"
  )
  args = parser.parse_args()
  torch.set_num_threads(args.threads)
  images_BHWC = networks_reference.pixels(
    (args.batch, args.size, args.size, 3), seed=0
  )

  net, abstract = feature_networks.define("inception")
  tensors = {
    name: networks_reference.draw(name, shape)
    for name, shape in feature_weights.their_shapes(
      "inception", "torch"
    ).items()
  }
  ours, _ = feature_weights.to_ours("inception", tensors, "drawn")
  params = safetensors_file.as_tree(ours, abstract)

  @jax.jit
  def compute(params, images_BHWC):
    features = net(params, images_BHWC)
    return features["pool3"], features["logits"]

  compiled = compute.lower(params, images_BHWC).compile()
  flops = compiled.cost_analysis()["flops"]

  extractor = networks_reference.inception_peer("float32")
  images_BCHW = torch.from_numpy(np.moveaxis(images_BHWC, -1, 1).copy())
  runs = {
    "ours": lambda: compiled(params, images_BHWC),
    "peer": lambda: extractor(images_BCHW)[:2],
    "gemm": timing.gemm(),
  }
  outputs = {k: [np.asarray(x) for x in f()] for k, f in runs.items()}
  errors = [
    float(np.abs(x - y).max() / np.abs(y).max())
    for x, y in zip(outputs["ours"], outputs["peer"], strict=True)
  ]
  wall, cpu = timing.seconds(runs, args.repeats)
  result = {
    "batch": args.batch,
    "size": args.size,
    "threads": args.threads,
    "cores": os.cpu_count(),
    "relative_error": dict(zip(("pool3", "logits"), errors, strict=True)),
    "gflop_per_image": flops / args.batch / 1e9,
  }
  for kind, seconds in (("wall", wall), ("cpu", cpu)):
    medians = {k: statistics.median(v) for k, v in seconds.items()}
    floor = medians["gemm"] * flops / timing.GEMM_FLOP
    result[kind] = {
      "images_per_second": {
        k: args.batch / medians[k] for k in ("ours", "peer")
      },
      "ours_faster": medians["peer"] / medians["ours"],
      "ours_over_floor": medians["ours"] / floor,
      "seconds": seconds,
    }
  text = json.dumps(result, indent=2)
  print(text)
  if args.output:
    args.output.write_text(text + "\n")


if __name__ == "__main__":
  main()
