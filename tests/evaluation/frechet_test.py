"""Tests of evaluation/frechet.py: closed forms."""

import numpy as np
import pytest
from scipy import linalg

from evaluation import frechet


def _gaussian(seed, n, d, scale=1.0, shift=0.0):
  return shift + scale * np.random.default_rng(seed).normal(size=(n, d))


def test_distance_of_diagonal_gaussians_has_a_closed_form():
  """sum (m1 - m2)^2 + (s1 - s2)^2 where covariances are diagonal."""
  a = frechet.Statistics(11, np.array([1.0, 2.0]), 10 * np.diag([4.0, 9.0]))
  b = frechet.Statistics(21, np.array([0.0, 4.0]), 20 * np.diag([1.0, 25.0]))
  np.testing.assert_allclose(frechet.distance(a, b), 1 + 4 + 1 + 4, rtol=1e-12)


def test_distance_equals_the_matrix_square_root_form():
  a = frechet.statistics(_gaussian(0, 500, 12, 2.0))
  b = frechet.statistics(_gaussian(1, 400, 12, 1.0, 0.3))
  root = linalg.sqrtm(a.covariance @ b.covariance).real
  expected = np.square(a.mean - b.mean).sum() + np.trace(
    a.covariance + b.covariance - 2 * root
  )
  np.testing.assert_allclose(frechet.distance(a, b), expected, rtol=1e-9)


@pytest.mark.parametrize("examples", [10, 500])
def test_distance_to_itself_is_zero_also_when_rank_deficient(examples):
  a = frechet.statistics(_gaussian(0, examples, 64, 10.0))
  assert -1e-8 < frechet.distance(a, a) < 1e-8


def test_rank_deficient_distance_has_the_closed_form_of_its_subspace():
  x, y = _gaussian(0, 300, 5), _gaussian(1, 300, 5, 3.0)
  basis = np.linalg.qr(_gaussian(2, 40, 5))[0]  # 5 directions of 40
  inside = frechet.distance(frechet.statistics(x), frechet.statistics(y))
  embedded = frechet.distance(
    frechet.statistics(x @ basis.T), frechet.statistics(y @ basis.T)
  )
  np.testing.assert_allclose(embedded, inside, rtol=1e-9)


def test_merged_parts_equal_the_whole_even_far_from_zero():
  x = _gaussian(0, 1000, 6, 0.01, 1000.0)
  whole = frechet.statistics(x)
  merged = frechet.merge(
    frechet.statistics(part) for part in np.split(x, [1, 17, 400])
  )
  assert merged.count == 1000
  np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-14)
  np.testing.assert_allclose(merged.covariance, whole.covariance, rtol=1e-8)
  np.testing.assert_allclose(whole.covariance, np.cov(x.T), rtol=1e-10)


def test_impossible_inputs_are_refused():
  one = frechet.statistics(np.zeros((1, 3)))
  two = frechet.statistics(np.zeros((2, 3)))
  with pytest.raises(ValueError, match="at least 2 examples .* got 1 and 2"):
    frechet.distance(one, two)
  with pytest.raises(ValueError, match="same dimension, got 3 and 4"):
    frechet.distance(two, frechet.statistics(np.zeros((2, 4))))
  with pytest.raises(ValueError, match="with at least one example"):
    frechet.statistics(np.zeros((0, 3)))
