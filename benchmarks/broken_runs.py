"""Runs that are broken on purpose, and what their reports say.

  python -m benchmarks.broken_runs --output=DIR [--only=NAMES]

Trains `configs/tokenizer_video.py:digits` on short clips, and a masked
generator on its tokens, once as they are and once with each fault of RUNS.
Each report has to say the sentence that names the fault, and those of the
healthy runs that nothing is unusual; otherwise the exit code is 1. A run that
is finished in DIR is not trained again.
"""

import argparse
from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import dataclasses
import json
import pathlib
import re
import sys
import time
from typing import Any
from unittest import mock

import ml_collections
import numpy as np

from configs import masked
from configs import tokenizer_video
from evaluation import records
from evaluation.diagnosis import lines as diagnosis
from evaluation.show import report
from input_pipeline import pipeline
from magvit.scoring import held_out
from magvit.training import endings
from magvit.training import loop

HEALTHY = "nothing unusual"
_STEPS = 150


@dataclasses.dataclass(frozen=True)
class Run:
  """A run, and a regular expression that one of its lines has to match."""

  expected: str
  fields: dict[str, Any] = dataclasses.field(default_factory=dict)
  generator: bool = False  # on the tokens of the healthy tokenizer
  # Breaks a batch; uint8 as the pipeline gives it.
  clips: Callable[[np.ndarray], np.ndarray] = lambda video: video


RUNS = {
  "healthy": Run(HEALTHY),
  "learning_rate_x30": Run(
    "learning: .*lower optimizer.peak_learning_rate from 0.06",
    {"optimizer.peak_learning_rate": 0.06},
  ),
  "learning_rate_0": Run(
    "learning rate: 0 .*raise optimizer.peak_learning_rate from 0",
    {"optimizer.peak_learning_rate": 0.0},
  ),
  "not_finite": Run(
    "values: .*not finite since step", {"optimizer.peak_learning_rate": 1e4}
  ),
  "entropy_0": Run("codebook: .*raise loss.entropy", {"loss.entropy": 0.0}),
  "strong_discriminator": Run(
    "discriminator: .*raise loss.r1 from 0",
    {
      # With a weight of 1 the tokenizer wins.
      "loss.adversarial": 0.2,
      "loss.r1": 0.0,
      "loss.lecam": 0.0,
      "discriminator.base_channels": 16,
      "optimizer.peak_learning_rate": 5e-4,
    },
  ),
  "inputs_from_-1_to_1": Run(
    r"inputs: pixels reach from -1 to 1 .*expected \[0, 1\]",
    clips=lambda video: video.astype(np.float32) / 127.5 - 1.0,
  ),
  "inputs_divided_twice": Run(
    "inputs: .*which is black.*divides by 255 twice",
    clips=lambda video: video.astype(np.float32) / 255.0 / 255.0,
  ),
  "healthy_generator": Run(HEALTHY, generator=True),
  "generator_rate_x300": Run(
    "learning: .*lower optimizer.peak_learning_rate from 0.9",
    {"optimizer.peak_learning_rate": 0.9, "optimizer.clip_norm": 0.0},
    generator=True,
  ),
}


class _Broken:
  """Batches whose clips a function has changed."""

  def __init__(self, batches, change: Callable[[np.ndarray], np.ndarray]):
    self._batches, self._change = batches, change

  def __next__(self):
    batch = next(self._batches)
    return {**batch, "video": self._change(batch["video"])}

  def __getattr__(self, name):
    return getattr(self._batches, name)


def make_config(name: str, folder: pathlib.Path) -> ml_collections.ConfigDict:
  """The config of a run."""
  run = RUNS[name]
  if run.generator:
    c = masked.get_config("digits")
    c.tokenizer_workdir = str(folder / "healthy")
    c.condition_frames = 1
    c.batch_size = 8
    c.optimizer.warmup_steps = 20
  else:
    c = tokenizer_video.get_config("digits")
    c.inflate_from = "none"
    c.health_every = 20
  c.dataset.frames = 5
  c.dataset.eval_examples = 16
  c.num_steps = c.checkpoint_every = _STEPS
  c.log_every = 5
  c.update_from_flattened_dict(run.fields)
  return c


@contextlib.contextmanager
def _changed(run: Run) -> Iterator[None]:
  """Lets training read the run's broken clips, and evaluate nothing.

  All signs are in the metrics of training.
  """
  read = pipeline.train_batches
  broken = lambda *args: _Broken(read(*args), run.clips)
  with (
    mock.patch.object(pipeline, "train_batches", broken),
    mock.patch.object(held_out, "evaluate_all", lambda *_: []),
  ):
    yield


def train(name: str, folder: pathlib.Path) -> list[str]:
  """Trains a run, and returns what is said of it."""
  workdir = folder / name
  run = RUNS[name]
  if not (workdir / "report.html").exists():
    with _changed(run):
      try:
        loop.train(make_config(name, folder), str(workdir))
      except endings.NonFiniteError as error:
        print(f"{name} ended: {str(error)[:100]}", flush=True)
  metrics, _ = records.read_metrics(workdir / "metrics.jsonl")
  config = json.loads((workdir / "config.json").read_text())
  lines = diagnosis.lines(metrics, config)
  page = pathlib.Path(
    report.write_report([workdir], workdir / "report.html")
  ).read_text()
  if page.count('class="health') != 2 * len(lines):
    raise ValueError(f"{workdir / 'report.html'} does not show {lines}")
  return lines


def is_said(run: Run, lines: list[str]) -> bool:
  """Whether the lines name the fault, and of a healthy run none."""
  return any(re.search(run.expected, line) for line in lines)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--output", type=pathlib.Path, required=True)
  parser.add_argument(
    "--only", default=",".join(RUNS), help="runs, separated by commas"
  )
  arguments = parser.parse_args()
  names = arguments.only.split(",")
  missed, rows = [], []
  for place, name in enumerate(names, 1):
    start = time.monotonic()
    lines = train(name, arguments.output)
    good = is_said(RUNS[name], lines)
    missed += [] if good else [name]
    rows += [f"| {name} | {line} |" for line in lines]
    print(
      f"{place}/{len(names)} {name}, {time.monotonic() - start:.0f} s:"
      f" {'said' if good else 'MISSED'}: {' / '.join(lines)}",
      flush=True,
    )
  print("\n| run | what is said |\n|---|---|", *rows, sep="\n")
  if missed:
    sys.exit(f"not said, or said of a healthy run: {', '.join(missed)}")


if __name__ == "__main__":
  main()
