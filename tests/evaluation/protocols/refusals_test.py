"""Every protocol refuses numbers that cannot be, wherever they come from.

A model of no network makes clips and ids, a feature network of no weights makes
features; each in turn gives NaN, infinity or what is out of range. A protocol
that is added to the table is tested, too.
"""

import dataclasses

import ml_collections
import numpy as np
import pytest

from evaluation.metrics import frechet
from evaluation.protocols import clips as clips_lib
from evaluation.protocols import completions
from evaluation.protocols import measures
from evaluation.protocols import run as protocol_run
from evaluation.protocols import table as protocol_table
from models.features import networks as feature_networks

_NUM = 8  # clips that are made, in two batches
_PROTOCOLS = protocol_table.PROTOCOLS
_WITH_PIXELS = [name for name in _PROTOCOLS if name != "codebook"]
_WITH_CODES = [
  name
  for name, protocol in _PROTOCOLS.items()
  if protocol.measure in ("codes", "perturbed_fid")
]
_WITH_NETWORK = [name for name, p in _PROTOCOLS.items() if p.network]
_WITH_STATISTICS = [
  name for name, p in _PROTOCOLS.items() if p.measure in ("image_suite", "fvd")
]
_DIMS = {"pool": 3, "pool3": 3, "spatial": 2, "logits": 4, "probabilities": 4}


class _Model:
  """A model that makes noise, and once something else."""

  step = 1
  batch_size = 4
  generates = True
  vocabulary = 16

  def __init__(self, value=None, code=None):
    """Takes the pixel, and the code, that one of the second batch has."""
    self.config = ml_collections.ConfigDict({"condition_frames": 1})
    self._value, self._code = value, code
    self._calls = 0

  def describe(self):
    return {"value": str(self._value), "code": self._code}

  def _make(self, shape):
    self._calls += 1
    pixels = np.random.default_rng(self._calls).random(shape, np.float32)
    if self._value is not None and self._calls == 2:
      if self._value > 1 and np.isfinite(self._value):
        pixels *= self._value  # a whole clip in another range
      else:
        pixels[2, 0, 1, 1, 2] = self._value
    return pixels

  def given_frames(self, task):
    return np.array(
      {"frame_prediction": [1, 0], "interpolation": [1, 0, 1]}[task], bool
    )

  def samples(self, protocol, given, num, seed):
    frames = _frames(self, protocol)
    run = lambda task, label, video, seed: {"video": self._make(video.shape)}
    return clips_lib.generate_clips(
      *(run, self.describe(), protocol, given, (frames, 16, 16), 10),
      *(self.batch_size, num, seed),
    )

  def reconstructions(self, protocol, originals):
    return clips_lib.reconstruct_clips(
      *(lambda video: self._make(video.shape), self.describe(), protocol),
      *(originals, self.batch_size),
    )

  def tokenized(self, video, task):
    return video / np.float32(255)

  def bits(self):
    return 4

  def encode(self, video):
    ids = np.arange(len(video) * 4, dtype=np.int32).reshape(-1, 1, 2, 2) % 16
    if self._code is not None:
      ids[1, 0, 1, 0] = self._code
    return ids

  def decode(self, ids):
    return self._make((len(ids), 1, 16, 16, 3))


def _frames(model, protocol):
  if protocol.made == "completions":
    return len(model.given_frames(protocol.task))
  return max(protocol.frames, 1)


class _Network:
  """Projections of pixels; one number of one call is another."""

  def __init__(self, call=-1, value=np.nan, feature=""):
    self.weights_sha256 = f"{call} {value} {feature}"
    self._call, self._value, self._feature = call, value, feature
    self.calls = 0

  def __call__(self, batch):
    x = batch.reshape(len(batch), -1).astype(np.float32) / 255
    features = {}
    for name, width in _DIMS.items():
      seed = np.random.default_rng(width)
      features[name] = x @ seed.normal(size=(x.shape[1], width))
    features["probabilities"] = np.full((len(batch), 4), 0.25)
    if self.calls == self._call:
      features[self._feature][1, 0] = self._value
    self.calls += 1
    return features

  def distance(self, target, output):
    return np.abs(target / 255 - output / 255).mean((1, 2, 3))


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
  for name, network in feature_networks.NETWORKS.items():
    dims = {feature: _DIMS[feature] for feature in network.dims}
    changed = dataclasses.replace(network, dims=dims)
    monkeypatch.setitem(feature_networks.NETWORKS, name, changed)


def _score(tmp_path, name, model=None, network=None, reference=None):
  protocol = protocol_table.get(name)
  model = model or _Model()
  if reference is None:
    frames = _frames(model, protocol)
    shape = (_NUM, *((frames,) if frames > 1 else ()), 16, 16, 3)
    pixels = np.random.default_rng(9).integers(0, 256, shape, np.uint8)
    reference = str(tmp_path / "real.npz")
    np.savez(reference, arr_0=pixels)
  if network is None and protocol.network:
    network = _Network()
  request = protocol_run.Request(name, reference=reference, num=_NUM, folds=1)
  return protocol_run.score(
    str(tmp_path), request, open_model=lambda: model, network=network
  )


@pytest.mark.parametrize("name", _PROTOCOLS)
def test_what_is_in_range_is_measured(name, tmp_path):
  result = _score(tmp_path, name)
  assert result.metrics
  assert np.isfinite(list(result.metrics.values())).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", _WITH_PIXELS)
def test_a_pixel_that_is_no_number_is_named(name, value, tmp_path):
  text = rf"\[[26], 0, 1, 1, 2\] is {value}, .* diverged"
  with pytest.raises(ValueError, match=text):
    _score(tmp_path, name, _Model(value))
  assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("name", _WITH_PIXELS)
def test_clips_of_another_range_are_refused(name, tmp_path):
  with pytest.raises(ValueError, match=r"has values in \[.*, 25[0-9]\.?\d*\]"):
    _score(tmp_path, name, _Model(255.0))


@pytest.mark.parametrize("code", [-1, 16])
@pytest.mark.parametrize("name", _WITH_CODES)
def test_codes_outside_the_vocabulary_are_named(name, code, tmp_path):
  with pytest.raises(ValueError, match=rf"ids\[1, .*is {code}, .* 0\.\.15"):
    _score(tmp_path, name, _Model(code=code))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", _WITH_NETWORK)
def test_features_that_are_no_numbers_are_named(name, value, tmp_path):
  """Whichever call gives them, for made clips and for real ones."""
  counter = _Network()
  _score(tmp_path, name, network=counter)
  assert counter.calls >= 2
  network = feature_networks.NETWORKS[protocol_table.get(name).network]
  features = ("pool3",) if name == "pfid" else tuple(network.dims)
  for call in (1, counter.calls - 1):
    for feature in features:
      broken = _Network(call, value, feature)
      with pytest.raises(ValueError, match=rf"{feature}.*\[\d, 0\] is {value}"):
        _score(tmp_path, name, network=broken)


def test_probabilities_that_are_none_are_named(tmp_path):
  for value in (-0.25, 0.5):
    broken = _Network(0, value, "probabilities")
    with pytest.raises(ValueError, match=r"probabilities\[1"):
      _score(tmp_path, "is_c3d", network=broken)


def test_a_distance_of_a_network_that_is_no_number_is_named(tmp_path):
  broken = lambda video, output: np.full((len(video), 1), np.nan)
  with pytest.raises(ValueError, match=r"LPIPS\[0, 0\] is nan"):
    _score(tmp_path, "reconstruction", network=broken)


@pytest.mark.parametrize(
  "array, value, text",
  [
    ("mu", np.nan, "is nan"),
    ("sigma", np.inf, "is inf"),
    ("sigma", "negative", "eigenvalue -1"),
    ("sigma", "asymmetric", "symmetric"),
  ],
)
@pytest.mark.parametrize("name", _WITH_STATISTICS)
def test_reference_statistics_that_are_none_are_named(
  name, array, value, text, tmp_path
):
  """They are read before any clip is made."""
  network = feature_networks.NETWORKS[protocol_table.get(name).network]
  arrays = {}
  for suffix, feature in network.statistics.items():
    width = _DIMS[feature]
    arrays |= {f"mu{suffix}": np.zeros(width), f"sigma{suffix}": np.eye(width)}
  (*_, suffix) = network.statistics
  bad = arrays[f"{array}{suffix}"]
  if value == "negative":
    bad *= -1
  else:
    bad[(0,) * bad.ndim if array == "mu" else (0, 1)] = (
      0.5 if value == "asymmetric" else value
    )
  path = str(tmp_path / "statistics.npz")
  np.savez(path, **arrays)
  model = _Model(np.nan)
  with pytest.raises(ValueError, match=f"statistics.npz, .*{text}"):
    _score(tmp_path, name, model, reference=path)


@pytest.mark.parametrize("measure", measures.MEASURES)
def test_measures_of_kept_rows_refuse_what_is_no_number(measure):
  """An earlier version may have kept NaN in DIR/features."""
  protocol = next(p for p in _PROTOCOLS.values() if p.measure == measure)
  rows = {name: np.ones((12, width)) for name, width in _DIMS.items()}
  rows |= {f"pool3_alpha_{a}": rows["pool3"] for a in protocol_table.ALPHAS}
  rows["probabilities"] = np.full((12, 4), 0.25)
  for start in completions.STARTS:
    rows |= {
      f"{start}{k}": np.ones((12, 1)) for k in ("hidden_psnr", "distance")
    }
    rows |= {f"{start}pool": rows["pool"], "real_pool": rows["pool"]}
  bad = {name: array * np.nan for name, array in rows.items()}
  if measure == "codes":
    rows = {"ids": np.zeros((2, 4), int), "vocabulary": np.full((2, 1), 4)}
    bad = {**rows, "ids": np.full((2, 4), 4)}
  measures.measure(protocol, [rows], measures.Real([rows]))
  with pytest.raises(ValueError, match=r"is nan|ids\[0, 0\] is 4"):
    measures.measure(protocol, [bad], measures.Real([rows]))


@pytest.mark.parametrize(
  "ids, bits, alpha, text",
  [
    (np.array([16]), 4, 0.5, r"ids\[0\] is 16"),
    (np.array([-1]), 4, 0.5, r"ids\[0\] is -1"),
    (np.array([0.5]), 4, 0.5, "ids of float64"),
    (np.array([1]), 0, 0.5, "bits=0"),
    (np.array([1]), 4, 1.5, "alpha=1.5"),
    (np.array([1]), 4, np.nan, "alpha=nan"),
  ],
)
def test_codes_that_cannot_be_perturbed_are_refused(ids, bits, alpha, text):
  with pytest.raises(ValueError, match=text):
    measures.perturb_ids(ids, bits, alpha, np.random.default_rng(0))


def test_pixels_of_another_type_are_refused():
  video = np.zeros((1, 1, 16, 16, 3), np.uint8)
  with pytest.raises(ValueError, match="output must be uint8 .* float64"):
    measures.pixel_scores(video, video / 255.0)


def test_real_features_that_are_no_numbers_are_named():
  protocol = protocol_table.get("magvit_ucf101_fvd")
  rows = {"logits": np.random.default_rng(0).normal(size=(12, 4))}
  bad = {"logits": np.where(rows["logits"] > 1, np.inf, rows["logits"])}
  with pytest.raises(ValueError, match=r"features\[\d+, \d\] is inf"):
    measures.measure(protocol, [rows], measures.Real([bad]))
  statistics = frechet.statistics(rows["logits"])
  negative = dataclasses.replace(statistics, scatter=-statistics.scatter)
  with pytest.raises(ValueError, match="eigenvalue -"):
    measures.measure(
      protocol, [rows], measures.Real(None, {"": negative.gaussian(1)})
    )
