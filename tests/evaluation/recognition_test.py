"""Tests of evaluation/recognition.py: accuracies in closed form."""

import numpy as np
import pytest

from evaluation import recognition

_LOGITS = np.array(
  [  # two views of each of four videos, seven classes
    [0, 9, 0, 0, 0, 0, 0],
    [5, 0, 0, 0, 0, 0, 0],  # outvoted by the view before
    [0, 0, 1, 9, 0, 0, 0],
    [0, 0, 9, 2, 0, 0, 0],  # 11 and 10 in all: both at the top, 3 first
    [6, 5, 4, 3, 2, 1, 0],
    [6, 5, 4, 3, 2, 1, 0],
    [0, 0, 0, 0, 0, 0, 3],
    [0, 0, 0, 0, 0, 0, 3],
  ],
  float,
)
_LABELS = np.repeat([1, 3, 4, 6], 2)


def _batches(sizes=(3, 5)):
  start = 0
  for size in sizes:
    index = np.minimum(np.arange(start, start + 5), len(_LABELS) - 1)
    yield {"video": index, "label": _LABELS[index]}, size
    start += size


def _score(views=2, logits=_LOGITS):
  return recognition.evaluate(
    lambda index: logits[index], _batches(), views, ["a", "b"], {"split": "x"}
  )


def test_views_are_one_by_the_mean_of_their_logits():
  scored = _score()
  assert scored.result.metrics == {
    "accuracy": 3 / 4,
    "baseline_accuracy": 1 / 4,
    "top5_accuracy": 1.0,
  }
  assert scored.result.protocol["examples"] == 4
  assert scored.result.protocol["most_confused"] == ["4 as a: 1"]
  # One by one, the second and the fourth clip are wrong, too.
  assert _score(views=1).result.metrics["accuracy"] == 4 / 8


def test_confusion_counts_true_classes_by_rows():
  confusion = _score().confusion_VV
  assert confusion.sum() == 4
  assert confusion[4, 0] == confusion[1, 1] == confusion[3, 3] == 1
  lines = recognition.as_csv(confusion, ["a", 'b "x"']).splitlines()
  assert lines[0] == '"true class","a","b ""x""","2","3","4","5","6"'
  assert lines[5] == '"4",1,0,0,0,0,0,0'
  sheet = recognition.picture(confusion)
  assert sheet.shape == (476, 476, 3)
  assert (sheet[4 * 68 + 5, 5] == 255).all() and (sheet[0, 0] == 0).all()


def test_logits_that_cannot_be_are_refused():
  bad = _LOGITS.copy()
  bad[4, 2] = np.nan
  with pytest.raises(ValueError, match=r"logits\[4, 2\] is nan"):
    _score(logits=bad)
  with pytest.raises(ValueError, match="8 clips, and a multiple of views=3"):
    _score(views=3)
