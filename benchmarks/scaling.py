"""How the cost of a training step grows, counted and not timed.

  python -m benchmarks.scaling [--output=FILE]

FLOPs of matrix products and convolutions (magvit/cost/flops.py, checked against
closed forms) of the exact step, forward and backward, and the bytes of what is
kept between steps, for the papers' models with one thing changed at a time.
Nothing is compiled or run: about two minutes. As a table of docs/plan_a_job.md.
"""

import argparse
import json
import pathlib

import jax

from configs import masked
from configs import tokenizer_video
from magvit import mesh as mesh_lib
from magvit.cost import flops
from magvit.cost import programs as cost_programs

_TOKENIZERS = {"v1_ucf101_l": "v1_l"}  # of generators; others: ucf101
_ROWS = {  # name -> (generator?, changes of ucf101, or another config)
  "tokenizer, 17 x 128 x 128, 18 bits, 1 clip": (False, {}),
  "2 clips": (False, {"batch_size": 2}),
  "17 x 256 x 256": (False, {"dataset.size": 256}),
  "33 x 128 x 128": (False, {"dataset.frames": 33}),
  "10 bits": (False, {"quantizer.bits": 10}),
  "MAGVIT-L on 5 x 16 x 16 tokens of 18 bits, 1 clip": (True, {}),
  "2 clips of tokens": (True, {"batch_size": 2}),
  "5 x 32 x 32 tokens (256 x 256 pixels)": (True, {"dataset.size": 256}),
  "9 x 16 x 16 tokens (33 frames)": (True, {"dataset.frames": 33}),
  "one head of 2^10": (True, "v1_ucf101_l"),
  "MAGVIT-B": (True, "ucf101_b"),
  "MAGVIT-H": (True, "ucf101_h"),
}


def main():
  parser = argparse.ArgumentParser()
  parser.add_argument("--output", type=pathlib.Path, help="also write JSON")
  args = parser.parse_args()
  mesh = mesh_lib.data_mesh(jax.devices()[:1])
  rows, base = [], None
  print("| step of | TFLOP | of the first | state, GB |\n|---|---|---|---|")
  for name, (generates, changes) in _ROWS.items():
    if not changes:
      base = None  # of the next model
    found = _count(generates, changes, mesh)
    base = base or found["flops"]
    print(
      f"| {name} | {found['flops'] / 1e12:.3g} | {found['flops'] / base:.2f}"
      f" | {found['state_bytes'] / 1e9:.2f} |"
    )
    rows.append({"row": name, **found})
  if args.output:
    args.output.write_text(json.dumps(rows, indent=2) + "\n")


def _count(generates: bool, changes, mesh) -> dict[str, int]:
  arg = changes if isinstance(changes, str) else "ucf101"
  config = (masked if generates else tokenizer_video).get_config(arg)
  config.batch_size = 1
  network = config.transformer if generates else config.tokenizer
  network.dtype = "bfloat16"
  if generates:
    own = _TOKENIZERS.get(arg, "ucf101")
    config.tokenizer_workdir = f"configs/tokenizer_video.py:{own}"
    config.dataset.tokens = "STORED"
  if isinstance(changes, dict):
    config.update_from_flattened_dict(changes)
  algorithm = cost_programs.describe(config, mesh)
  function, _, _, arguments = cost_programs.programs(config, algorithm, mesh)[
    "train"
  ]
  state = arguments[0].replace(frozen={})
  size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
  return {"flops": flops.count(function, *arguments), "state_bytes": size}


if __name__ == "__main__":
  main()
