"""Curves of a training of `film64_small`, over those of ours.

  python -m benchmarks.film_curves [--image=WORKDIR] [--video=WORKDIR]
    --output=PICTURE

WORKDIR is of `make film` (film/film64_small/image_tokenizer and .../tokenizer).
Draws the curves of CURVES by step, smoothed: ours, which docs/film64_small
has, and yours over them. Ours are of docs/film.md ("Scores so far"): 4,500
steps of the image tokenizer, and 3,000 of the video tokenizer.

  python -m benchmarks.film_curves --keep=WORKDIR --output=FILE

writes the file of a run that docs/film64_small has: of its metrics.jsonl, the
mean of every 50 steps of what is drawn.
"""

import argparse
import collections
import json
import pathlib

from matplotlib import figure
import numpy as np

_OURS = pathlib.Path(__file__).parents[1] / "docs" / "film64_small"
_RUNS = {"image": "image_tokenizer", "video": "tokenizer"}
_EVERY = 50  # steps of a point, the mean of the rows of their batches
_SMOOTHED = 5  # points of a moving median; batches of two clips are noisy

# Names of metrics.jsonl, and the titles of their curves.
CURVES = {
  "generator/reconstruction": "PSNR of the batch, dB",
  "generator/perceptual": "SqueezeNet's distance",
  "generator/codebook_entropy": "entropy of the batch's codes, nats",
  "health/codes_used": "share of the codes used lately",
}


def read(path: pathlib.Path) -> list[dict[str, float]]:
  """Lines of a metrics.jsonl that have all curves, and these alone.

  Raises:
    ValueError: no line has them: it is not of a tokenizer's training.
  """
  lines = [json.loads(line) for line in path.read_text().splitlines()]
  names = ("step", *CURVES)
  rows = [
    {name: line[name] for name in names}
    for line in lines
    if all(name in line for name in names)
  ]
  if not rows:
    raise ValueError(
      f"{path} has no line with {', '.join(CURVES)}: expected the metrics.jsonl"
      " of a tokenizer trained with a perceptual loss"
    )
  return rows


def thin(rows: list[dict[str, float]]) -> list[dict[str, float]]:
  """Means of every 50 steps, named by the last of them."""
  windows = collections.defaultdict(list)
  for row in rows:
    windows[-int(-row["step"] // _EVERY) * _EVERY].append(row)
  return [
    {"step": step}
    | {name: float(np.mean([r[name] for r in rows])) for name in CURVES}
    for step, rows in windows.items()
  ]


def keep(rows: list[dict[str, float]], path: pathlib.Path) -> None:
  """Writes means of every 50 steps, with four digits."""
  lines = [
    json.dumps({name: float(f"{value:.4g}") for name, value in row.items()})
    for row in thin(rows)
  ]
  path.write_text("\n".join(lines) + "\n")


def points(
  rows: list[dict[str, float]], name: str
) -> tuple[np.ndarray, np.ndarray]:
  """Steps and values of a curve of means as it is drawn."""
  steps = np.array([row["step"] for row in rows])
  values = np.array([row[name] for row in rows])
  if name == "generator/reconstruction":
    values = -10 * np.log10(values)  # pixels are in [0, 1]
  ends = np.pad(values, _SMOOTHED // 2, mode="edge")
  windows = np.lib.stride_tricks.sliding_window_view(ends, _SMOOTHED)
  return steps, np.median(windows, axis=-1)


def draw(
  runs: dict[str, dict[str, list[dict[str, float]]]], path: pathlib.Path
) -> None:
  """Draws {"image": {"ours": lines, "yours": lines}, ...}, a row for each."""
  fig = figure.Figure(figsize=(13, 2.7 * len(runs)), layout="constrained")
  axes_RC = fig.subplots(len(runs), len(CURVES), squeeze=False)
  for axes_C, (kind, lines) in zip(axes_RC, runs.items(), strict=True):
    means = {who: thin(rows) for who, rows in lines.items()}
    for axes, (name, title) in zip(axes_C, CURVES.items(), strict=True):
      for who, style in (("ours", "0.6"), ("yours", "C0")):
        if who in means:
          axes.plot(*points(means[who], name), color=style, label=who)
      axes.set_title(title, fontsize=9)
      axes.set_xlabel(f"step of the {kind} tokenizer")
      axes.grid(alpha=0.3)
    axes_C[0].legend()
  fig.savefig(path, dpi=80)


def main() -> None:
  parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
  add = parser.add_argument
  add("--image", type=pathlib.Path, help="workdir of an image tokenizer")
  add("--video", type=pathlib.Path, help="workdir of a video tokenizer")
  add("--keep", type=pathlib.Path, help="workdir of which a file is written")
  add("--output", type=pathlib.Path, required=True, help="file to write")
  args = parser.parse_args()
  workdirs = [x for x in (args.keep, args.image, args.video) if x]
  for workdir in workdirs:
    if not (workdir / "metrics.jsonl").is_file():
      parser.error(f"{workdir} has no metrics.jsonl: expected a workdir")
  try:
    if args.keep:
      keep(read(args.keep / "metrics.jsonl"), args.output)
      return
    runs = {
      kind: {"ours": read(_OURS / f"{name}.jsonl")}
      for kind, name in _RUNS.items()
    }
    for kind, workdir in (("image", args.image), ("video", args.video)):
      if workdir:
        runs[kind]["yours"] = read(workdir / "metrics.jsonl")
    draw(runs, args.output)
  except (OSError, ValueError) as error:
    parser.error(str(error))


if __name__ == "__main__":
  main()
