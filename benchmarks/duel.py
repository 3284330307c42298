"""Our tokenizer against Open-MAGVIT2's, trained for the same time on a film.

  python -m benchmarks.duel --shards=DIR --weights=FILE --output=FOLDER
    --peer=SEED-VOKEN_FOLDER [--seconds=1200]
    [--config=configs/tokenizer_video.py:film64_small] [--width=N]
    [--set=FIELD=VALUE ...] [--peer_learning_rates=1e-4] [--only=ours|peer]

Both see the same batches of the same clips on the same device, have LFQ and as
many parameters within 5 %, and train on SqueezeNet's perceptual distance; all
else is the recipe of each: of the config, and of the peer's config of UCF-101
(duel_peer.py says what had to differ). The sides run in turn, each in its own
process. The clock counts steps of training alone: compiling, reading the first
batch and evaluations do not count. Twelve times (--points) the averaged weights
reconstruct the held-out clips, and both are scored by the same functions.

FOLDER gets duel.json, duel.png, a strip of frames duel_clips.png, and a folder
of each side; a side that is finished there is not run again. The dashed line of
the plot is where the second third of the run begins, from which on the verdict
counts. The exit code is 0 whoever leads.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import sys
from typing import Any

import ml_collections
import numpy as np

from benchmarks import duel_ours
from benchmarks import duel_peer
from benchmarks import duel_report
from benchmarks import duel_run
from benchmarks import run
from benchmarks import sides as sides_lib
from input_pipeline import pipeline
from magvit import trained as trained_lib
from magvit.workdir import folder as workdir_lib
from models.weights import safetensors_file
from storage import files

_CONFIG = "configs/tokenizer_video.py:film64_small"
_PACKAGES = ("jax", "jaxlib", "flax", "numpy", "torch")


def main():
  args = _parser().parse_args()
  try:
    config = _config(args)
    sides = _sides(args, config)
    for settings in sides:
      _run(args.output / settings.side, settings, config)
    _report(args, config, sides)
  except ValueError as error:
    sys.exit(f"duel: {error}")


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  add = parser.add_argument
  folder = lambda name, help: add(
    name, type=pathlib.Path, required=name != "--peer", help=help
  )
  folder("--shards", "folder of prepare --format=film")
  folder("--weights", "file of models.weights.fetch --network=squeezenet")
  folder("--output", "folder to write")
  folder("--peer", "checkout of github.com/TencentARC/SEED-Voken")
  add("--config", default=_CONFIG, help="our tokenizer, FILE:ARG")
  add("--width", type=int, help="tokenizer.base_channels of ours")
  add("--set", action="append", default=[], help="FIELD=VALUE of the config")
  add("--seconds", type=float, default=1200, help="training time of a side")
  add("--points", type=int, default=12, help="evaluations over this time")
  add("--clips", type=int, default=86, help="held-out clips, at the most")
  add("--clock", choices=("wall", "cpu"), default="wall", help="what is equal")
  add("--judge", default="", help="weights of EfficientNet-Lite0, to score")
  add("--only", choices=("ours", "peer"), help="the side to run")
  rates = "the peer's, each a side of its own: 1e-4,1e-3"
  add("--peer_learning_rates", default="1e-4", help=rates)
  add("--peer_blocks", type=int, default=0, help="of a level; 0: as ours")
  decay = "of the peer's averaged weights; default: the config's ema_decay"
  add("--peer_ema_decay", type=float, help=decay)
  return parser


def _config(args) -> ml_collections.ConfigDict:
  """The config of our side, with the paths and fields of the flags."""
  config = workdir_lib.read_config_file(args.config)
  fields: dict[str, Any] = {
    "dataset.path": str(args.shards.resolve()),
    "loss.perceptual_weights": str(args.weights.resolve()),
    "inflate_from": "none",
    "quantizer.name": "lfq",  # the only one that the peer has
    "loss.pixel_share": 0.0,  # the peer has all its losses to the end
  }
  if args.width is not None:
    fields["tokenizer.base_channels"] = args.width
  config.update_from_flattened_dict(fields)
  for given in args.set:
    sides_lib.set_field(config, given)
  if trained_lib.find_algorithm(config).facts.section != "tokenizer":
    raise ValueError(f"--config={args.config} is no tokenizer's: name one")
  duel_peer.check_comparable(config)
  return config


def _sides(args, config) -> list[duel_run.Settings]:
  """Checks what all sides need, and describes those that are to run."""
  for name in ("seconds", "points", "clips"):
    if getattr(args, name) <= 0:
      raise ValueError(f"--{name}={getattr(args, name):g} must be above 0")
  for flag, network in (
    ("weights", "squeezenet"),
    ("judge", "efficientnet_lite0"),
  ):
    path = getattr(args, flag)
    if not path:  # nobody has to judge
      continue
    if not os.path.isfile(path):
      raise ValueError(
        f"--{flag}={path} is no file: python -m models.weights.fetch"
        f" --network={network} --output={path}"
      )
    safetensors_file.check_network(str(path), network)
  if not args.shards.is_dir():
    raise ValueError(
      f"--shards={args.shards} is no folder: python -m input_pipeline.prepare"
      f" --format=film --size={config.dataset.size} --output={args.shards}"
    )
  pipeline.source(config.dataset, "train")
  clips = min(args.clips, len(pipeline.source(config.dataset, "held_out")))
  common = dict(
    seconds=args.seconds,
    points=args.points,
    clips=clips,
    clock=args.clock,
    cores=len(os.sched_getaffinity(0)),
    weights=str(args.weights.resolve()),
    judge=args.judge and os.path.abspath(args.judge),
  )
  sides = []
  if args.only != "peer":
    sides.append(duel_run.Settings(duel_run.OURS, peer={}, **common))
  if args.only != "ours":
    sides += [
      duel_run.Settings(f"peer_{peer['learning_rate']:g}", peer=peer, **common)
      for peer in _peers(args, config)
    ]
  return sides


def _peers(args, config) -> list[dict[str, Any]]:
  """The peer's sizes and recipe, for each learning rate."""
  if args.peer is None:
    raise ValueError(
      "--peer=FOLDER, a checkout of github.com/TencentARC/SEED-Voken, was not"
      " given: give it, or run our side alone, --only=ours"
    )
  folder = args.peer.resolve()
  duel_peer.check(folder)
  parameters = duel_ours.count(config)
  sizes, peer_parameters = duel_peer.find_sizes(
    folder, config, parameters, args.peer_blocks
  )
  print(
    f"parameters: ours {parameters:,}, the peer's {peer_parameters:,}"
    f" ({peer_parameters / parameters - 1:+.1%}), width {sizes.width}"
  )
  decay = args.peer_ema_decay
  try:
    rates = [float(rate) for rate in args.peer_learning_rates.split(",")]
  except ValueError as error:
    raise ValueError(
      f"--peer_learning_rates={args.peer_learning_rates} must be numbers,"
      " separated by commas"
    ) from error
  return [
    {
      "folder": str(folder),
      "commit": duel_peer.commit(folder),
      "sizes": json.loads(json.dumps(dataclasses.asdict(sizes))),
      "learning_rate": rate,
      "ema_decay": config.ema_decay if decay is None else decay,
    }
    for rate in rates
  ]


def _run(
  folder: pathlib.Path,
  settings: duel_run.Settings,
  config: ml_collections.ConfigDict,
) -> None:
  """Runs a side in its own process, unless it is finished."""
  environment = {}
  if settings.side != duel_run.OURS:
    # JAX only scores there, and must leave a GPU's memory to torch.
    environment["JAX_PLATFORMS"] = "cpu"
  sides_lib.run("benchmarks.duel_run", folder, settings, config, environment)


def _report(args, config, sides: list[duel_run.Settings]) -> None:
  """Writes the JSON and the pictures of the sides, and prints the table."""
  stored = {
    settings.side: json.loads(
      (args.output / settings.side / "history.json").read_text()
    )
    for settings in sides
  }
  histories = {side: history["rows"] for side, history in stored.items()}
  leaders = duel_report.who_leads(histories)
  seconds = args.seconds
  report = {
    "command": sys.argv[1:],
    "machine": {
      **run.machine(_PACKAGES),
      "cores": len(os.sched_getaffinity(0)),
    },
    "attribution": pipeline.attribution(config.dataset),
    "batch_size": config.batch_size,
    "config": json.loads(config.to_json()),
    "sides": stored,
    "leaders": leaders,
    "verdict_from_the_second_third_on": duel_report.verdict(leaders, seconds),
    "leaders_at_equal_steps": duel_report.at_equal_steps(histories),
  }
  files.write_json(args.output / "duel.json", report)
  parameters = {k: v["facts"]["parameters"] for k, v in stored.items()}
  plot = args.output / "duel.png"
  duel_report.draw(histories, seconds, parameters, plot)
  _draw_clips(args.output, config, sides[0].clips, list(stored))
  print(duel_report.table(histories, leaders))
  for score, leader in report["verdict_from_the_second_third_on"].items():
    print(f"from {seconds / 3:.0f} s on, {score}: {leader}")
  for side, history in stored.items():
    done = history["rows"][-1]["steps"] if history["rows"] else 0
    print(f"{side}: {done:,} steps, {history['planned_steps']:,} planned")
  print(f"wrote {args.output}/duel.json, {plot}")


def _draw_clips(folder, config, count: int, sides: list[str]) -> None:
  outputs = {
    side: np.load(folder / side / "clips.npz")["video"] for side in sides
  }
  shown = min(map(len, outputs.values()))
  batches = pipeline.eval_batches(
    config.dataset, "held_out", count, max(1, config.batch_size)
  )
  truth, clips = [], 0
  while clips < shown:
    batch, real = next(batches)
    truth.append(batch["video"][:real])
    clips += real
  truth = np.concatenate(truth)[:shown]
  outputs = {side: video[:shown] for side, video in outputs.items()}
  duel_report.draw_clips(truth, outputs, folder / "duel_clips.png")


if __name__ == "__main__":
  main()
