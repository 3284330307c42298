"""Tests of evaluation/metrics/bd_rate.py."""

import numpy as np
import pytest

from evaluation.metrics import bd_rate

_HEVC = (
  [0.012, 0.02, 0.0384, 0.07, 0.13, 0.25],  # bits per pixel
  [28.1, 30.0, 32.07, 34.2, 36.4, 38.3],  # dB
)
_VVC = (
  [0.011, 0.017, 0.03, 0.055, 0.1, 0.2],
  [28.6, 30.3, 32.3, 34.3, 36.3, 38.5],
)
_HEVC_LPIPS = [0.31, 0.26, 0.199, 0.15, 0.11, 0.08]
_VVC_LPIPS = [0.29, 0.25, 0.17, 0.13, 0.1, 0.07]


def _without_first(curve):
  return tuple(values[1:] for values in curve)


# Values by bd_rate of the package bjontegaard 1.3.0, method pchip, with LPIPS
# negated.
_RECORDED = [
  (_HEVC, _VVC, False, -23.188087536293832),
  (_VVC, _without_first(_HEVC), False, 31.238674775911356),
  ((_HEVC[0], _HEVC_LPIPS), (_VVC[0], _VVC_LPIPS), True, -35.23979568264936),
]


@pytest.mark.parametrize("anchor, curve, lower_is_better, expected", _RECORDED)
def test_bd_rate_is_that_of_the_reference_package(
  anchor, curve, lower_is_better, expected
):
  got = bd_rate.bd_rate(anchor, curve, lower_is_better)
  # Two forms of one float64 integral: they agree to 1e-12.
  np.testing.assert_allclose(got.percent, expected, rtol=1e-6)


def test_the_recorded_numbers_are_the_packages():
  bjontegaard = pytest.importorskip("bjontegaard")
  for anchor, curve, lower_is_better, expected in _RECORDED:
    sign = -1.0 if lower_is_better else 1.0
    (r1, q1), (r2, q2) = anchor, curve
    got = bjontegaard.bd_rate(
      *(r1, sign * np.array(q1), r2, sign * np.array(q2)),
      method="pchip",
      require_matching_points=False,
    )
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_a_curve_of_half_the_rate_is_minus_50_percent_in_any_order():
  rates, qualities = _HEVC
  halved = ([r / 2 for r in rates][::-1], qualities[::-1])
  got = bd_rate.bd_rate(_HEVC, halved)
  np.testing.assert_allclose([got.percent, got.overlap], [-50.0, 1.0])


def test_overlap_is_a_share_of_all_qualities():
  got = bd_rate.bd_rate(_HEVC, _VVC)
  expected = (38.3 - 28.6) / (38.5 - 28.1)
  np.testing.assert_allclose(got.overlap, expected)


@pytest.mark.parametrize(
  "curve, lower_is_better, message",
  [
    ((_VVC[0][:3], _VVC[1][:3]), False, "the curve has 3 points.*at least 4"),
    ((_VVC[0], [28, 30, 29, 34, 36, 38]), False, "from 30 at 0.017 to 29 at"),
    (_VVC, True, "the curve.* from 28.6 at 0.011 to 30.3 at 0.017"),
    ((_VVC[0], [q + 4 for q in _VVC[1]]), False, "32.6..42.5 overlap by 40%"),
    ((_VVC[0], [q + 20 for q in _VVC[1]]), False, "overlap by 0%"),
    ((_VVC[0], _VVC[1][:5]), False, r"rates of shape \(6,\) .* \(5,\)"),
    (([0.0, *_VVC[0][1:]], _VVC[1]), False, r"the curve .*rates \[0.0, 0.017"),
    (([0.017, *_VVC[0][1:]], _VVC[1]), False, r"rates \[0.017, 0.017"),
    ((_VVC[0], [np.nan, *_VVC[1][1:]]), False, r"qualities \[nan, 30.3"),
  ],
)
def test_curves_without_a_bd_rate_are_refused(curve, lower_is_better, message):
  with pytest.raises(ValueError, match=message):
    anchor = (_HEVC[0], _HEVC_LPIPS) if lower_is_better else _HEVC
    bd_rate.bd_rate(anchor, curve, lower_is_better)


def test_the_quality_at_a_rate_is_linear_in_the_logarithm_on_a_line():
  rates, qualities = [0.01, 0.02, 0.08, 0.16], [30.0, 31.0, 33.0, 34.0]
  got = bd_rate.quality_at(rates[::-1], qualities[::-1], 0.04)
  np.testing.assert_allclose(got, 32.0)
  for rate, quality in zip(rates, qualities, strict=True):
    np.testing.assert_allclose(
      bd_rate.quality_at(rates, qualities, rate), quality
    )


def test_rates_outside_the_curve_are_refused():
  for rate in (0.009, 0.3):
    with pytest.raises(
      ValueError, match=f"rate={rate} is outside.*0.012..0.25"
    ):
      bd_rate.quality_at(*_HEVC, rate)
  with pytest.raises(ValueError, match="curve of 1 points.* 2 points"):
    bd_rate.quality_at([0.1], [30.0], 0.1)
