"""Loss curves of a run as small inline SVG plots for the report."""

import io
import math
import re

import matplotlib as mpl
from matplotlib import figure
from matplotlib import ticker
import numpy as np

from evaluation.show import markup
from evaluation.show import words

_VISIBLE_PLOTS = 9
_BINS_PER_CURVE = 300
_ROUND = [1, 2, 5, 10]  # allowed steps between ticks, times a power of ten

# Matplotlib draws in these otherwise unused colours; they are then replaced by
# variables of the style sheet, so that one plot serves light and dark mode.
_INK, _GRID, _CURVE, _DOT = "#010203", "#040506", "#070809", "#0a0b0c"
_CSS_COLOURS = {
  _INK: "var(--muted)",
  _GRID: "var(--line)",
  _CURVE: "var(--curve)",
  _DOT: "var(--dot)",
}


def draw(metrics, salt, damaged_lines):
  """Draws small plots: training metrics as lines, evaluations as dots.

  Args:
    metrics: name -> {step: value}; "eval/NAME" shares the panel of NAME. A
      value may be a list with a number per channel, which gives a line each.
    salt: text that tells the plots of this run from others on the page.
    damaged_lines: number of damaged lines in the metrics file; mentioned if
      there are any.
  """
  if not metrics:
    return markup.missing(
      "No training metrics yet: metrics.jsonl appears with the first log."
    )
  plots = [_draw_one(metrics, name, salt) for name in _names(metrics)]
  parts = [
    '<p class="legend"><i class="raw"></i>logged <i></i>smoothed '
    '<i class="dot"></i>evaluation, all by training step</p>'
    f'<div class="plots">{"".join(plots[:_VISIBLE_PLOTS])}</div>'
  ]
  if plots[_VISIBLE_PLOTS:]:
    parts.append(
      f"<details><summary>{len(plots) - _VISIBLE_PLOTS} more curves</summary>"
      f'<div class="plots">{"".join(plots[_VISIBLE_PLOTS:])}</div></details>'
    )
  if damaged_lines:
    parts.append(
      markup.missing(
        f"Damaged lines of metrics.jsonl skipped: {damaged_lines}."
      )
    )
  return "".join(parts)


def draw_first(metrics, salt):
  """The one curve that says most, for the top of the page; "" without any."""
  names = _names(metrics)
  return _draw_one(metrics, names[0], f"first {salt}") if names else ""


def line_picture(x_label, y_label, lines):
  """A PNG of {name: values at 0, 1, ...}, for samples/."""
  fig = figure.Figure(figsize=(6, 4), dpi=100, layout="constrained")
  axes = fig.add_subplot()
  for name, values in lines.items():
    axes.plot(range(len(values)), values, marker="o", ms=4, label=name)
  axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
  axes.set_xlabel(x_label)
  axes.set_ylabel(y_label)
  axes.grid(axis="y", lw=0.5)
  axes.legend()
  buffer = io.BytesIO()
  fig.savefig(buffer, format="png")
  return buffer.getvalue()


def _names(metrics):
  """Names of the panels in their order; "eval/NAME" shares that of NAME."""
  names = {}  # panel -> rank, the better of the two
  for name in metrics:
    panel = name.removeprefix("eval/")
    rank = words.place(name)
    names[panel] = min(rank, names.get(panel, rank))
  return sorted(names, key=names.__getitem__)


def _draw_one(metrics, name, salt):
  last_step = max(max(curve) for curve in metrics.values())
  is_vector = _is_vector(metrics, name)
  plot = _plot_channels if is_vector else _plot
  return plot(metrics, name, last_step, salt)


def _plot(metrics, name, last_step, salt):
  """One figure of a metric over the steps of the whole run."""
  steps, values, lost = _finite(metrics.get(name, {}))
  eval_steps, eval_values, eval_lost = _finite(metrics.get(f"eval/{name}", {}))
  both = np.concatenate([values, eval_values])
  fig = figure.Figure(figsize=(340 / 72, 180 / 72))
  axes = fig.add_axes((0.14, 0.13, 0.82, 0.82))
  drawn = _extremes(values)
  axes.plot(steps[drawn], values[drawn], color=_CURVE, lw=1, alpha=0.3)
  axes.plot(steps[drawn], _smooth(values)[drawn], color=_CURVE, lw=1.8)
  if len(steps) == 1:
    axes.plot(steps, values, ".", color=_CURVE)
  axes.plot(eval_steps, eval_values, color=_DOT, lw=1, alpha=0.4)
  axes.plot(eval_steps, eval_values, "o", color=_DOT, ms=5, mew=0)
  if _spans_decades(both):
    axes.set_yscale("log")
    subs = (1, 2, 5) if both.max() / both.min() < 300 else (1,)
    axes.yaxis.set_major_locator(ticker.LogLocator(subs=subs, numticks=6))
    axes.yaxis.set_minor_locator(ticker.NullLocator())
  else:
    axes.yaxis.set_major_locator(ticker.MaxNLocator(4, steps=_ROUND))
  _dress(axes, last_step)
  last = values[-1:] if len(values) else eval_values[-1:]
  summary = markup.number(float(last[0])) if len(last) else "no finite value"
  note = f" ({lost + eval_lost} not finite)" if lost + eval_lost else ""
  return (
    f'<figure class="plot"><figcaption>{markup.escape(name)}{note} '
    f"<b>{summary}</b></figcaption>"
    + _svg(
      fig, f"{name} by training step, last value {summary}", f"{salt} {name}"
    )
    + "</figure>"
  )


def _is_vector(metrics, name):
  return any(isinstance(v, tuple) for v in metrics.get(name, {}).values())


def _plot_channels(metrics, name, last_step, salt):
  """One figure of a metric with a value per channel: a thin line each."""
  curve = sorted(metrics[name].items())
  values = np.array([value for _, value in curve], float)
  fig = figure.Figure(figsize=(340 / 72, 180 / 72))
  axes = fig.add_axes((0.14, 0.13, 0.82, 0.82))
  steps = [step for step, _ in curve]
  marker = "." if len(steps) == 1 else None
  axes.plot(steps, values, color=_CURVE, lw=1, alpha=0.5, marker=marker)
  axes.yaxis.set_major_locator(ticker.MaxNLocator(4, steps=_ROUND))
  _dress(axes, last_step)
  low, high = (markup.number(float(f(values[-1]))) for f in (np.min, np.max))
  return (
    f'<figure class="plot"><figcaption>{markup.escape(name)}, by channel '
    f"<b>{low} to {high}</b></figcaption>"
    + _svg(
      fig,
      f"{name} of each channel by training step, last {low} to {high}",
      f"{salt} {name}",
    )
    + "</figure>"
  )


def _dress(axes, last_step):
  """Sets the ticks, grid and limits that all plots share."""
  axes.xaxis.set_major_locator(
    ticker.MaxNLocator(4, steps=_ROUND, integer=True)
  )
  axes.xaxis.set_major_formatter(lambda value, _: markup.compact(value))
  axes.yaxis.set_major_formatter(lambda value, _: markup.compact(value))
  axes.set_xlim(-0.02 * last_step, max(1, last_step) * 1.02)
  axes.tick_params(colors=_INK, labelsize=11, length=0, pad=5)
  axes.grid(axis="y", color=_GRID, lw=1)
  axes.set_axisbelow(True)
  axes.spines[:].set_visible(False)


def _svg(fig, label, salt):
  """Inline SVG of a figure, in the colours and the font of the page."""
  buffer = io.StringIO()
  # Text stays text. A fixed salt makes equal data give an equal page; a salt of
  # its own for each plot keeps the ids on the page apart.
  with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": salt}):
    fig.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
  svg = buffer.getvalue()
  svg = svg[svg.index("<svg") :]
  svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
  # Names like axes_1 would be the same in every plot of the page.
  svg = re.sub(r' id="[a-z0-9.]+_\d+"', "", svg)
  for colour, variable in _CSS_COLOURS.items():
    svg = svg.replace(colour, variable)
  view_box = re.findall(r'viewBox="[^"]*"', svg)[0]
  head = f'<svg {view_box} role="img" aria-label="{markup.escape(label)}">'
  return re.sub(r"<svg[^>]*>", lambda _: head, svg, count=1)


def _finite(curve):
  """Sorted steps, their finite values, and how many values were not finite."""
  kept = sorted((s, v) for s, v in curve.items() if math.isfinite(v))
  steps_and_values = np.array(kept, float).reshape(-1, 2)
  return *steps_and_values.T, len(curve) - len(kept)


def _extremes(values):
  """Indices to draw: least and largest value of each bin, so spikes survive."""
  if len(values) <= 2 * _BINS_PER_CURVE:
    return np.arange(len(values))
  bins = np.array_split(np.arange(len(values)), _BINS_PER_CURVE)
  ends = [(b[values[b].argmin()], b[values[b].argmax()]) for b in bins]
  return np.unique([0, len(values) - 1, *np.ravel(ends).tolist()])


def _smooth(values):
  """Centred moving mean over a thirtieth of the curve, shorter at its ends."""
  kernel = np.ones(1 + 2 * (len(values) // 60))
  if len(values) == 0:
    return values
  return np.convolve(values, kernel, "same") / np.convolve(
    np.ones_like(values), kernel, "same"
  )


def _spans_decades(values):
  """Whether a log scale tells more: all positive, largest > 30 x smallest."""
  return len(values) > 0 and 0 < 30 * values.min() < values.max()
