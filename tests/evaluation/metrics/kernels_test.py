"""Tests of evaluation/metrics/kernels.py: peers' numbers, and identities."""

import numpy as np
import pytest

from evaluation.metrics import kernels
from tests.evaluation.metrics import distances_reference as reference


def _sets():
  return reference.features(1, 500), reference.features(2, 600)


def test_kid_is_that_of_torch_fidelity():
  scores = kernels.kid(*_sets(), subsets=100, subset_size=200)
  expected = reference.RECORDED["kid"]
  np.testing.assert_allclose(
    [scores["kid"], scores["kid_std"]], expected, rtol=1e-6
  )


def test_cmmd_and_polynomial_mmd_are_those_of_scikit_learns_kernels():
  x, y = _sets()
  np.testing.assert_allclose(
    kernels.polynomial_mmd(x, y), reference.RECORDED["poly2"], rtol=1e-6
  )
  x, y = (
    np.float64(z) / np.linalg.norm(np.float64(z), axis=1, keepdims=True)
    for z in (x, y)
  )
  np.testing.assert_allclose(
    kernels.cmmd(x, y), reference.RECORDED["cmmd"], rtol=1e-6
  )


def test_mmd_does_not_depend_on_the_block(monkeypatch):
  x, y = _sets()
  whole = kernels.polynomial_mmd(x, y)
  monkeypatch.setattr(kernels, "_ROWS", 33)
  np.testing.assert_allclose(kernels.polynomial_mmd(x, y), whole, rtol=1e-12)


def test_mmd_of_a_set_with_itself_is_zero():
  x, _ = _sets()
  assert abs(kernels.polynomial_mmd(x, x)) < 1e-12


def test_sets_that_do_not_fit_are_refused():
  x, y = _sets()
  with pytest.raises(ValueError, match="subsets of 1000 .* 500 and 600"):
    kernels.kid(x, y)
  with pytest.raises(ValueError, match=r"\(500, 16\) and \(600, 3\)"):
    kernels.polynomial_mmd(x, y[:, :3])
  with pytest.raises(ValueError, match=r"length 1, .* first .*\[1.556, 4.736"):
    kernels.cmmd(x, y)
