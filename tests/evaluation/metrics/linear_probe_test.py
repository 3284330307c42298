"""Tests of evaluation/metrics/linear_probe.py."""

import numpy as np
import pytest

from evaluation.metrics import linear_probe


def _examples(count=400, classes=4, width=6, noise=0.3, seed=0):
  rng = np.random.default_rng(seed)
  label = rng.integers(classes, size=count)
  centres = (
    np.eye(classes, width) * 3 + 100
  )  # far from 0, which must not matter
  features = centres[label] + noise * rng.standard_normal((count, width))
  return features.astype(np.float32), label


def test_classes_that_are_apart_are_all_told():
  train, held_out = _examples(), _examples(seed=1)
  probe = linear_probe.fit(*train, 4)
  assert probe.accuracy(*held_out) == 1.0


def test_features_without_a_class_give_chance():
  features, label = _examples(count=2000)
  noise = np.random.default_rng(2).standard_normal(features.shape)
  probe = linear_probe.fit(noise[:1000], label[:1000], 4)
  assert abs(probe.accuracy(noise[1000:], label[1000:]) - 0.25) < 0.05


def test_weights_solve_the_ridge_equations():
  """The gradient of squared error and penalty is 0."""
  features, label = _examples(noise=2.0)
  probe = linear_probe.fit(features, label, 4)
  x = (features.astype(np.float64) - probe.mean_D) / probe.scale_D
  error = probe.logits(features) - np.eye(4)[label]
  gradient = x.T @ error + probe.penalty * len(x) * probe.weights_DV
  np.testing.assert_allclose(gradient, 0, atol=1e-8)
  np.testing.assert_allclose(error.sum(0), 0, atol=1e-8)


def test_scales_and_constant_features_change_nothing():
  features, label = _examples(noise=2.0)
  scaled = np.concatenate([features * 1e3, np.full((400, 1), 7.0)], axis=1)
  a = linear_probe.fit(features, label, 4)
  b = linear_probe.fit(scaled, label, 4)
  assert a.penalty == b.penalty
  np.testing.assert_allclose(a.logits(features), b.logits(scaled), atol=1e-6)


def test_many_noisy_features_choose_a_larger_penalty():
  clean = linear_probe.fit(*_examples(noise=0.1), 4).penalty
  features, label = _examples(count=60, noise=1.0)
  noise = np.random.default_rng(3).standard_normal((60, 200))
  both = np.concatenate([features, noise], axis=1)
  assert linear_probe.fit(both, label, 4).penalty >= 0.1 > 0
  assert clean in linear_probe.PENALTIES


def test_too_few_examples_or_numbers_that_cannot_be_are_refused():
  features, label = _examples(count=9)
  with pytest.raises(ValueError, match="at least 10 examples for a probe"):
    linear_probe.fit(features, label, 4)
  features, label = _examples(count=20)
  features[3, 2] = np.inf
  with pytest.raises(ValueError, match=r"features\[3, 2\] is inf"):
    linear_probe.fit(features, label, 4)
