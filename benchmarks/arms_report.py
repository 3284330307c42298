"""The scores of `benchmarks/arms.py` as a table and as a plot."""

from collections.abc import Mapping
from collections.abc import Sequence
import pathlib
from typing import Any

from matplotlib import figure
import numpy as np

from evaluation.show import pictures

# Rows of the configs -> their scores, with titles.
SCORES = {
  "digits": {
    "class_conditional/class_accuracy": "class accuracy",
    "frechet/frechet_motion_distance": "motion, Fréchet distance",
    "frechet/frechet_appearance_distance": "appearance, Fréchet distance",
  },
  "film64": {"frame_prediction/hidden_psnr": "PSNR of predicted frames, dB"},
}
_COLOURS = ("blue", "orange", "green", "red", "purple", "brown")
_EVERY = 4  # frames from one that the picture shows to the next

Histories = Mapping[str, Mapping[str, Any]]  # keys are "ARM_SEED"


def arm_of(side: str) -> str:
  """The arm of "ARM_SEED"."""
  return side.rpartition("_")[0]


def table(histories: Histories, row: str) -> str:
  """Markdown: each arm and seed at its end, and with each number of steps."""
  titles = list(SCORES[row].values())
  head = ["arm, seed", "parameters", "training steps", "training s"]
  lines = [head + ["sampling steps", "ms a clip", *titles]]
  lines.append(["---"] * len(lines[0]))
  for side, history in histories.items():
    arm, _, seed = side.rpartition("_")
    last = history["rows"][-1]
    facts = [
      f"{arm}, {seed}",
      f"{history['facts']['parameters']:,}",
      f"{last['steps']:,}",
      f"{last['seconds']:.0f}",
    ]
    if history["diverged_at_step"] is not None:
      step = history["diverged_at_step"]
      lines.append(
        [*facts, f"diverged by step {step}", "", *("" for _ in titles)]
      )
    for swept in history.get("sampling", []):
      lines.append(
        [
          *facts,
          str(swept["steps"] or "each token"),
          f"{1e3 * swept['seconds_per_clip']:.1f}",
          *(f"{swept[score]:.4g}" for score in SCORES[row]),
        ]
      )
  return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def draw(histories: Histories, row: str, path: pathlib.Path) -> None:
  """Writes a plot of each score by seconds of training and of sampling."""
  scores = SCORES[row]
  fig = figure.Figure(figsize=(9, 3 * len(scores)), layout="constrained")
  axes = fig.subplots(len(scores), 2, squeeze=False)
  arms = list(dict.fromkeys(arm_of(side) for side in histories))
  for (left, right), (score, title) in zip(axes, scores.items(), strict=True):
    for side, history in histories.items():
      arm = arm_of(side)
      look = {"color": f"tab:{_COLOURS[arms.index(arm) % len(_COLOURS)]}"}
      # One line of the legend for all seeds of an arm.
      if side == next(each for each in histories if arm_of(each) == arm):
        look["label"] = arm
      rows = [r for r in history["rows"] if score in r]
      x, y = [r["seconds"] for r in rows], [r[score] for r in rows]
      left.plot(x, y, ".-", **look)
      swept = history.get("sampling", [])
      x = [1e3 * r["seconds_per_clip"] for r in swept]
      right.plot(x, [r[score] for r in swept], ".-", **look)
    left.set(ylabel=title, xlabel="seconds of training")
    right.set(xlabel="milliseconds of sampling a clip", xscale="log")
    for each in (left, right):
      each.grid(alpha=0.3)
  axes[0][0].legend(fontsize=8)
  fig.savefig(path, dpi=110)


def draw_clips(folder: pathlib.Path, sides: Sequence[str]) -> None:
  """Writes FOLDER/arms_clips.png: a sample of each arm's, one a row."""
  first = [np.load(folder / side / "clips.npz")["video"][0] for side in sides]
  strip = pictures.filmstrip(np.stack(first), _EVERY)
  pictures.write_png(folder / "arms_clips.png", strip, scale=3)
