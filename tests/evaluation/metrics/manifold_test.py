"""Tests of evaluation/metrics/manifold.py: peers' numbers, and made sets."""

import numpy as np
import pytest

from evaluation.metrics import manifold
from tests.evaluation.metrics import distances_reference as reference


def _sets():
  return reference.features(1, 500), reference.features(2, 600)


@pytest.mark.parametrize("block", [4096, 130])
def test_shares_are_those_of_torch_fidelity_and_prdc(monkeypatch, block):
  monkeypatch.setattr(manifold, "_BLOCK", block)
  real, fake = _sets()
  scores = manifold.precision_recall(real, fake)
  np.testing.assert_allclose(
    [scores["precision"], scores["recall"]],
    reference.RECORDED["precision_recall"],
    rtol=1e-6,  # recorded in float32
  )
  scores = manifold.density_coverage(real, fake)
  np.testing.assert_allclose(
    [scores["density"], scores["coverage"]],
    reference.RECORDED["density_coverage"],
    rtol=1e-12,
  )


def test_a_far_offset_costs_no_digits():
  """|x|^2 + |y|^2 - 2xy of features near 1000 would lose all their digits."""
  real, fake = _sets()
  near = manifold.precision_recall(real, fake)
  far = manifold.precision_recall(real + 1000.0, fake + 1000.0)
  for name, value in near.items():
    assert abs(far[name] - value) < 0.01  # inputs in float32: 6e-5 apart


def test_balls_of_a_hand_made_set():
  """Reals at 0, 1, 5 reach to their nearest other: radii 1, 1, 4.

  Fakes at 0.5, 9, 13, 14: the first is in two balls, the second on the edge of
  one, which counts for precision (<=) and not for density (<). Real 5 holds no
  fake strictly; 0 and 1 hold the first.
  """
  real = np.array([[0.0], [1.0], [5.0]])
  fake = np.array([[0.5], [9.0], [13.0], [14.0]])
  scores = manifold.precision_recall(real, fake, neighbours=1)
  assert scores == {"precision": 2 / 4, "recall": 1.0}
  scores = manifold.density_coverage(real, fake, neighbours=1)
  np.testing.assert_allclose(scores["density"], 2 / 4, rtol=1e-6)
  np.testing.assert_allclose(scores["coverage"], 2 / 3, rtol=1e-6)


def test_sets_without_enough_neighbours_are_refused():
  real, fake = _sets()
  with pytest.raises(ValueError, match=r"more than 3 .* fake .*\(3, 16\)"):
    manifold.precision_recall(real, fake[:3])
  with pytest.raises(ValueError, match="differ in width: 16 and 4"):
    manifold.density_coverage(real, fake[:, :4])


def _shares(real, fake, radius_of, inside):
  """(N, M) whether fake n is in the ball of real m, by differences alone."""
  distance = lambda x, y: np.square(x[:, None] - y[None]).sum(-1)
  radii = np.sort(distance(real, real), 1)[:, radius_of]
  return inside(distance(fake, real), radii[None])


def test_tight_clusters_far_apart_keep_their_digits():
  """|x|^2 + |y|^2 - 2xy of float32 knows no distance within such a cluster."""
  rng = np.random.default_rng(0)
  centres = 300.0 * rng.normal(size=(4, 16))

  def draw(count):
    noise = 0.01 * rng.normal(size=(count, 16))
    return centres[rng.integers(4, size=count)] + noise

  real, fake = draw(300), draw(250)
  strictly = _shares(real, fake, 5, np.less)
  scores = manifold.density_coverage(real, fake)
  np.testing.assert_allclose(scores["density"], strictly.sum(1).mean() / 5)
  np.testing.assert_allclose(scores["coverage"], strictly.any(0).mean())
  assert 0.8 < scores["density"] < 1.2  # both sets are of one distribution
  scores = manifold.precision_recall(real, fake)
  for name, sets in (("precision", (real, fake)), ("recall", (fake, real))):
    expected = _shares(*sets, 3, np.less_equal).any(1).mean()
    np.testing.assert_allclose(scores[name], expected)
