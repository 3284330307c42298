"""Who leads in `benchmarks/duel.py`, as JSON, as a table and as a plot."""

from collections.abc import Mapping
from collections.abc import Sequence
import itertools
import pathlib
from typing import Any

from matplotlib import figure
import numpy as np

from benchmarks.duel_run import OURS
from benchmarks.duel_run import SCORES
from evaluation.show import pictures

Row = Mapping[str, float]
Histories = Mapping[str, Sequence[Row]]  # rows of each side by its name

_COLOURS = ("tab:blue", "tab:orange", "tab:red", "tab:brown", "tab:grey")
_EVERY = 4  # frames from one that the picture shows to the next
_LINES_OF_STEPS = 6  # moments at equal steps


def who_leads(histories: Histories) -> list[dict[str, Any]]:
  """The leader of each moment in each score, by name.

  Moments are those that any side has a row of. A side without one, for it
  diverged before, cannot lead. None leads where the best are equal, or where
  one side alone was run.
  """
  moments = sorted({r["moment"] for rows in histories.values() for r in rows})
  leaders = []
  for moment in moments:
    at = {
      side: row
      for side, rows in histories.items()
      for row in rows
      if row["moment"] == moment
    }
    leaders.append({"moment": moment, **_leaders(at, len(histories))})
  return leaders


def at_equal_steps(histories: Histories) -> list[dict[str, Any]]:
  """The leaders once all sides have done as many steps.

  Scores between two evaluations are interpolated, up to the last step of the
  slowest side.
  """
  if any(len(rows) < 2 for rows in histories.values()) or len(histories) < 2:
    return []
  last = min(rows[-1]["steps"] for rows in histories.values())
  leaders = []
  for steps in np.linspace(0, last, _LINES_OF_STEPS + 1)[1:]:
    at = {side: _interpolate(rows, steps) for side, rows in histories.items()}
    leaders.append({"steps": float(steps), **_leaders(at, len(histories))})
  return leaders


def _interpolate(rows: Sequence[Row], steps: float) -> Row:
  """The scores of a side after a number of steps."""
  done = [row["steps"] for row in rows]
  return {
    score: float(np.interp(steps, done, [row[score] for row in rows]))
    for score in SCORES
    if all(score in row for row in rows)
  }


def _leaders(at: Mapping[str, Row], sides: int) -> dict[str, str | None]:
  """The leader by score, of the sides' rows at one moment."""
  leaders = {}
  for score, (_, lower_is_better) in SCORES.items():
    values = {side: row[score] for side, row in at.items() if score in row}
    if not values:
      continue
    best = (min if lower_is_better else max)(values.values())
    first = [side for side, value in values.items() if value == best]
    leaders[score] = first[0] if sides > 1 and len(first) == 1 else None
  return leaders


def verdict(
  leaders: Sequence[Mapping[str, Any]], seconds: float
) -> dict[str, str]:
  """Who leads in each score from the second third of the run on.

  A side's name if it leads at all of these moments, else "changing".
  """
  late = [row for row in leaders if row["moment"] >= seconds / 3]
  result = {}
  for score in SCORES:
    names = {row.get(score) for row in late}
    if names - {None}:
      result[score] = names.pop() if len(names) == 1 else "changing"
  return result


def table(histories: Histories, leaders: Sequence[Mapping[str, Any]]) -> str:
  """Lines of text: a block for each score, a row for each moment."""
  lines = []
  for score, (title, _) in SCORES.items():
    if not any(score in row for rows in histories.values() for row in rows):
      continue
    width = max(10, *(len(side) + 3 for side in histories))
    head = "".join(f"{side:>{width}}" for side in histories)
    lines += ["", f"{title}:", f"{'seconds':>8}{head}"]
    for leader in leaders:
      cells = []
      for side, rows in histories.items():
        row = next((r for r in rows if r["moment"] == leader["moment"]), {})
        mark = "*" if leader.get(score) == side else " "
        cell = f"{row[score]:.4g}" if score in row else "-"
        cells.append(f"{cell + mark:>{width}}")
      lines.append(f"{leader['moment']:>8.0f}{''.join(cells)}")
  return "\n".join([*lines, "", "* leads"])


def draw(
  histories: Histories,
  seconds: float,
  parameters: Mapping[str, int],
  path: pathlib.Path,
) -> None:
  """Writes a plot of each score by the seconds of training."""
  shown = [
    score
    for score in SCORES
    if any(score in row for rows in histories.values() for row in rows)
  ]
  columns = 3 if len(shown) > 4 else 2
  lines = -(-len(shown) // columns)
  fig = figure.Figure(figsize=(4 * columns, 3 * lines), layout="constrained")
  for place, score in enumerate(shown, 1):
    title, lower_is_better = SCORES[score]
    title += " (lower is better)" if lower_is_better else ""
    axes = fig.add_subplot(lines, columns, place, title=title)
    for colour, (side, rows) in zip(
      itertools.cycle(_COLOURS), histories.items(), strict=False
    ):
      label = f"{side}, {parameters[side]:,} parameters"
      x, y = [r["moment"] for r in rows], [r[score] for r in rows]
      axes.plot(x, y, ".-", color=colour, label=label)
    axes.axvline(seconds / 3, color="grey", linewidth=1, linestyle="--")
    axes.grid(alpha=0.3)
    if place == 1:
      axes.legend(fontsize=8)
    if place > len(shown) - columns:
      axes.set_xlabel("seconds of training")
  fig.savefig(path, dpi=110)


def draw_clips(
  truth_BTHWC: np.ndarray,
  outputs: Mapping[str, np.ndarray],
  path: pathlib.Path,
) -> None:
  """Writes a strip of frames: a row of the truth, then one of each side."""
  rows = [
    clips[i]
    for i in range(len(truth_BTHWC))
    for clips in _all(truth_BTHWC, outputs)
  ]
  pictures.write_png(path, pictures.filmstrip(np.stack(rows), _EVERY), scale=2)


def _all(truth_BTHWC, outputs):
  # Ours first, then the peers, as in the table.
  return [truth_BTHWC, *(outputs[s] for s in sorted(outputs, key=_rank))]


def _rank(side: str) -> tuple[bool, str]:
  return side != OURS, side
