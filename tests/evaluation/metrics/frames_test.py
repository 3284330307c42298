"""Tests of evaluation/metrics/frames.py."""

import numpy as np
import pytest

from evaluation.metrics import frames as frame_metrics
from tests.evaluation.metrics import frames_reference

# Both sides compute in float64 and agree to 1e-14; a window of float32 makes
# 5e-6, another convention 1e-4 and more.
_RTOL = 1e-6


def _video(seed=0, shape=(2, 3, 16, 16, 3)):
  return np.random.default_rng(seed).random(shape)


def test_psnr_is_per_frame_in_decibels():
  a = np.zeros((1, 2, 4, 4, 3))
  b = a.copy()
  b[:, 0] = 0.1  # mse 0.01: 20 dB
  np.testing.assert_allclose(
    frame_metrics.psnr(a, b), [[20.0, frame_metrics.PSNR_CAP]]
  )


def test_masked_psnr_counts_the_region_only():
  a = np.zeros((1, 2, 4, 4, 3))
  b = a.copy()
  b[:, 0] = 1.0
  b[:, 1, :2] = 0.1
  region = np.zeros((2, 4, 4), bool)
  region[1, :2] = True
  np.testing.assert_allclose(frame_metrics.masked_psnr(a, b, region), [20.0])


def test_ssim_of_constant_frames_has_a_closed_form():
  """Only the luminance term is left: (2 a b + c1) / (a^2 + b^2 + c1)."""
  a, b = np.full((1, 1, 16, 16, 3), 0.2), np.full((1, 1, 16, 16, 3), 0.6)
  expected = (2 * 0.2 * 0.6 + 1e-4) / (0.2**2 + 0.6**2 + 1e-4)
  for mode in frame_metrics.SSIM_MODES:
    got = frame_metrics.ssim(a, b, mode)
    np.testing.assert_allclose(got, [[expected]], rtol=1e-9)


def test_ssim_is_the_windowed_definition():
  a, b = _video(0)[:1, :1], _video(1)[:1, :1]
  offsets = np.arange(11) - 5
  g = np.exp(-(offsets**2) / 4.5)
  window = np.outer(g, g) / g.sum() ** 2
  values = []
  for i, j, c in np.ndindex(6, 6, 3):
    x, y = (v[0, 0, i : i + 11, j : j + 11, c] for v in (a, b))
    mx, my = (window * x).sum(), (window * y).sum()
    vx, vy = (window * (x - mx) ** 2).sum(), (window * (y - my) ** 2).sum()
    cov = (window * (x - mx) * (y - my)).sum()
    value = (2 * mx * my + 1e-4) * (2 * cov + 9e-4)
    values.append(value / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4)))
  got = frame_metrics.ssim(a, b, "rgb")
  np.testing.assert_allclose(got, [[np.mean(values)]], rtol=1e-9)


def _by_name(name, a, b):
  if name == "ms_ssim":
    return frame_metrics.ms_ssim(a, b)[0]
  return frame_metrics.ssim(a, b, name)[0]


@pytest.mark.parametrize("name", frames_reference.RECORDED)
def test_each_convention_is_that_of_its_reference_package(name):
  got = _by_name(name, *frames_reference.videos())
  np.testing.assert_allclose(got, frames_reference.RECORDED[name], rtol=_RTOL)


def test_the_recorded_numbers_are_what_the_packages_measure():
  for package in ("pytorch_msssim", "skimage", "torchmetrics"):
    pytest.importorskip(package)
  measured = frames_reference.measure()
  for name, values in measured.items():
    expected = frames_reference.RECORDED[name.split()[0]]
    np.testing.assert_allclose(values, expected, rtol=_RTOL)


def test_ms_ssim_of_constant_frames_is_the_coarsest_luminance():
  a, b = np.full((1, 1, 176, 176, 3), 0.2), np.full((1, 1, 176, 176, 3), 0.6)
  luminance = (2 * 0.2 * 0.6 + 1e-4) / (0.2**2 + 0.6**2 + 1e-4)
  got = frame_metrics.ms_ssim(a, b)
  np.testing.assert_allclose(got, [[luminance**0.1333]], rtol=1e-9)


def test_ms_ssim_of_a_frame_and_its_negative_is_0():
  a = _video(shape=(1, 1, 176, 176, 3))
  assert frame_metrics.ms_ssim(a, 1.0 - a) == 0.0


def test_frames_are_measured_one_by_one(monkeypatch):
  a, b = _video(0), _video(1)
  metrics = (frame_metrics.psnr, frame_metrics.ssim)
  whole = [metric(a, b) for metric in metrics]
  monkeypatch.setattr(frame_metrics, "_VALUES_AT_ONCE", 1)
  for metric, expected in zip(metrics, whole, strict=True):
    assert expected.shape == (2, 3)
    np.testing.assert_array_equal(metric(a, b), expected)
    np.testing.assert_array_equal(
      metric(a[1:, :1], b[1:, :1]), expected[1:, :1]
    )


def test_identical_clips_are_perfect():
  a = _video()
  np.testing.assert_allclose(frame_metrics.ssim(a, a), 1.0)
  assert (frame_metrics.psnr(a, a) == frame_metrics.PSNR_CAP).all()


def test_codebook_use_stands_beside_its_token_count():
  ids = np.array([[0, 0, 1, 1], [2, 2, 3, 3]])
  use = frame_metrics.codebook(ids, vocabulary=16)
  assert use["usage"] == 4 / 16 and use["tokens"] == 8
  np.testing.assert_allclose(use["entropy_bits"], 2.0)
  np.testing.assert_allclose(use["perplexity"], 4.0)
  collapsed = frame_metrics.codebook(np.zeros(100, int), vocabulary=16)
  assert collapsed["entropy_bits"] == 0.0 and collapsed["codes_used"] == 1


@pytest.mark.parametrize(
  "a, b, message",
  [
    (_video(), _video()[:, :2], r"\(2, 3, 16, 16, 3\) and \(2, 2"),
    (_video(), 255 * _video(), r"output\[0, 0, 0.* in \[0, 1\]"),
    ((255 * _video()).astype(np.uint8), _video(), r"video .* uint8 in \[0, 25"),
  ],
)
def test_pairs_that_cannot_be_compared_are_refused(a, b, message):
  with pytest.raises(ValueError, match=message):
    frame_metrics.psnr(a, b)


def test_frames_smaller_than_the_window_are_refused():
  small = np.zeros((1, 1, 8, 8, 3))
  with pytest.raises(ValueError, match="SSIM .* 11 x 11 .* 8 x 8"):
    frame_metrics.ssim(small, small)
  assert frame_metrics.ssim(small, small, "uniform7") == 1.0
  small = np.zeros((1, 1, 160, 200, 3))
  with pytest.raises(ValueError, match="MS-SSIM .*161 x 161.*160 x 200"):
    frame_metrics.ms_ssim(small, small)


def test_unknown_conventions_are_refused():
  a = _video()
  with pytest.raises(ValueError, match="mode='gray'.*'rgb'.*'reflect"):
    frame_metrics.ssim(a, a, "gray")
