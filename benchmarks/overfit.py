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


def main():
  parser = argparse.ArgumentParser()
  parser.add_argument(
    "--workdir", type=pathlib.Path, required=True, help="folder of the run"
  )
  parser.add_argument(
    "--output", type=pathlib.Path, required=True, help="picture to write"
  )
  args = parser.parse_args()
  lines = (args.workdir / "metrics.jsonl").read_text().splitlines()
  name = "generator/reconstruction"
  rows = [row for row in map(json.loads, lines) if name in row]
  step = np.array([row["step"] for row in rows])
  psnr = -10 * np.log10([row[name] for row in rows])  # pixels are in [0, 1]
  above = step[psnr > TARGET]
  reached = f"above {TARGET:g} dB from step {above[0]} on" if above.size else ""
  print(f"{len(step)} points; last {psnr[-1]:.1f} dB; {reached}")
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
