"""Clips that a host's workers give, against what a step of its chips takes.

  python -m benchmarks.host_input [--clips=60] [--output=FILE]

A host of a v5e slice has 4 chips and 112 vCPUs (ct5lp-hightpu-4t), and with
batch 256 on 256 chips reads 4 clips a step. What a step takes is the least time
of docs/plan_a_job.md, so that real steps need fewer clips. What a worker gives
is measured here, in clips of a CPU second: videos as `benchmarks.pipeline` has
them, and stored tokens, batches of 4 clips by `pipeline.train_batches`. The
number of workers follows: `dataset.workers` of each host.
"""

import argparse
import dataclasses
import json
import math
import pathlib
import tempfile
import time

from benchmarks import pipeline as video_benchmark
from benchmarks import random_tokens
from benchmarks import run
from configs import base
from input_pipeline import pipeline

_BATCH = 4  # clips of a host and step
_CORES = 112  # vCPUs of a host
_STORED = 2048  # clips of tokens


@dataclasses.dataclass(frozen=True)
class Step:
  """A training step on v5e:16x16, batch 256.

  seconds: its least time, by docs/plan_a_job.md.
  reads: what a clip of it is read from.
  """

  name: str
  seconds: float
  reads: str


STEPS = (
  Step("MAGVIT-L on stored tokens, fsdp 4", 0.0173, "tokens"),
  Step("video tokenizer", 0.202, "videos, keyframes 12"),
  Step("video tokenizer", 0.202, "videos, keyframes 250"),
)


def main() -> None:
  parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
  parser.add_argument("--clips", type=int, default=60, help="clips of a round")
  parser.add_argument("--output", type=pathlib.Path, help="JSON to write")
  args = parser.parse_args()
  rates = {"tokens": _tokens_rate()}
  for every in (12, 250):
    video = video_benchmark.encode(every)
    measured = video_benchmark.measure(video, args.clips)
    rates[f"videos, keyframes {every}"] = measured["clips per CPU second"]
  print("\n".join(table(rates)))
  if args.output:
    report = {"machine": run.machine(), "clips per CPU second": rates}
    args.output.write_text(json.dumps(report, indent=2) + "\n")


def workers(step: Step, rate: float) -> int:
  """Number of workers of a host that keep up with a step."""
  return math.ceil(_BATCH / step.seconds / rate)


def table(rates: dict[str, float]) -> list[str]:
  """Rows of Markdown for the clips that a worker gives a second, by source."""
  lines = [
    "| step of v5e:16x16 | reads | clips/s a host | clips/s a worker"
    f" | workers of {_CORES} vCPUs |",
    "|---|---|---|---|---|",
  ]
  for step in STEPS:
    rate = rates[step.reads]
    lines.append(
      f"| {step.name}, {step.seconds} s | {step.reads}"
      f" | {_BATCH / step.seconds:.0f} | {rate:.0f} | {workers(step, rate)} |"
    )
  return lines


def _tokens_rate() -> float:
  """Clips of stored tokens of a CPU second."""
  with tempfile.TemporaryDirectory() as folder:
    random_tokens.write(pathlib.Path(folder), _STORED, _STORED // 2)
    config = base.masked()
    config.dataset.tokens = folder
    data = pipeline.train_batches(config.dataset, _BATCH)
    next(data)  # opens the shards
    steps = _STORED // _BATCH - 1
    start = time.process_time()
    for _ in range(steps):
      next(data)
    seconds = time.process_time() - start
    data.close()
  return round(steps * _BATCH / seconds, 1)


if __name__ == "__main__":
  main()
