"""Masked, autoregressive and latent generators, trained for the same time.

  python -m benchmarks.arms --tokenizer=DIR --output=FOLDER
    [--continuous=DIR] [--row=digits] [--arms=NAMES] [--seeds=0]
    [--seconds=480] [--points=4] [--steps=1,2,4,8,16,32] [--set=FIELD=VALUE ...]

DIR is the workdir of a trained tokenizer, that of --continuous of one without a
quantizer (configs/tokenizer_video.py:digits_continuous), which the arm
walt_continuous needs. Every arm learns one task, the row's, from the same
batches of clips, which its step encodes. Its row of configs/ has the recipe,
with an optimizer of its own: --set=optimizer.name=muon and
--set=optimizer.peak_learning_rate=1e-2 give all of them one. Its MLPs are
widened until it has as many parameters as the largest arm, within 10 %. Each
arm and seed runs in its own process, for the same seconds of training steps;
compiling and evaluations do not count. Samples are scored --points times on
the way; in the end the arm is sampled with each of --steps, and the seconds of
a clip are measured.

FOLDER gets arms.json with every arm, seed and step, arms.md, arms.png, samples
in arms_clips.png, and a folder of each arm and seed; one that is finished there
is not run again.
"""

import argparse
import json
import os
import pathlib
import sys
from typing import Any

import jax
import ml_collections

from benchmarks import arms_report
from benchmarks import arms_run
from benchmarks import run
from benchmarks import sides
from magvit import mesh as mesh_lib
from magvit import trained as trained_lib
from magvit.workdir import folder as workdir_lib
from models import network
from storage import files

CONTINUOUS = "walt_continuous"
_MASKED = "masked"  # the arm whose clips the others take
# Fields by which the masked row of the film differs from the other rows, and
# their values in those, or, of the last one, in the masked rows of folders.
_AS_OTHERS = {
  "transformer.condition_hints": False,
  "sampling.carry_detail": False,
  "sampling.temperature": 1.0,
  "sampling.choice_temperature": 12.0,
}
# File of configs/ of each arm, and fields that differ from its row's.
ARMS: dict[str, tuple[str, dict[str, Any]]] = {
  _MASKED: ("masked", _AS_OTHERS),
  "autoregressive": ("autoregressive", {}),
  "walt_bits": ("diffusion", {"latents.kind": "bits"}),
  CONTINUOUS: ("diffusion", {"latents.kind": "continuous"}),
  "diffusion_head": ("masked_diffusion", {"latents.kind": "bits"}),
  "next_frame_flow": ("next_frame_flow", {"latents.kind": "bits"}),
}
TASKS = {"digits": "class_conditional", "film64": "frame_prediction"}
_CLOSE = 0.1  # largest difference of the numbers of parameters
_WIDTHS = 8  # a width of an MLP is a multiple of it
_PACKAGES = ("jax", "jaxlib", "flax", "numpy")


def main() -> None:
  args = _parser().parse_args()
  try:
    configs = _configs(args)
    steps = _numbers("steps", args)
    # Each evaluation compiles the sampler, which is the same each time.
    compiled = str((args.output / "compiled").resolve())
    environment = {"JAX_COMPILATION_CACHE_DIR": compiled}
    for name, config in configs.items():
      settings = arms_run.Settings(
        name, args.seconds, args.points, args.clock, steps
      )
      folder = args.output / name
      sides.run("benchmarks.arms_run", folder, settings, config, environment)
    _report(args, configs)
  except ValueError as error:
    sys.exit(f"arms: {error}")


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  add = parser.add_argument
  add("--tokenizer", required=True, help="workdir of a trained tokenizer")
  add("--continuous", default="", help="of one without a quantizer")
  add("--output", type=pathlib.Path, required=True, help="folder to write")
  add("--row", choices=TASKS, default="digits", help="row of the configs")
  add("--arms", help=f"of {','.join(ARMS)}; default: all that can be trained")
  add("--seeds", default="0", help="separated by commas")
  add("--seconds", type=float, default=480, help="training time of an arm")
  add("--points", type=int, default=4, help="evaluations over this time")
  add("--steps", default="1,2,4,8,16,32", help="numbers of sampling steps")
  add("--clock", choices=("wall", "cpu"), default="wall", help="what is equal")
  add("--set", action="append", default=[], help="FIELD=VALUE of all configs")
  return parser


def _numbers(flag: str, args: argparse.Namespace) -> tuple[int, ...]:
  """The whole numbers of a flag, separated by commas."""
  text = getattr(args, flag)
  try:
    return tuple(int(each) for each in text.split(","))
  except ValueError as error:
    raise ValueError(
      f"--{flag}={text} must be whole numbers, separated by commas"
    ) from error


def _names(args: argparse.Namespace) -> list[str]:
  """The arms of the flags."""
  if args.arms is None:
    return [name for name in ARMS if args.continuous or name != CONTINUOUS]
  names = args.arms.split(",")
  unknown = sorted(set(names) - set(ARMS))
  if unknown:
    raise ValueError(f"--arms={args.arms}: {unknown[0]!r} is none of {[*ARMS]}")
  if CONTINUOUS in names and not args.continuous:
    raise ValueError(
      f"--arms={args.arms}: {CONTINUOUS} needs --continuous=DIR, the workdir of"
      " a tokenizer without a quantizer"
    )
  return names


def _configs(
  args: argparse.Namespace,
) -> dict[str, ml_collections.ConfigDict]:
  """Config of each arm and seed by "ARM_SEED", all of one size."""
  for name in ("seconds", "points"):
    if getattr(args, name) <= 0:
      raise ValueError(f"--{name}={getattr(args, name):g} must be above 0")
  # What costs nothing to refuse is refused before networks are counted.
  names, seeds = _names(args), _numbers("seeds", args)
  masked = _config(args, _MASKED, None)
  # Arms that are run one at a time are of the same size, too.
  sized = [each for each in ARMS if args.continuous or each != CONTINUOUS]
  parameters = max(count(_config(args, name, masked)) for name in sized)
  configs = {}
  for name in names:
    config = match(_config(args, name, masked), name, parameters)
    for seed in seeds:
      fields = {"seed": seed}
      configs[f"{name}_{seed}"] = trained_lib.with_fields(config, fields)
  return configs


def _config(
  args: argparse.Namespace,
  name: str,
  masked: ml_collections.ConfigDict | None,
) -> ml_collections.ConfigDict:
  """The config of an arm: its recipe, on the clips of the masked arm."""
  file, fields = ARMS[name]
  config = workdir_lib.read_config_file(f"configs/{file}.py:{args.row}")
  workdir = args.continuous if name == CONTINUOUS else args.tokenizer
  config.tokenizer_workdir = workdir
  for task in config.tasks:
    config.tasks[task] = float(task == TASKS[args.row])
  config.update_from_flattened_dict(fields)
  if masked is not None:
    config.dataset = masked.dataset
    config.batch_size = masked.batch_size
  for given in args.set:
    sides.set_field(config, given)
  return config


def count(config: ml_collections.ConfigDict) -> int:
  """Number of parameters of the network that a generator's config trains."""
  mesh = mesh_lib.make_mesh(config.mesh, jax.devices()[:1])
  algorithm = trained_lib.build(config, mesh, abstract=True)
  state = jax.eval_shape(algorithm.init, jax.random.key(0))
  return network.count(state.params[algorithm.facts.network])


def match(
  config: ml_collections.ConfigDict, name: str, parameters: int
) -> ml_collections.ConfigDict:
  """The config with MLPs as wide as so many parameters need.

  Raises:
    ValueError: no width of its MLPs comes within 10 %.
  """
  field = f"{trained_lib.find_algorithm(config).facts.section}.mlp_width"
  resized = lambda width: trained_lib.with_fields(config, {field: width})
  narrow, wide = count(resized(_WIDTHS)), count(resized(2 * _WIDTHS))
  # The number of parameters is linear in the width.
  width = _WIDTHS + round((parameters - narrow) / (wide - narrow)) * _WIDTHS
  resized_config = resized(max(width, _WIDTHS))
  got = count(resized_config)
  if abs(got - parameters) > _CLOSE * parameters:
    raise ValueError(
      f"{name}: with {field}={max(width, _WIDTHS)} it has {got:,} parameters,"
      f" and the largest arm has {parameters:,}: set another width or number of"
      " layers in its row of configs/"
    )
  return resized_config


def _report(
  args: argparse.Namespace, configs: dict[str, ml_collections.ConfigDict]
) -> None:
  """Writes the JSON, the table and the pictures of all arms."""
  histories = {
    side: json.loads((args.output / side / "history.json").read_text())
    for side in configs
  }
  report = {
    "command": sys.argv[1:],
    "machine": {
      **run.machine(_PACKAGES),
      "cores": len(os.sched_getaffinity(0)),
    },
    "configs": {k: json.loads(c.to_json()) for k, c in configs.items()},
    "arms": histories,
  }
  files.write_json(args.output / "arms.json", report)
  table = arms_report.table(histories, args.row)
  (args.output / "arms.md").write_text(table)
  arms_report.draw(histories, args.row, args.output / "arms.png")
  arms_report.draw_clips(args.output, list(configs))
  print(table, end="")
  print(f"wrote {args.output}/arms.json, arms.md, arms.png, arms_clips.png")


if __name__ == "__main__":
  main()
