"""Tests of benchmarks/film_bound.py: closed forms of reverse water-filling."""

import numpy as np
import pytest

from benchmarks import film_bound


@pytest.mark.parametrize("bits", [0.0, 1.0, 18.0])
def test_equal_variances_share_the_bits(bits):
  variances = np.full(4, 0.3)
  expected = 0.3 * 2 ** (-2 * bits / 4)
  distortion = film_bound.gaussian_distortion(variances, bits)
  assert distortion == pytest.approx(expected, rel=1e-12)


def test_a_component_below_the_water_takes_no_bits():
  # One bit for the first brings it from 1 to 1/4; from there on both sink.
  variances = np.array([1 / 4, 0.0, 1.0])
  assert film_bound.gaussian_distortion(variances, 1.0) == 0.5 / 3
  assert film_bound.gaussian_distortion(variances, 3.0) == 0.125 / 3


def test_the_water_holds_the_bits_of_any_variances():
  variances = np.random.default_rng(0).exponential(size=50) ** 3
  distortion = film_bound.gaussian_distortion(variances, 20.0)
  # The level that has this distortion, by halving, and the bits of it.
  low, high = 0.0, variances.max()
  for _ in range(60):
    level = (low + high) / 2
    if np.minimum(variances, level).mean() > distortion:
      high = level
    else:
      low = level
  bits = np.log2(np.maximum(variances / level, 1)).sum() / 2
  assert bits == pytest.approx(20.0, rel=1e-9)


def test_blocks_are_cut_from_clips_in_time_and_space():
  video = np.arange(2 * 4 * 4 * 6 * 3).reshape(2, 4, 4, 6, 3) % 251
  blocks = film_bound.blocks(video, (2, 2, 3))
  assert blocks.shape == (2 * 2 * 2 * 2, 2 * 2 * 3 * 3)
  np.testing.assert_array_equal(
    blocks[1].reshape(2, 2, 3, 3), video[0, :2, :2, 3:]
  )
  np.testing.assert_array_equal(
    blocks[-1].reshape(2, 2, 3, 3), video[1, 2:, 2:, 3:]
  )


def test_noise_of_one_variance_has_its_psnr():
  rng = np.random.default_rng(0)
  blocks = (rng.normal(size=(40_000, 8)) * 25.5).astype(np.float32)
  # 0.1 of the range: 20 dB, and 6.02 dB for each bit of a component.
  psnr = film_bound.psnr_of_gaussian_code(blocks, 8.0)
  assert psnr == pytest.approx(26.02, abs=0.05)
