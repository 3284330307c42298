"""Scores of a recognizer: top-1 and top-5 accuracy, and which classes mix.

A video may be shown in several views, windows and crops of it; what is scored
is the mean of the logits of its views.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence
import dataclasses
import io
from typing import Any

import numpy as np

from evaluation import evaluators
from evaluation import values

NAME = "recognition"  # name of the result
_TOP = 5  # number of likeliest classes, among which the true one counts
_NAMED = 10  # pairs of classes that the result names

# Classifies: clips uint8 (B, T, H, W, 3) -> logits (B, classes).
Classify = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Scored:
  """The scores, and how often each class was taken for each."""

  result: evaluators.Result
  confusion_VV: np.ndarray  # int, rows are the true classes


def evaluate(
  classify: Classify,
  batches: Iterable[tuple[dict[str, np.ndarray], int]],
  views: int,
  names: Sequence[str],
  protocol: dict[str, Any],
) -> Scored:
  """Scores the logits of clips, of which `views` in turn are of one video.

  Args:
    classify: the model.
    batches: ({"video", "label"}, number of clips that count), as
      `pipeline.eval_batches` makes them.
    views: number of clips of each video.
    names: names of the classes; those of others are their numbers.
    protocol: facts for the result.

  Raises:
    ValueError: no clips, or logits that cannot be.
  """
  logits_NV, label_N = _run(classify, batches, views)
  classes = logits_NV.shape[1]
  order_NV = np.argsort(-logits_NV, axis=1, kind="stable")
  hits_NV = order_NV == label_N[:, None]
  metrics = {
    "accuracy": float(hits_NV[:, 0].mean()),
    "baseline_accuracy": float(np.bincount(label_N).max() / len(label_N)),
  }
  if classes > _TOP:
    metrics["top5_accuracy"] = float(hits_NV[:, :_TOP].any(1).mean())
  confusion_VV = np.zeros((classes, classes), int)
  np.add.at(confusion_VV, (label_N, order_NV[:, 0]), 1)
  facts = {
    **protocol,
    "examples": len(label_N),
    "views": views,
    "classes": classes,
    "baseline": "the commonest class of the clips",
    "most_confused": _most_confused(confusion_VV, names),
  }
  result = evaluators.Result(NAME, metrics, facts)
  return Scored(result, confusion_VV)


def _run(classify, batches, views: int) -> tuple[np.ndarray, np.ndarray]:
  """Logits (N, classes) and labels (N,) of videos, by the mean of their views.

  Raises:
    ValueError: no clips, or logits that cannot be.
  """
  logits, labels, seen = [], [], 0
  for batch, count in batches:
    outputs = np.asarray(classify(batch["video"]), np.float64)[:count]
    values.check_range("logits", outputs, first=seen)
    logits.append(outputs)
    labels.append(batch["label"][:count])
    seen += count
  if not seen or seen % views:
    raise ValueError(
      f"batches have {seen} clips, and a multiple of views={views}, at least"
      " one, is expected"
    )
  clips_BV, label_B = np.concatenate(logits), np.concatenate(labels)
  logits_NV = clips_BV.reshape(-1, views, clips_BV.shape[1]).mean(1)
  return logits_NV, label_B[::views]


def _most_confused(confusion_VV: np.ndarray, names: Sequence[str]) -> list[str]:
  """Pairs of classes that are taken for another most often, in words."""
  off_VV = confusion_VV * (1 - np.eye(len(confusion_VV), dtype=int))
  places = np.argsort(-off_VV, axis=None, kind="stable")[:_NAMED]
  rows, columns = np.unravel_index(places, off_VV.shape)
  return [
    f"{name_of(names, row)} as {name_of(names, column)}: {off_VV[row, column]}"
    for row, column in zip(rows, columns, strict=True)
    if off_VV[row, column]
  ]


def name_of(names: Sequence[str], number: int) -> str:
  """The name of a class, or its number where there is none."""
  return names[number] if number < len(names) else str(number)


def as_csv(confusion_VV: np.ndarray, names: Sequence[str]) -> str:
  """The counts as a table: rows are the true classes."""
  text = io.StringIO()
  quoted = lambda n: '"' + name_of(names, n).replace('"', '""') + '"'
  numbers = range(len(confusion_VV))
  text.write(",".join(['"true class"', *map(quoted, numbers)]) + "\n")
  for number, row in zip(numbers, confusion_VV, strict=True):
    text.write(",".join([quoted(number), *map(str, row.tolist())]) + "\n")
  return text.getvalue()


def picture(confusion_VV: np.ndarray) -> np.ndarray:
  """The shares of each true class as a picture, uint8 (H, W, 3)."""
  total_V1 = np.maximum(confusion_VV.sum(1, keepdims=True), 1)
  shares = np.sqrt(confusion_VV / total_V1)  # so that rare mistakes show
  grey = np.rint(255 * shares).astype(np.uint8)
  side = max(1, 480 // len(grey))  # pixels of a cell
  grey = grey.repeat(side, axis=0).repeat(side, axis=1)
  return np.repeat(grey[..., None], 3, axis=-1)
