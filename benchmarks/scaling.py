"""Growth of a training step's cost, counted and not timed.

  python -m benchmarks.scaling [--output=FILE]

Counts the FLOPs of matrix products and convolutions in the exact step, forward
and backward (magvit/cost/flops.py, checked against closed forms), and the bytes
of the state, for the papers' models with one thing changed at a time. Nothing
is compiled or run; it takes about two minutes. The output is the table of
docs/plan_a_job.md.
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

# Generator -> its tokenizer, where that is not ucf101.
_TOKENIZERS = {"v1_ucf101_l": "v1_l"}
# Name -> (whether it is a generator, changes of ucf101 or another config).
_ROWS = {
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
  parser.add_argument(
    "--output", type=pathlib.Path, help="JSON to write as well"
  )
  args = parser.parse_args()
  mesh = mesh_lib.data_mesh(jax.devices()[:1])
  rows, base = [], None
  print("| step of | TFLOP | of the first | state, GB |\n|---|---|---|---|")
  for name, (generates, changes) in _ROWS.items():
    if not changes:
      base = None  # the next rows are compared with this one
    cost = _count(generates, changes, mesh)
    base = base or cost["flops"]
    print(
      f"| {name} | {cost['flops'] / 1e12:.3g} | {cost['flops'] / base:.2f}"
      f" | {cost['state_bytes'] / 1e9:.2f} |"
    )
    rows.append({"row": name, **cost})
  if args.output:
    args.output.write_text(json.dumps(rows, indent=2) + "\n")


def _count(generates: bool, changes, mesh) -> dict[str, int]:
  arg = changes if isinstance(changes, str) else "ucf101"
  config = (masked if generates else tokenizer_video).get_config(arg)
  config.batch_size = 1
  network = config.transformer if generates else config.tokenizer
  network.dtype = "bfloat16"
  if generates:
    tokenizer = _TOKENIZERS.get(arg, "ucf101")
    config.tokenizer_workdir = f"configs/tokenizer_video.py:{tokenizer}"
    config.dataset.tokens = "STORED"
  if isinstance(changes, dict):
    config.update_from_flattened_dict(changes)
  config = cost_programs.without_remat(config)
  algorithm = cost_programs.describe(config, mesh)
  program = cost_programs.programs(config, algorithm, mesh)["train"]
  state = program.arguments[0].replace(frozen={})
  size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
  # Most steps of a tokenizer do not encode the probe of its health.
  operations = flops.count(program.function, *program.arguments, branch=min)
  return {"flops": operations, "state_bytes": size}


if __name__ == "__main__":
  main()
