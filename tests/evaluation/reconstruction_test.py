"""Tests of evaluation/reconstruction.py."""

import numpy as np
import pytest

from evaluation import reconstruction


def _video(seed=0, shape=(2, 3, 16, 16, 3)):
  return np.random.default_rng(seed).random(shape)


def test_psnr_is_per_frame_in_decibels():
  a = np.zeros((1, 2, 4, 4, 3))
  b = a.copy()
  b[:, 0] = 0.1  # mse 0.01: 20 dB
  np.testing.assert_allclose(
    reconstruction.psnr(a, b), [[20.0, reconstruction.PSNR_CAP]]
  )


def test_masked_psnr_counts_the_region_only():
  a = np.zeros((1, 2, 4, 4, 3))
  b = a.copy()
  b[:, 0] = 1.0
  b[:, 1, :2] = 0.1
  region = np.zeros((2, 4, 4), bool)
  region[1, :2] = True
  np.testing.assert_allclose(reconstruction.masked_psnr(a, b, region), [20.0])


def test_ssim_of_constant_frames_has_a_closed_form():
  """Only the luminance term is left: (2 a b + c1) / (a^2 + b^2 + c1)."""
  a, b = np.full((1, 1, 16, 16, 3), 0.2), np.full((1, 1, 16, 16, 3), 0.6)
  expected = (2 * 0.2 * 0.6 + 1e-4) / (0.2**2 + 0.6**2 + 1e-4)
  for mode in ("rgb", "magvit_gray"):
    got = reconstruction.ssim(a, b, mode)
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
  got = reconstruction.ssim(a, b, "rgb")
  np.testing.assert_allclose(got, [[np.mean(values)]], rtol=1e-9)


def test_identical_clips_are_perfect():
  a = _video()
  np.testing.assert_allclose(reconstruction.ssim(a, a), 1.0)
  assert (reconstruction.psnr(a, a) == reconstruction.PSNR_CAP).all()


def test_codebook_use_stands_beside_its_token_count():
  ids = np.array([[0, 0, 1, 1], [2, 2, 3, 3]])
  use = reconstruction.codebook(ids, vocabulary=16)
  assert use["usage"] == 4 / 16 and use["tokens"] == 8
  np.testing.assert_allclose(use["entropy_bits"], 2.0)
  np.testing.assert_allclose(use["perplexity"], 4.0)
  collapsed = reconstruction.codebook(np.zeros(100, int), vocabulary=16)
  assert collapsed["entropy_bits"] == 0.0 and collapsed["codes_used"] == 1


@pytest.mark.parametrize(
  "a, b, message",
  [
    (_video(), _video()[:, :2], "same shape"),
    (_video(), 255 * _video(), r"output must be floating point in \[0, 1\]"),
    ((255 * _video()).astype(np.uint8), _video(), "got uint8"),
  ],
)
def test_pairs_that_cannot_be_compared_are_refused(a, b, message):
  with pytest.raises(ValueError, match=message):
    reconstruction.psnr(a, b)


def test_ssim_of_frames_smaller_than_its_window_is_refused():
  small = np.zeros((1, 1, 8, 8, 3))
  with pytest.raises(ValueError, match="at least 11 x 11 pixels, got 8 x 8"):
    reconstruction.ssim(small, small)
