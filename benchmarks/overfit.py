"""Picture of a run's loss curve: PSNR of the training clips by step.

python main.py --config=configs/tokenizer_video.py:overfit --workdir=DIR
python -m benchmarks.overfit --workdir=DIR --output=docs/overfit.png
"""

import argparse
import json
import pathlib

from matplotlib import figure
import numpy as np

TARGET = 28.0  # PSNR that the run should reach, dB


def curve(workdir: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
  """Steps that metrics.jsonl has, and the PSNR of the clip in them, dB."""
  lines = (workdir / "metrics.jsonl").read_text().splitlines()
  name = "generator/reconstruction"
  rows = [row for row in map(json.loads, lines) if name in row]
  step = np.array([row["step"] for row in rows])
  # Pixels are in [0, 1].
  return step, -10 * np.log10([row[name] for row in rows])


def summary(workdir: pathlib.Path) -> dict[str, float]:
  """The last PSNR, dB, and the first step above TARGET if there is one."""
  step, psnr = curve(workdir)
  measured = {"last_psnr": float(psnr[-1])}
  if (psnr > TARGET).any():
    measured["first_step_above"] = float(step[psnr > TARGET][0])
  return measured


def main():
  parser = argparse.ArgumentParser()
  parser.add_argument(
    "--workdir", type=pathlib.Path, required=True, help="folder of the run"
  )
  parser.add_argument(
    "--output", type=pathlib.Path, required=True, help="picture to write"
  )
  args = parser.parse_args()
  step, psnr = curve(args.workdir)
  print(f"{len(step)} points;", summary(args.workdir))
  fig = figure.Figure(figsize=(6, 3), layout="constrained")
  axes = fig.add_subplot(
    xlabel="step", ylabel="PSNR, dB (raw weights)", title="One clip by heart"
  )
  axes.plot(step, psnr)
  axes.axhline(TARGET, color="grey", linewidth=1, linestyle="--")
  axes.grid(alpha=0.3)
  fig.savefig(args.output, dpi=120)


if __name__ == "__main__":
  main()
