"""Scores of somebody's files, one by one, kept in a file as a run goes."""

import contextlib
import dataclasses
import os
import time
from typing import Any

import numpy as np

from evaluation import evaluators
from evaluation.metrics import frames as frame_metrics
from storage import files

_WRITING = 10  # times as long as writing the results, files are worked on


@dataclasses.dataclass
class Results:
  """Scores and failures of a run so far, and the file that keeps them."""

  path: str
  run: str
  step: int
  protocol: dict[str, Any]
  left: list[str]  # files that are still to be read
  skipped: list[str]  # files of other types
  rows: list[dict[str, Any]] = dataclasses.field(default_factory=list)
  failures: dict[str, str] = dataclasses.field(default_factory=dict)
  _next: float = 0.0  # time before which writing would cost too much

  def add(self, row: dict[str, Any]) -> None:
    self.rows.append(row)
    self._go_on()

  def fail(self, file: str, reason: str) -> None:
    self.failures[file] = reason
    self._go_on()

  def _go_on(self) -> None:
    del self.left[0]
    start = time.monotonic()
    if start >= self._next:
      self._write()
      end = time.monotonic()
      # A long list takes long to write: most of the time goes to the files.
      self._next = end + _WRITING * (end - start)

  def finish(self, outputs: str) -> None:
    """Writes all; of a run that made nothing, removes its empty folders."""
    if self.rows or self.failures:
      self._write()
      return
    for folder, _, _ in os.walk(outputs, topdown=False):
      with contextlib.suppress(OSError):  # it holds something
        os.rmdir(folder)
    with contextlib.suppress(OSError):
      os.rmdir(os.path.dirname(outputs))

  def result(self) -> evaluators.Result:
    counts = {
      "files": len(self.rows),
      "frames": sum(row["frames"] for row in self.rows),
      "failed": len(self.failures),
    }
    return evaluators.Result(
      f"media_{self.run}", {**_means(self.rows), **counts}, self.protocol
    )

  def _write(self) -> None:
    record = {
      "step": self.step,
      **dataclasses.asdict(self.result()),
      "files": self.rows,
      "failures": self.failures,
      "left": self.left,
      "skipped": self.skipped,
    }
    files.write_json(self.path, record)


def _means(rows: list[dict[str, Any]]) -> dict[str, float]:
  """Means over files, called "mean_psnr": "psnr" is that of held-out clips."""
  means = {}
  for name in frame_metrics.at("files"):
    values = [row[name] for row in rows if row[name] is not None]
    if values:
      means[f"mean_{name}"] = float(np.mean(values))
  return means


def scores_text(row: dict[str, Any]) -> str:
  return ", ".join(
    f"{metric.label} {metric.form.format(row[name])}"
    for name, metric in frame_metrics.at("files").items()
    if row[name] is not None
  )


def table(rows: list[dict[str, Any]]) -> list[str]:
  """Lines of the summary: a heading, then one line for each file."""
  wide = max(4, *(len(row["file"]) for row in rows))
  metrics = frame_metrics.at("files")
  heads = {
    k: f"  {f'{m.label} {m.unit}'.rstrip():>5}" for k, m in metrics.items()
  }
  lines = [
    f"{'file':<{wide}} {'frames':>6} {'size':>11}" + "".join(heads.values())
  ]
  for row in rows:
    size = f"{row['height']} x {row['width']}"
    line = f"{row['file']:<{wide}} {row['frames']:>6} {size:>11}"
    for name, metric in metrics.items():
      value = row[name]
      text = "-" if value is None else f"{value:.{metric.digits}f}"
      line += f"{text:>{len(heads[name])}}"
    lines.append(line)
  return lines
