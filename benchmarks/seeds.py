"""Scores of the rows that the README quotes, as ranges over seeds.

  python -m benchmarks.seeds --output=DIR [--seeds=0,1,2]
    [--stages=image,video,generator]

Trains DIR/SEED/STAGE for each seed in turn, with `config.seed`
(parameters, masks and samples; the data stay the same), and prints the lowest
and highest of each score, which DIR/seeds.json keeps. A stage that is finished
is not trained again, and one that was interrupted goes on. A stage needs
those before it: `generator` a `video` tokenizer, which starts from `image`.
"""

import argparse
import dataclasses
import json
import pathlib
import subprocess
import sys
import time

from benchmarks import overfit


@dataclasses.dataclass(frozen=True)
class Stage:
  """A run of the demonstrations: its row, and the runs that it starts from."""

  config: str
  sources: tuple[tuple[str, str], ...] = ()  # (field of a workdir, its stage)


_TOKENIZER = (("tokenizer_workdir", "video"),)
STAGES = {
  "image": Stage("configs/tokenizer_image.py:digits"),
  "video": Stage(
    "configs/tokenizer_video.py:digits", (("inflate_from", "image"),)
  ),
  "generator": Stage("configs/masked.py:digits", _TOKENIZER),
  "multitask": Stage("configs/masked.py:digits_multitask", _TOKENIZER),
  "autoregressive": Stage("configs/autoregressive.py:digits", _TOKENIZER),
  "overfit": Stage("configs/tokenizer_video.py:overfit"),
}


def command(stage: Stage, folder: pathlib.Path, name: str, seed: int):
  """The command that trains a stage in FOLDER/NAME."""
  arguments = [f"--config={stage.config}", f"--workdir={folder / name}"]
  arguments.append(f"--config.seed={seed}")
  for field, source in stage.sources:
    arguments.append(f"--config.{field}={folder / source}")
  return [sys.executable, "main.py", *arguments]


def is_finished(workdir: pathlib.Path) -> bool:
  """Whether the last step of a training was evaluated.

  A page alone does not say so: trainings have one after each evaluation, and
  where a value that is not finite ended them.
  """
  config = workdir / "config.json"
  if not (config.exists() and (workdir / "report.html").exists()):
    return False
  last = json.loads(config.read_text())["num_steps"]
  results = (workdir / "results").glob("*.json")
  return any(json.loads(r.read_text()).get("step") == last for r in results)


def scores(workdir: pathlib.Path) -> dict[str, float]:
  """Every score in a workdir's results by "RESULT/METRIC"."""
  measured = {}
  for path in sorted((workdir / "results").glob("*.json")):
    metrics = json.loads(path.read_text()).get("metrics", {})
    measured |= {f"{path.stem}/{name}": v for name, v in metrics.items()}
  return measured


def ranges(by_seed: list[dict[str, float]]) -> dict[str, list[float]]:
  """[lowest, highest] of each score; ValueError if a seed lacks one."""
  names = {name for each in by_seed for name in each}
  lacking = sorted(n for n in names if any(n not in each for each in by_seed))
  if lacking:
    raise ValueError(f"not every seed has the scores {lacking}")
  return {
    name: [min(e[name] for e in by_seed), max(e[name] for e in by_seed)]
    for name in sorted(names)
  }


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--output", type=pathlib.Path, required=True)
  parser.add_argument("--seeds", default="0,1,2", help="separated by commas")
  parser.add_argument(
    "--stages", default="image,video,generator", help=f"of {','.join(STAGES)}"
  )
  arguments = parser.parse_args()
  seeds = [int(seed) for seed in arguments.seeds.split(",")]
  names = arguments.stages.split(",")
  unknown = sorted(set(names) - set(STAGES))
  if unknown:
    parser.error(f"--stages={arguments.stages}: {unknown} are none")
  measured = {name: [] for name in names}
  for seed in seeds:
    folder = arguments.output / str(seed)
    for name in names:
      if not is_finished(folder / name):
        start = time.monotonic()
        subprocess.run(command(STAGES[name], folder, name, seed), check=True)
        minutes = (time.monotonic() - start) / 60
        print(f"seed {seed}, {name}: {minutes:.1f} minutes", flush=True)
      measured[name].append(scores(folder / name))
      if name == "overfit":
        measured[name][-1] |= overfit.summary(folder / name)
  report = {"seeds": seeds}
  for name in names:
    report[name] = ranges(measured[name])
    for score, (low, high) in report[name].items():
      print(f"{name:<15} {score:<45} {low:.4g} to {high:.4g}")
  path = arguments.output / "seeds.json"
  path.write_text(json.dumps(report, indent=2) + "\n")
  print(f"wrote {path}")


if __name__ == "__main__":
  main()
