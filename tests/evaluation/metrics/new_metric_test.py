"""Tests of a new score of frames: one function, and one line in the table.

The table is `FRAME_METRICS` of evaluation/metrics/frames.py.
"""

import json
import shutil

import numpy as np
from PIL import Image
import pytest

from evaluation import evaluators
from evaluation.metrics import frames as frame_metrics
from evaluation.protocols import measures
from evaluation.show import report
from magvit.compression import rate_distortion
from magvit.modes import reconstruct as reconstruct_mode
from magvit.tokenizer import loaded
from tests import tiny
from tests.magvit.tokenizer import frames_test


def _largest_error(video_BTHWC, output_BTHWC):
  """Largest difference in each frame, (B, T), of pixels in [0, 1]."""
  return np.abs(video_BTHWC - output_BTHWC).max((2, 3, 4))


@pytest.fixture(autouse=True)
def registered(monkeypatch):
  metric = frame_metrics.FrameMetric(
    "Largest error", _largest_error, digits=1, smallest=4, lower_is_better=True
  )
  monkeypatch.setitem(frame_metrics.FRAME_METRICS, "largest_error", metric)


@pytest.fixture
def video():
  video = np.full((2, 3, 8, 8, 3), 51, np.uint8)
  video[1, :, 0, 0] = 255
  return video


def test_it_is_among_the_scores_of_an_evaluation(video):
  black = lambda clips: {
    "video": np.zeros(clips.shape, np.float32),
    "ids": np.zeros((len(clips), 1, 2, 2), int),
  }
  scores, _ = evaluators.evaluate_reconstruction(black, [(video, 2)], 2, {})
  assert scores.metrics["largest_error"] == pytest.approx((0.2 + 1.0) / 2)
  assert "ssim" not in scores.metrics  # frames are smaller than its window


def test_it_is_among_the_scores_of_the_protocol(video):
  scores = measures.pixel_scores(video, np.zeros_like(video))
  np.testing.assert_allclose(scores["largest_error"], [[0.2], [1.0]])


def test_it_is_among_the_scores_of_files(
  tiny_tokenizer_workdir, tmp_path, monkeypatch, caplog
):
  caplog.set_level("INFO")
  workdir = shutil.copytree(tiny_tokenizer_workdir, tmp_path / "run")
  exact = frames_test.Exact(tiny.tokenizer())
  monkeypatch.setattr(loaded, "load_tokenizer", lambda path: exact)
  for name, size in (("large", 16), ("small", 3)):
    Image.new("RGB", (size, size), "red").save(tmp_path / f"{name}.png")
    path = str(tmp_path / f"{name}.png")
    reconstruct_mode.reconstruct(str(workdir), path)
  read = lambda name: json.loads(
    (workdir / "results" / f"media_{name}.json").read_text()
  )
  assert read("large")["metrics"]["mean_largest_error"] == 0.0
  assert read("large")["files"][0]["largest_error"] == 0.0
  assert read("small")["files"][0]["largest_error"] is None
  assert "mean_largest_error" not in read("small")["metrics"]
  assert "PSNR 100.00 dB, SSIM 1.000, Largest error 0.0" in caplog.text
  assert "PSNR dB   SSIM  Largest error" in caplog.text


def test_a_study_compares_rates_by_it():
  rows = [
    {
      **{"video": "a", "curve": curve, "point": str(k), "bpp": factor * k},
      **{"largest_error": 1 / k},
    }
    for curve, factor in (("a", 1.0), ("b", 2.0))
    for k in range(1, 7)
  ]
  compared = rate_distortion.compare(rate_distortion.mean_curves(rows))
  assert set(compared) == {"largest_error"}  # no other was measured
  percent = compared["largest_error"]["b against a"]["percent"]
  assert percent == pytest.approx(100.0)


def test_the_cards_of_the_report_are_those_of_the_table():
  cards = {each.metric: (each.label, each.format) for each in report.HEADLINES}
  assert cards["psnr"] == ("PSNR", "{:.2f} dB")
  assert cards["ssim"] == ("SSIM", "{:.3f}")
  assert cards["lpips"] == ("LPIPS", "{:.3f}")
  assert "ms_ssim" not in cards
