"""Tests of evaluation/protocols/measures.py: published rules and names."""

import numpy as np
import pytest

from evaluation.metrics import frechet
from evaluation.protocols import measures
from evaluation.protocols import table as protocol_table


@pytest.mark.parametrize(
  "name, num, folds, frames, network",
  [
    ("adm_imagenet", 50_000, 1, 1, "inception"),
    ("rfid_imagenet_val", 50_000, 1, 1, "inception"),
    ("pfid", 50_000, 1, 1, "inception"),
    ("magvit_ucf101_fvd", 10_000, 4, 16, "i3d"),
    ("magvit_k600_fvd", 50_000, 4, 16, "i3d"),
    ("bair_fvd", 25_600, 4, 16, "i3d"),
    ("styleganv_fvd", 2_048, 1, 16, "i3d"),
    ("ucf101_rfvd", 10_000, 1, 16, "i3d"),
    ("is_c3d", 10_000, 4, 16, "c3d"),
  ],
)
def test_sizes_are_those_of_the_tables(name, num, folds, frames, network):
  p = protocol_table.get(name)
  assert (p.num, p.folds, p.frames, p.network) == (num, folds, frames, network)


def test_rules_that_move_scores_most():
  get = protocol_table.get
  assert get("magvit_ucf101_fvd").splits == ("train",)
  assert get("magvit_ucf101_fvd").window == "random"
  k600 = get("magvit_k600_fvd")
  assert k600.resize == 64 and (k600.window, k600.crop) == ("ends", "three")
  assert get("bair_fvd").window == "first" and get("bair_fvd").real_num == -1
  assert get("styleganv_fvd").ddof == 0
  assert get("styleganv_fvd").splits == ("train", "held_out")
  assert get("adm_imagenet").uint8 == "truncate"
  assert get("rfid_imagenet_val").splits == ("held_out",)
  assert all(
    p.measure in measures.MEASURES for p in protocol_table.PROTOCOLS.values()
  )
  with pytest.raises(ValueError, match="'fid' .*'adm_imagenet'"):
    get("fid")


def test_only_the_whole_protocol_bears_its_name():
  protocol = protocol_table.get("magvit_ucf101_fvd")
  name = lambda **actual: protocol_table.reported_name(protocol, actual)
  assert name(num=10_000, folds=4) == "magvit_ucf101_fvd"
  assert name(num=10_000, folds=4, dataset="ucf101") == "magvit_ucf101_fvd"
  assert name(num=256, folds=1) == "magvit_ucf101_fvd@256x1"
  assert name(num=10_000, folds=1) == "magvit_ucf101_fvd@10000x1"
  assert (
    name(num=8, folds=4, dataset="digits", window="first")
    == "magvit_ucf101_fvd@8x4,dataset=digits,window=first"
  )
  open_one = protocol_table.get("reconstruction")
  actual = {"num": 256, "folds": 1, "dataset": "digits"}
  assert protocol_table.reported_name(open_one, actual) == "reconstruction"


def _features(seed, num=40, width=3, shift=0.0):
  x = np.random.default_rng(seed).normal(shift, 1, (num, width))
  return x.astype(np.float32)


def test_fvd_pairs_folds_and_reports_their_mean_and_spread():
  protocol = protocol_table.get("magvit_ucf101_fvd")
  made = [{"logits": _features(i)} for i in range(2)]
  real = [{"logits": _features(i, shift=i + 1.0)} for i in range(2)]
  scores = measures.measure(protocol, made, measures.Real(real))
  # Fold i differs from its real clips by a shift alone, in 3 dimensions.
  np.testing.assert_allclose(scores["fvd_fold_0"], 3.0, rtol=1e-5)
  np.testing.assert_allclose(scores["fvd_fold_1"], 12.0, rtol=1e-5)
  np.testing.assert_allclose(scores["fvd"], 7.5, rtol=1e-5)
  np.testing.assert_allclose(scores["fvd_std"], 4.5, rtol=1e-5)


def test_styleganv_divides_by_n():
  made, real = {"logits": _features(0)}, {"logits": _features(1)}
  score = lambda name: measures.measure(
    protocol_table.get(name), [made], measures.Real([real])
  )["fvd"]
  stats = [frechet.statistics(f["logits"]).gaussian(0) for f in (made, real)]
  np.testing.assert_allclose(score("styleganv_fvd"), frechet.distance(*stats))
  assert score("styleganv_fvd") != score("magvit_ucf101_fvd")


def test_published_statistics_go_before_the_clips_beside_them():
  """ADM's reference has 10,000 clips, and statistics of the whole set."""
  features = lambda seed: {
    "pool3": _features(seed),
    "spatial": _features(seed, width=2),
    "logits": _features(seed, width=5),
  }
  made = features(0)
  gaussians = {
    "": frechet.statistics(made["pool3"] + 2.0),
    "_s": frechet.statistics(made["spatial"] + 1.0),
  }
  protocol = protocol_table.get("adm_imagenet")
  real = measures.Real([features(1)], gaussians)
  scores = measures.measure(protocol, [made], real)
  np.testing.assert_allclose(scores["fid"], 12.0, rtol=1e-5)
  np.testing.assert_allclose(scores["sfid"], 2.0, rtol=1e-5)
  assert {"precision", "recall", "density", "coverage"} <= set(scores)
  alone = measures.Real(None, {"": gaussians[""]})
  scores = measures.measure(protocol, [made], alone)
  assert "sfid" not in scores and "precision" not in scores
  reasons = measures.left_out(protocol, scores, made, alone)
  assert set(reasons) >= {"sfid", "precision", "coverage", "kid", "kid_std"}
  assert "mu_s" in reasons["sfid"] and "statistics alone" in reasons["kid"]
  assert not set(reasons) & set(scores)


def test_perturbed_codes_are_the_nearest_in_a_fixed_order():
  ids = np.full((50, 40, 10), 0b101)
  rng = lambda: np.random.default_rng(0)
  out = measures.perturb_ids(ids, 18, 1.0, rng())
  flips = np.bitwise_count(out ^ ids)
  assert set(np.unique(flips)) == {0, 1, 2}
  assert len(np.unique(out)) == protocol_table.DELTA == 1 + 18 + 81
  # Pairs of flips that begin with bits 0 to 4 come first: 17 + 16 + ... = 75.
  pairs = (out ^ ids)[flips == 2]
  assert (pairs & -pairs).max() == 1 << 5
  np.testing.assert_array_equal(measures.perturb_ids(ids, 18, 0.0, rng()), ids)
  half = measures.perturb_ids(ids, 18, 0.5, rng())
  assert abs((half != ids).mean() - 0.5 * 0.99) < 0.02
  small = measures.perturb_ids(ids % 4, 2, 1.0, rng())
  assert set(np.unique(small)) == {0, 1, 2, 3}


def test_pixel_scores_leave_out_what_does_not_fit():
  video = np.random.default_rng(0).integers(0, 256, (2, 3, 16, 16, 3), np.uint8)
  scores = measures.pixel_scores(video, video)
  assert "ms_ssim" not in scores and scores["psnr"].shape == (2, 1)
  np.testing.assert_allclose(scores["ssim_rgb"], 1.0)
  np.testing.assert_allclose(scores["psnr"], 100.0)
