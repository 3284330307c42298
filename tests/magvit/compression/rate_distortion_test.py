"""Tests of magvit/compression/rate_distortion.py."""

import io

import numpy as np
from PIL import Image

from magvit.compression import rate_distortion


def _row(video, curve, point, bpp, psnr, lpips=None):
  return {
    **{"video": video, "curve": curve, "point": point, "bpp": bpp},
    **{"psnr": psnr, "ms_ssim": None, "lpips": lpips},
  }


def _rows(curve, factor, lpips=True):
  """Two videos on one curve of 4 points, with rates times a factor."""
  return [
    _row(
      *(video, curve, f"qp {qp}", factor * rate * share, 50 - qp / 2),
      qp / 100 if lpips else None,
    )
    for video, share in (("a", 1.0), ("b", 3.0))
    for qp, rate in ((20, 0.8), (30, 0.2), (40, 0.05), (45, 0.02))
  ]


def test_points_are_means_over_videos_by_rate():
  curves = rate_distortion.mean_curves(_rows("x265", 1.0))
  points = curves["x265"]
  assert [p["point"] for p in points] == ["qp 45", "qp 40", "qp 30", "qp 20"]
  np.testing.assert_allclose([p["bpp"] for p in points], [0.04, 0.1, 0.4, 1.6])
  assert all(p["videos"] == 2 and p["ms_ssim"] is None for p in points)


def test_pairs_are_compared_and_a_single_point_says_why_not():
  rows = [*_rows("x265", 1.0), *_rows("vvenc", 0.5)]
  rows.append(_row("a", "tokens", "one", 0.1, 30.0, 0.3))
  results = rate_distortion.compare(rate_distortion.mean_curves(rows))
  assert set(results) == {"psnr", "lpips"}  # MS-SSIM was not measured
  for metric in results.values():
    np.testing.assert_allclose(metric["vvenc against x265"]["percent"], -50.0)
    assert "has 1 points" in metric["tokens against x265"]["none"]


def test_a_metric_that_one_curve_lacks_is_not_compared():
  rows = [*_rows("x265", 1.0), *_rows("vvenc", 0.5, lpips=False)]
  curves = rate_distortion.mean_curves(rows)
  assert set(rate_distortion.compare(curves)) == {"psnr"}


def test_values_at_a_rate():
  curves = rate_distortion.mean_curves(_rows("x265", 1.0))
  got = rate_distortion.at_rate(curves, 0.4)
  np.testing.assert_allclose(got["psnr"]["x265"], 35.0)
  assert "outside" in rate_distortion.at_rate(curves, 9.0)["psnr"]["x265"]


def test_the_plot_has_a_panel_for_each_measured_metric():
  sizes = []
  for lpips in (False, True):
    curves = rate_distortion.mean_curves(_rows("x265", 1.0, lpips))
    png = rate_distortion.plot(curves)
    sizes.append(Image.open(io.BytesIO(png)).size)
  assert sizes[1] == (2 * sizes[0][0], sizes[0][1])
