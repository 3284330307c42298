"""Means, BD-rates and the plot of measured rates and distortions.

A row is one video coded at one point of one curve: {"video", "curve", "point",
"bpp", METRIC...}, where the value of a metric may be None.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import io
import itertools
from typing import Any

from matplotlib import figure
from matplotlib import ticker
import numpy as np

from evaluation.metrics import bd_rate
from evaluation.metrics import frames as frame_metrics

Curves = dict[str, list[dict[str, Any]]]


def mean_curves(rows: Sequence[Mapping[str, Any]]) -> Curves:
  """Curve -> its points in the order of rates, each a mean over videos."""
  curves = {}
  for curve in dict.fromkeys(row["curve"] for row in rows):
    of_curve = [row for row in rows if row["curve"] == curve]
    points = []
    for point in dict.fromkeys(row["point"] for row in of_curve):
      of_point = [row for row in of_curve if row["point"] == point]
      mean = {"point": point, "videos": len(of_point)}
      for name in ("bpp", *frame_metrics.at("study")):
        values = [row.get(name) for row in of_point]
        known = [value for value in values if value is not None]
        complete = len(known) == len(values)
        mean[name] = float(np.mean(known)) if complete else None
      points.append(mean)
    curves[curve] = sorted(points, key=lambda mean: mean["bpp"])
  return curves


def compare(curves: Curves) -> dict[str, dict[str, Any]]:
  """Metric -> "A against B" -> BD-rate of the pair, or why there is none."""
  results = {}
  for metric, facts in frame_metrics.at("study").items():
    if not _measured(curves, metric):
      continue
    pairs = results[metric] = {}
    for anchor, name in itertools.combinations(curves, 2):
      try:
        result = bd_rate.bd_rate(
          _points(curves[anchor], metric),
          _points(curves[name], metric),
          facts.lower_is_better,
        )
      except ValueError as error:
        pairs[f"{name} against {anchor}"] = {"none": str(error)}
      else:
        pairs[f"{name} against {anchor}"] = {
          "percent": result.percent,
          "overlap": result.overlap,
        }
  return results


def at_rate(curves: Curves, bpp: float) -> dict[str, dict[str, Any]]:
  """Metric -> curve -> value at a rate, or why there is none."""
  results = {}
  for metric in frame_metrics.at("study"):
    if not _measured(curves, metric):
      continue
    values = results[metric] = {}
    for name, points in curves.items():
      try:
        values[name] = bd_rate.quality_at(*_points(points, metric), bpp)
      except ValueError as error:
        values[name] = f"none: {error}"
  return results


def plot(curves: Curves) -> bytes:
  """Draws a PNG: one panel for each metric, over the logarithm of bits."""
  metrics = {
    name: metric
    for name, metric in frame_metrics.at("study").items()
    if _measured(curves, name)
  }
  fig = figure.Figure(figsize=(5.2 * len(metrics), 4.4), layout="constrained")
  for axes, metric in zip(
    np.atleast_1d(fig.subplots(1, len(metrics))), metrics, strict=True
  ):
    for name, points in curves.items():
      axes.plot(*_points(points, metric), "o-", label=name, lw=1.6, ms=5)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    axes.xaxis.set_major_formatter(lambda bpp, _: f"{bpp:g}")
    axes.set_xlabel("bits per pixel")
    axes.set_title(metrics[metric].title, loc="left", fontsize=11)
    axes.grid(color="#e6e6e6", lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
  axes.legend(frameon=False)
  buffer = io.BytesIO()
  fig.savefig(buffer, format="png", dpi=120)
  return buffer.getvalue()


def _measured(curves: Curves, metric: str) -> bool:
  return all(
    p[metric] is not None for points in curves.values() for p in points
  )


def _points(points, metric) -> tuple[list[float], list[float]]:
  return [p["bpp"] for p in points], [p[metric] for p in points]
