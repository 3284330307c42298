"""Tests of evaluation/metrics/inception_score.py: numbers of other packages."""

import numpy as np
import pytest

from evaluation.metrics import inception_score
from tests.evaluation.metrics import distances_reference as reference


def test_torch_fidelitys_convention():
  scores = inception_score.inception_score(
    reference.features(1, 500), "torch_fidelity"
  )
  np.testing.assert_allclose(
    [scores["is"], scores["is_std"]], reference.RECORDED["is"], rtol=1e-6
  )


def _sure(labels, classes):
  return 50.0 * np.eye(classes)[labels]


def test_sure_and_balanced_classes_score_their_number():
  logits = _sure(np.arange(40) % 4, 4)
  for convention in ("adm", "one_split"):
    scores = inception_score.inception_score(logits, convention)
    np.testing.assert_allclose(scores["is"], 4.0, rtol=1e-9)


def test_adm_splits_consecutive_examples_and_the_others_do_not():
  """5000 of class 0, then 5000 of class 1: each split has one class."""
  logits = _sure(np.repeat([0, 1], 5000), 2)
  scores = inception_score.inception_score(logits, "adm")
  np.testing.assert_allclose([scores["is"], scores["is_std"]], [1.0, 0.0])
  whole = inception_score.inception_score(logits, "one_split")
  np.testing.assert_allclose(whole["is"], 2.0, rtol=1e-9)
  shuffled = inception_score.inception_score(logits, "torch_fidelity")
  assert 1.99 < shuffled["is"] < 2.0


def test_what_is_no_distribution_is_refused():
  with pytest.raises(ValueError, match="probabilities .*inception_score"):
    inception_score.score_of_probabilities(np.full((20, 3), 0.5), "adm")
  with pytest.raises(ValueError, match=r"'torch_fidelity' .* 10 .*\(9, 3\)"):
    inception_score.inception_score(np.zeros((9, 3)), "torch_fidelity")
  with pytest.raises(ValueError, match="convention='fid'"):
    inception_score.inception_score(np.zeros((9, 3)), "fid")


def test_adms_splits_may_have_any_size():
  """Ten of class 0, ten of class 1, four of both: by splits of 10 the last."""
  logits = _sure([*[0] * 10, *[1] * 10, 0, 1, 0, 1], 2)
  split = inception_score.inception_score(logits, "adm", split_size=10)
  np.testing.assert_allclose(split["is"], (1 + 1 + 2) / 3, rtol=1e-9)
  probabilities = np.repeat(np.eye(2), 10, 0)
  half = inception_score.score_of_probabilities(probabilities, "adm", 5)
  np.testing.assert_allclose([half["is"], half["is_std"]], [1.0, 0.0])
  usual = inception_score.inception_score(logits, "adm")
  assert usual == inception_score.inception_score(logits, "adm", 5000)
