"""Tests of evaluation/protocols/run.py on files, with a tiny network."""

import dataclasses
import json
import pathlib

import numpy as np
from PIL import Image
import pytest
import safetensors.numpy

from evaluation.metrics import frechet
from evaluation.protocols import run as protocol_run
from evaluation.show import mp4
from models.features import networks as feature_networks
from tests import random_features


def _pixels(seed, *shape):
  return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def _npz(path, seed, *shape):
  np.savez(path, arr_0=_pixels(seed, *shape))
  return str(path)


def _score(tmp_path, protocol, network=None, **fields):
  request = protocol_run.Request(protocol, **fields)
  return protocol_run.score(
    str(tmp_path), request, network=network or random_features.Network()
  )


def test_someone_elses_samples_against_someone_elses_reference(tmp_path):
  made = _npz(tmp_path / "made.npz", 0, 70, 4, 4, 3)
  real = _npz(tmp_path / "real.npz", 1, 50, 4, 4, 3)
  network = random_features.Network()
  result = _score(tmp_path, "adm_imagenet", network, input=made, reference=real)
  features = [
    frechet.statistics(
      random_features.Network()(_pixels(s, n, 4, 4, 3))["pool3"]
    )
    for s, n in ((0, 70), (1, 50))
  ]
  np.testing.assert_allclose(
    result.metrics["fid"], frechet.distance(*features), rtol=1e-9
  )
  assert network.clips == 120
  path = tmp_path / "results" / "adm_imagenet@70x1.json"
  record = json.loads(path.read_text())
  protocol = record["protocol"]
  for field in (
    *("weights_sha256", "reference_sha256", "uint8_rule", "resize_rule"),
    *("num", "folds", "splits", "frames", "seed", "ddof", "versions"),
  ):
    assert protocol[field] is not None, field
  assert protocol["real_examples_per_fold"] == [50]

  again = _score(tmp_path, "adm_imagenet", network, input=made, reference=real)
  assert network.clips == 120 and again.metrics == result.metrics


def test_published_statistics_as_reference(tmp_path, monkeypatch):
  narrow = dataclasses.replace(
    feature_networks.NETWORKS["inception"], dims={"pool3": 4, "spatial": 3}
  )
  monkeypatch.setitem(feature_networks.NETWORKS, "inception", narrow)
  made = _npz(tmp_path / "made.npz", 0, 70, 4, 4, 3)
  features = random_features.Network()(_pixels(0, 70, 4, 4, 3))
  stats = {
    "": frechet.statistics(features["pool3"] + 2),
    "_s": frechet.statistics(features["spatial"]),
  }
  reference = str(tmp_path / "stats.npz")
  frechet.save(reference, stats)
  result = _score(tmp_path, "adm_imagenet", input=made, reference=reference)
  np.testing.assert_allclose(result.metrics["fid"], 16.0, rtol=1e-5)
  np.testing.assert_allclose(result.metrics["sfid"], 0.0, atol=1e-8)
  assert "precision" not in result.metrics
  assert result.protocol["reference_statistics"] == ["mu", "mu_s"]


def test_clips_are_cut_to_the_frames_of_the_protocol(tmp_path):
  """17 frames made, 16 read: what the last frame holds does not matter."""
  video = _pixels(0, 12, 17, 2, 2, 3)
  np.savez(tmp_path / "made.npz", arr_0=video)
  np.savez(tmp_path / "real.npz", arr_0=video[:, :16])
  result = _score(
    tmp_path,
    "magvit_ucf101_fvd",
    input=str(tmp_path / "made.npz"),
    reference=str(tmp_path / "real.npz"),
    folds=2,
  )
  assert result.evaluator == "magvit_ucf101_fvd@6x2"
  assert abs(result.metrics["fvd"]) < 1e-8  # fold i against fold i
  assert result.metrics["fvd_std"] < 1e-8


def test_k600_is_compared_at_64_pixels_of_the_centre(tmp_path):
  """Columns outside of the central square do not count."""
  wide = _pixels(0, 6, 16, 64, 80, 3)
  np.savez(tmp_path / "made.npz", arr_0=wide)
  np.savez(tmp_path / "real.npz", arr_0=wide[:, :, :, 8:72])
  result = _score(
    tmp_path,
    "magvit_k600_fvd",
    input=str(tmp_path / "made.npz"),
    reference=str(tmp_path / "real.npz"),
    folds=1,
  )
  assert abs(result.metrics["fvd"]) < 1e-8


def test_wrong_frame_counts_name_the_file(tmp_path):
  short = _npz(tmp_path / "short.npz", 0, 3, 12, 2, 2, 3)
  with pytest.raises(ValueError, match="short.npz holds .* of 12 .* reads 16"):
    _score(tmp_path, "is_c3d", input=short)
  with pytest.raises(ValueError, match="short.npz .* 12 frames,.*adm_imagen"):
    _score(tmp_path, "adm_imagenet", input=short, reference=short)
  with mp4.Writer(str(tmp_path / "videos" / "a.mp4"), 8) as film:
    for frame in _pixels(0, 5, 16, 16, 3):
      film.add(frame)
  with pytest.raises(ValueError, match="a.mp4.* 5 frames, and is_c3d reads 16"):
    _score(tmp_path, "is_c3d", input=str(tmp_path / "videos"), folds=1)


def test_mismatched_references_name_the_file(tmp_path):
  made = _npz(tmp_path / "made.npz", 0, 70, 4, 4, 3)
  bad = str(tmp_path / "bad.npz")
  run = lambda: _score(tmp_path, "adm_imagenet", input=made, reference=bad)
  np.savez(bad, mu=np.zeros(400), sigma=np.eye(400))
  with pytest.raises(ValueError, match=r"bad.npz .* mu .*\(2048,\).*\(400,\)"):
    run()
  np.savez(bad, other=np.zeros(3))
  with pytest.raises(ValueError, match="--reference=.*bad.npz .*arr_0.* other"):
    run()
  np.savez(bad, arr_0=np.zeros((3, 4, 4, 3)))
  with pytest.raises(ValueError, match="bad.npz.* arr_0 .*uint8.* float64"):
    run()
  pathlib.Path(bad).write_bytes(b"PK")
  with pytest.raises(ValueError, match="bad.npz as .npz"):
    run()


def test_missing_inputs_say_what_to_give(tmp_path):
  made = _npz(tmp_path / "made.npz", 0, 70, 4, 4, 3)
  with pytest.raises(ValueError, match="adm_imagenet.* --input=FILE_OR_FOLDER"):
    _score(tmp_path, "adm_imagenet", reference=made)
  with pytest.raises(ValueError, match="adm_imag.* --reference=FILE_OR_FOLDER"):
    _score(tmp_path, "adm_imagenet", input=made)
  with pytest.raises(ValueError, match="--num=80 .* 70 clips .*made.npz"):
    _score(tmp_path, "adm_imagenet", input=made, reference=made, num=80)
  with pytest.raises(ValueError, match="^'' .*inception.*--network=inception"):
    request = protocol_run.Request("adm_imagenet", input=made, reference=made)
    protocol_run.score(str(tmp_path), request)
  wrong = str(tmp_path / "wrong.safetensors")
  safetensors.numpy.save_file({"a": np.zeros(2, np.float32)}, wrong)
  with pytest.raises(ValueError, match="wrong.safetensors"):
    protocol_run.score(
      str(tmp_path), dataclasses.replace(request, weights=wrong)
    )


def test_a_folder_survives_a_broken_file_and_reports_it(tmp_path):
  folder = tmp_path / "images"
  folder.mkdir()
  for i in range(120):
    Image.fromarray(_pixels(i, 4, 4, 3)).save(folder / f"{i:03}.png")
  (folder / "050.png").write_bytes(b"")
  real = _npz(tmp_path / "real.npz", 1, 50, 4, 4, 3)
  run = lambda: _score(
    tmp_path, "adm_imagenet", input=str(folder), reference=real
  )
  result = run()
  assert list(result.protocol["failures"]) == ["050.png"]
  assert result.protocol["examples"] == 119
  Image.fromarray(_pixels(0, 5, 4, 3)).save(folder / "051.png")
  with pytest.raises(ValueError, match="2 of 120 .*050.png.*051.png.*1, 5, 4"):
    run()


@pytest.mark.parametrize("name", ["reconstruction", "adm_imagenet", "pfid"])
def test_folds_are_for_protocols_that_average_over_them(tmp_path, name):
  """The other measures would read the first fold, and drop the rest."""
  path = _npz(tmp_path / "made.npz", 1, 6, 4, 4, 3)
  request = protocol_run.Request(name, input=path, reference=path, folds=2)
  with pytest.raises(ValueError, match=f"--folds=2: {name} is measured once"):
    protocol_run.score(str(tmp_path), request)


def test_damaged_and_empty_arrays_are_named(tmp_path):
  real = _npz(tmp_path / "real.npz", 1, 5, 4, 4, 3)
  path = tmp_path / "made.npz"
  run = lambda: _score(
    tmp_path, "adm_imagenet", input=str(path), reference=real
  )
  _npz(path, 0, 0, 4, 4, 3)
  with pytest.raises(ValueError, match=r"--input=.*made.npz: .*\(0, 4, 4, 3\)"):
    run()
  np.savez_compressed(path, arr_0=_pixels(0, 5, 4, 4, 3))
  data = bytearray(path.read_bytes())
  data[150] ^= 4
  path.write_bytes(data)
  with pytest.raises(ValueError, match="cannot read .*made.npz as .npz: "):
    run()


def test_the_rule_of_a_file_is_in_the_name_and_the_record(tmp_path):
  """A record has one rule, that of the pixels that were measured."""
  real = _npz(tmp_path / "real.npz", 1, 50, 4, 4, 3)
  made = str(tmp_path / "made.npz")
  names = {}
  for rule in ("truncate", "round", None):
    facts = {} if rule is None else {"uint8_rule": np.array(rule)}
    np.savez(made, arr_0=_pixels(0, 70, 4, 4, 3), **facts)
    result = _score(tmp_path, "adm_imagenet", input=made, reference=real)
    names[rule] = result.evaluator
    assert result.protocol["uint8_rule"] == (rule or "as given")
    assert "uint8" not in result.protocol
  assert names == {
    "truncate": "adm_imagenet@70x1",
    "round": "adm_imagenet@70x1,uint8=round",
    None: "adm_imagenet@70x1",
  }
  np.savez(made, arr_0=_pixels(0, 70, 4, 4, 3), uint8_rule=np.array("floor"))
  with pytest.raises(ValueError, match="made.npz: uint8_rule is 'floor'"):
    _score(tmp_path, "adm_imagenet", input=made, reference=real)


def test_styleganv_resizes_as_its_own_network_does(tmp_path, monkeypatch):
  loaded = []
  monkeypatch.setattr(
    protocol_run.measurements.networks,
    "load",
    lambda name, weights, **settings: (
      loaded.append(settings) or random_features.Network()
    ),
  )
  for name in ("styleganv_fvd", "magvit_ucf101_fvd"):
    made = _npz(tmp_path / f"{name}.npz", 0, 12, 16, 2, 2, 3)
    request = protocol_run.Request(name, made, made, "weights", folds=1)
    result = protocol_run.score(str(tmp_path), request)
    rule = "half-pixel" if name == "styleganv_fvd" else "TF1"
    assert f"inside: {rule} bilinear to 224" in result.protocol["resize_rule"]
  assert loaded == [{"variant": "half_pixel"}, {"variant": ""}]
  described = [
    json.loads((folder / "of.json").read_text())["of"]
    for folder in sorted((tmp_path / "features").glob("*_made_*"))
  ]
  # Features of before there were variants are those of the usual call.
  assert ["variant" in each for each in described] == [False, True]


def test_the_cap_of_psnr_is_in_the_record(tmp_path):
  made = _npz(tmp_path / "made.npz", 0, 2, 16, 16, 3)
  request = protocol_run.Request("reconstruction", input=made, reference=made)
  result = protocol_run.score(str(tmp_path), request)
  assert result.metrics["psnr"] == 100.0
  assert "dB, at most 100" in result.protocol["source"]


@pytest.fixture
def narrow(monkeypatch):
  """Pretends that EfficientNet-Lite0's pooled features have 4 channels."""
  known = feature_networks.NETWORKS["efficientnet_lite0"]
  changed = dataclasses.replace(known, dims={"pool": 4})
  monkeypatch.setitem(feature_networks.NETWORKS, "efficientnet_lite0", changed)


class _Pool(random_features.Network):
  def __call__(self, batch):
    return {"pool": super().__call__(batch)["pool3"]}


def test_frames_and_their_differences_are_compared(tmp_path, narrow):
  made = _npz(tmp_path / "made.npz", 0, 9, 3, 4, 4, 3)
  real = _npz(tmp_path / "real.npz", 1, 8, 3, 4, 4, 3)
  result = _score(
    *(tmp_path, "efficientnet_lite0_samples", _Pool()),
    **dict(input=made, reference=real),
  )
  fake, original = (
    np.stack(
      [_Pool()(_pixels(s, n, 3, 4, 4, 3)[:, t])["pool"] for t in (0, 1, 2)], 1
    )
    for s, n in ((0, 9), (1, 8))
  )
  for name, (x, y) in {
    "frechet": (fake, original),
    "frechet_differences": (np.diff(fake, axis=1), np.diff(original, axis=1)),
  }.items():
    expected = frechet.distance(
      *(frechet.statistics(z.reshape(-1, 4)) for z in (x, y))
    )
    np.testing.assert_allclose(
      result.metrics[f"efficientnet_lite0_{name}"], expected, rtol=1e-6
    )
  for name in ("precision", "recall", "density", "coverage"):
    assert f"efficientnet_lite0_{name}" in result.metrics
  assert not any("fid" in x or "fvd" in x for x in result.metrics)
  assert "Not FID, not FVD" in result.protocol["source"]


def test_images_have_no_differences_and_the_result_says_so(tmp_path, narrow):
  made = _npz(tmp_path / "made.npz", 0, 4, 4, 4, 3)
  real = _npz(tmp_path / "real.npz", 1, 5, 4, 4, 3)
  result = _score(
    *(tmp_path, "efficientnet_lite0_reconstructions", _Pool()),
    **dict(input=made, reference=made),
  )
  assert abs(result.metrics["efficientnet_lite0_frechet"]) < 1e-6
  reasons = result.protocol["left_out"]
  name = "efficientnet_lite0_frechet_differences"
  assert reasons[name] == "needs clips of several frames"
  assert "has 4 made and 4 real" in reasons["efficientnet_lite0_coverage"]
  other = _score(
    *(tmp_path, "efficientnet_lite0_samples", _Pool()),
    **dict(input=made, reference=real),
  )
  assert other.metrics["efficientnet_lite0_frechet"] > 1e-3
