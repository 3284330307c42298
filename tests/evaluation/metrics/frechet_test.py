"""Tests of evaluation/metrics/frechet.py: closed forms."""

import numpy as np
import pytest
from scipy import linalg

from evaluation.metrics import frechet


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
  x = _gaussian(0, examples, 64, 10.0)
  a = frechet.statistics(x)
  assert -1e-8 < frechet.distance(a, a) < 1e-8
  parts = frechet.merge(map(frechet.statistics, np.split(x, [1, 7])))
  assert -1e-8 < frechet.distance(a, parts) < 1e-8


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


def _direct_distance(x, y):
  """The distance straight from centred data, by an n x n singular value sum."""
  mx, my = x.mean(0), y.mean(0)
  a = (x - mx) / np.sqrt(len(x) - 1)
  b = (y - my) / np.sqrt(len(y) - 1)
  nuclear = np.linalg.svd(a @ b.T, compute_uv=False).sum()
  total = np.square(mx - my).sum() + np.square(a).sum() + np.square(b).sum()
  return total - 2 * nuclear


@pytest.mark.parametrize(
  "d, shift",
  [
    (300, 0.0),
    (300, 1000.0),
    pytest.param(2048, 1000.0, marks=pytest.mark.slow),
  ],
)
def test_fewer_samples_than_dimensions_equal_the_form_of_the_data(d, shift):
  """1e-9 is what published digits could need; about 1e-13 is seen."""
  mix = np.exp(-np.arange(d) / d * 8)  # a spectrum like those of features
  x, y = (
    _gaussian(0, 90, d) * mix + shift,
    _gaussian(1, 70, d, 1.1) * mix + shift,
  )
  a, b = frechet.statistics(x), frechet.statistics(y)
  np.testing.assert_allclose(
    frechet.distance(a, b), _direct_distance(x, y), rtol=1e-9
  )


def test_full_rank_distance_has_a_closed_form():
  """Covariances that commute: sum (sqrt l1 - sqrt l2)^2 of eigenvalues."""
  basis = np.linalg.qr(_gaussian(0, 300, 300))[0]
  l1, l2 = np.exp(3 * _gaussian(1, 2, 300))
  zero = np.zeros(300)
  a = frechet.Gaussian(zero, (basis * l1) @ basis.T)
  b = frechet.Gaussian(zero + 0.1, (basis * l2) @ basis.T)
  expected = 3.0 + np.square(np.sqrt(l1) - np.sqrt(l2)).sum()
  np.testing.assert_allclose(frechet.distance(a, b), expected, rtol=1e-9)
  assert abs(frechet.distance(a, a)) < 1e-8


def test_streamed_statistics_equal_those_of_the_whole():
  x = _gaussian(0, 1000, 6, 0.3, 5.0).astype(np.float32)
  whole, streamed = frechet.statistics(x), frechet.streamed(x, rows=64)
  assert streamed.count == whole.count
  np.testing.assert_allclose(streamed.mean, whole.mean, rtol=1e-10)
  np.testing.assert_allclose(streamed.covariance, whole.covariance, rtol=1e-10)


def test_population_covariance_divides_by_the_count():
  x = _gaussian(0, 20, 3)
  gaussian = frechet.statistics(x).gaussian(0)
  np.testing.assert_allclose(gaussian.covariance, np.cov(x.T, ddof=0))


def test_statistics_come_back_from_their_file(tmp_path):
  pool = frechet.statistics(_gaussian(0, 50, 4))
  spatial = frechet.statistics(_gaussian(1, 50, 3))
  path = tmp_path / "reference.npz"
  frechet.save(path, {"": pool, "_s": spatial})
  assert abs(frechet.distance(frechet.load(path, "", 4), pool)) < 1e-12
  assert abs(frechet.distance(frechet.load(path, "_s", 3), spatial)) < 1e-12


def test_statistics_of_something_else_are_refused_by_name(tmp_path):
  path = tmp_path / "reference.npz"
  frechet.save(path, {"": frechet.statistics(_gaussian(0, 50, 4))})
  with pytest.raises(ValueError, match=r"reference.npz .*mu .*2048,\).*\(4,"):
    frechet.load(path, "", 2048)
  with pytest.raises(ValueError, match=r"reference.npz .*mu_s .*mu, sigma\)"):
    frechet.load(path, "_s", 4)
  path.write_bytes(b"nothing of the kind")
  with pytest.raises(ValueError, match="cannot read .*reference.npz as .npz"):
    frechet.load(path, "", 4)


def test_impossible_inputs_are_refused():
  one = frechet.statistics(np.zeros((1, 3)))
  two = frechet.statistics(np.zeros((2, 3)))
  with pytest.raises(ValueError, match="2 examples, got 1"):
    frechet.distance(one, two)
  with pytest.raises(ValueError, match="dimension, got 3 and 4"):
    frechet.distance(two, frechet.statistics(np.zeros((2, 4))))
  with pytest.raises(ValueError, match=r"features of shape \(0, 3\)"):
    frechet.statistics(np.zeros((0, 3)))
