"""What makes a tokenizer learn in minutes: one change of the recipe at a time.

  python -m benchmarks.film_ablations --shards=DIR --weights=SQUEEZENET
    --output=DIR [--only=NAMES] [--steps=400]

DIR of `--shards` is of `python -m input_pipeline.prepare --format=film
--size=64`. Trains `configs/tokenizer_image.py:film64_small` on frames, with
what BASE changes, and each change of CHANGES in turn, for the same number of
steps with batches of 8, and writes OUTPUT/ablations.md: scores of held-out
frames and seconds of training, one run after another. A run that is finished
in OUTPUT is not trained again; one whose values were not finite has "nan" for
its scores.
"""

import argparse
import collections
import pathlib
import shlex
import subprocess
import sys
from typing import Any

import numpy as np

from benchmarks import seeds
from evaluation import records
from evaluation.diagnosis import any_run
from evaluation.diagnosis import history

_BATCH_SIZE = 8
# LFQ as the larger rows have it; all else is the row's when ablations began.
BASE: dict[str, Any] = {
  "quantizer.name": "lfq",
  "tokenizer.channel_multipliers": (1, 2, 4, 8),
  "dataset.train_crop": "random",
  "optimizer.warmup_steps": 50,
}

# Fields of the config that differ from the row's and from BASE, by the name of
# a change.
CHANGES: dict[str, dict[str, Any]] = {
  "LFQ": {},
  "seed 1": {"seed": 1},
  "seed 2": {"seed": 2},
  "FSQ of 4^9 codes": {"quantizer.name": "fsq"},
  "FSQ of 8^6 codes": {
    "quantizer.name": "fsq",
    "quantizer.levels": (8, 8, 8, 8, 8, 8),
  },
  "FSQ, channels 8, 16, 32, 128": {
    "quantizer.name": "fsq",
    "tokenizer.channel_multipliers": (1, 2, 4, 16),
  },
  "FSQ, channels 8, 16, 64, 128": {
    "quantizer.name": "fsq",
    "tokenizer.channel_multipliers": (1, 2, 8, 16),
  },
  "FSQ, perceptual 0.05": {"quantizer.name": "fsq", "loss.perceptual": 0.05},
  "FSQ, warm-up of 200 steps": {
    "quantizer.name": "fsq",
    "optimizer.warmup_steps": 200,
  },
  "BSQ, temperature 0.1, commitment 0": {
    "quantizer.name": "bsq",
    "quantizer.entropy_temperature": 0.1,
    "loss.commitment": 0.0,
  },
  "Adam": {"optimizer.name": "adam"},
  "Adam, learning rate 3e-3": {
    "optimizer.name": "adam",
    "optimizer.peak_learning_rate": 3e-3,
  },
  "Adam, learning rate 1e-3": {
    "optimizer.name": "adam",
    "optimizer.peak_learning_rate": 1e-3,
  },
  "learning rate 3e-3": {"optimizer.peak_learning_rate": 3e-3},
  "learning rate 3e-2": {"optimizer.peak_learning_rate": 3e-2},
  "no warm-up": {"optimizer.warmup_steps": 0},
  "no warm-up, seed 1": {"optimizer.warmup_steps": 0, "seed": 1},
  "warm-up of 200 steps": {"optimizer.warmup_steps": 200},
  "EMA 0.9": {"ema_decay": 0.9},
  "EMA 0.999": {"ema_decay": 0.999},
  "temperature 0.01": {"quantizer.entropy_temperature": 0.01},
  "temperature 0.1": {"quantizer.entropy_temperature": 0.1},
  "temperature 2": {"quantizer.entropy_temperature": 2.0},
  "entropy 0": {"loss.entropy": 0.0},
  "entropy 0.03": {"loss.entropy": 0.03},
  "entropy 3": {"loss.entropy": 3.0},
  "commitment 0.25": {"loss.commitment": 0.25},
  "commitment 4": {"loss.commitment": 4.0},
  "adversarial 0": {"loss.adversarial": 0.0},
  "adversarial 0.1": {"loss.adversarial": 0.1},
  "adversarial 0.1 from step 200": {
    "loss.adversarial": 0.1,
    "loss.adversarial_start": 200,
  },
  "adversarial 0.1, R1 0.1": {"loss.adversarial": 0.1, "loss.r1": 0.1},
  "adversarial 0.1, R1 1000": {"loss.adversarial": 0.1, "loss.r1": 1000.0},
  "perceptual 0": {"loss.perceptual": 0.0},
  "perceptual 1": {"loss.perceptual": 1.0},
  "channels 8, 16, 64, 128": {"tokenizer.channel_multipliers": (1, 2, 8, 16)},
  "one norm group": {"tokenizer.norm_groups": 1},
  "four norm groups": {"tokenizer.norm_groups": 4},
}


def main():
  parser = argparse.ArgumentParser()
  add = parser.add_argument
  add("--shards", required=True, type=pathlib.Path, help="folder of the film")
  add("--weights", required=True, type=pathlib.Path, help="SqueezeNet's")
  add("--output", required=True, type=pathlib.Path, help="folder of the runs")
  add("--only", help="names of changes, with semicolons; default: all")
  add("--steps", type=int, default=400, help="steps of each run")
  args = parser.parse_args()
  names = args.only.split(";") if args.only else list(CHANGES)
  unknown = sorted(set(names) - set(CHANGES))
  if unknown:
    parser.error(f"--only={unknown[0]!r} is none of {list(CHANGES)}")
  rows = {}
  for done, name in enumerate(names):
    folder = args.output / _folder_name(name)
    print(f"{done}/{len(names)}: {name}", file=sys.stderr, flush=True)
    if not seeds.is_finished(folder) and not _diverged(folder):
      _train(folder, args, CHANGES[name])
    rows[name] = _scores(folder)
    (args.output / "ablations.md").write_text(table(rows))
  print(table(rows), end="")


def _folder_name(name: str) -> str:
  return "".join(c if c.isalnum() or c in ".-" else "_" for c in name)


def _train(
  folder: pathlib.Path, args: argparse.Namespace, changes: dict[str, Any]
):
  """Trains the row with these changes; what main.py says goes to a log.

  Raises:
    SystemExit: main.py failed for another reason than values that were not
      finite; the log and the command are named.
  """
  fields = {
    "num_steps": args.steps,
    "batch_size": _BATCH_SIZE,
    "dataset.path": args.shards,
    "loss.perceptual_weights": args.weights,
    **BASE,
    **changes,
  }
  command = [
    *(sys.executable, "main.py", f"--workdir={folder}"),
    "--config=configs/tokenizer_image.py:film64_small",
    *(f"--config.{field}={value}" for field, value in fields.items()),
  ]
  log = folder.with_suffix(".log")
  log.parent.mkdir(parents=True, exist_ok=True)
  with log.open("w") as file:
    done = subprocess.run(
      command, stdout=file, stderr=subprocess.STDOUT, check=False
    )
  if done.returncode and not _diverged(folder):
    raise SystemExit(f"failed, see {log}: {shlex.join(command)}")


def _history(folder: pathlib.Path) -> history.History:
  metrics, _ = records.read_metrics(folder / "metrics.jsonl")
  return history.History(metrics, {})


def _diverged(folder: pathlib.Path) -> bool:
  """Whether a value that was not finite ended the training."""
  return any_run.find_not_finite(_history(folder)) is not None


def _scores(folder: pathlib.Path) -> dict[str, float]:
  """Scores of held-out frames, seconds of training and the last distance.

  NaN where there is none, as of a run that diverged.
  """
  measured = collections.defaultdict(lambda: float("nan"))
  measured.update(seeds.scores(folder))
  run = _history(folder)
  rates = run.curve("steps_per_second")
  distances = run.curve("generator/perceptual").values
  return {
    "psnr": measured["held_out_reconstruction/psnr"],
    "ssim": measured["held_out_reconstruction/ssim"],
    "perceptual": float(distances[-1]) if len(distances) else float("nan"),
    "entropy_bits": measured["held_out_codebook/entropy_bits"],
    "seconds": float((np.diff(rates.steps, prepend=0) / rates.values).sum()),
  }


_COLUMNS = {
  "psnr": ("PSNR, dB", ".2f"),
  "ssim": ("SSIM", ".3f"),
  "perceptual": ("distance, last batch", ".3f"),
  "entropy_bits": ("codebook, bits", ".2f"),
  "seconds": ("seconds", ".0f"),
}


def table(rows: dict[str, dict[str, float]]) -> str:
  """A table in Markdown of the scores of each run, by name."""
  lines = [
    ["recipe", *(title for title, _ in _COLUMNS.values())],
    ["---"] * (1 + len(_COLUMNS)),
    *(
      [name, *(f"{row[key]:{form}}" for key, (_, form) in _COLUMNS.items())]
      for name, row in rows.items()
    ),
  ]
  return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
  main()
