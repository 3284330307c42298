"""Every public function of evaluation/metrics refuses numbers that cannot be.

`_CALLS` has a call of each function that works. Each number in its arguments is
replaced by NaN and by both infinities, one at a time, and must be an error that
names it; `_WRONG` has further arguments that must be errors, by what they say.
A function without a call, or a new one, fails the first test.
"""

import copy
import dataclasses
import functools
import importlib
import inspect
import pathlib
import pkgutil

import numpy as np
import pytest

from evaluation import metrics
from evaluation.metrics import bd_rate
from evaluation.metrics import digit_judge
from evaluation.metrics import frames
from evaluation.metrics import frechet
from evaluation.metrics import inception_score
from evaluation.metrics import kernels
from evaluation.metrics import linear_probe
from evaluation.metrics import lpips
from evaluation.metrics import manifold

_RNG = np.random.default_rng(0)
_X, _Y = _RNG.normal(size=(12, 3)), _RNG.normal(size=(14, 3))
_UNIT = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (_X, _Y)]
_PROBABILITIES = np.full((12, 4), 0.25)
_SMALL = [_RNG.random((1, 2, 16, 16, 3)) for _ in range(2)]
_LARGE = [_RNG.random((1, 1, 161, 161, 3)) for _ in range(2)]
_REGION = np.ones((2, 16, 16), bool)
_CURVES = [
  ([0.1 * k, 0.2 * k, 0.4 * k, 0.8 * k], [30.0, 32.0, 34.0, 36.0])
  for k in (1, 2)
]
_STATISTICS = [frechet.statistics(x) for x in (_X, _Y)]
_GAUSSIANS = [each.gaussian(1) for each in _STATISTICS]
_LABEL = np.arange(12) % 3
_PROBE = linear_probe.fit(_X, _LABEL, 3)


class _Judge(digit_judge.DigitJudge):
  """One that needs no fitting, which takes a second."""

  def __init__(self):
    pass

  @property
  def _network(self):
    raise AssertionError("the clips were not checked before the network ran")


class _Lpips(lpips.Lpips):
  """LPIPS without weights."""

  def __init__(self):
    self._distance = lambda target, output: np.abs(target - output).mean()


_judge = {"video_BTHWC": _SMALL[0]}
_pair = {"video_BTHWC": _SMALL[0], "output_BTHWC": _SMALL[1]}
_sets = {"x_ND": _X, "y_MD": _Y}
_folds = {"real_ND": _X, "fake_MD": _Y}
_kid = {"subsets": 2, "subset_size": 5, "seed": 0}
_file = "statistics.npz"  # in the folder of the test
_load = {"path": _file, "suffix": "", "width": 3}
# Function: (what is called, arguments that work).
_CALLS = {
  "bd_rate.bd_rate": (
    bd_rate.bd_rate,
    {"anchor": _CURVES[0], "curve": _CURVES[1]},
  ),
  "bd_rate.quality_at": (
    bd_rate.quality_at,
    {"rates": [0.1, 0.2], "qualities": [30.0, 31.0], "rate": 0.15},
  ),
  "digit_judge.DigitJudge.__init__": (
    digit_judge.DigitJudge,
    {**_judge, "label_B": np.array([3])},
  ),
  "digit_judge.DigitJudge.classify": (_Judge().classify, _judge),
  "digit_judge.DigitJudge.features": (_Judge().features, _judge),
  "frames.FrameMetric.__post_init__": (
    frames.FrameMetric,
    {"label": "x", "score": None, "digits": 1, "smallest": 1},
  ),
  "frames.at": (frames.at, {"place": "study"}),
  "frames.requirements": (frames.requirements, {"place": "study"}),
  "frames.codebook": (
    frames.codebook,
    {"ids": np.array([[0, 3]]), "vocabulary": 4},
  ),
  "frames.masked_psnr": (frames.masked_psnr, {**_pair, "region_THW": _REGION}),
  "frames.ms_ssim": (
    frames.ms_ssim,
    {"video_BTHWC": _LARGE[0], "output_BTHWC": _LARGE[1]},
  ),
  "frames.psnr": (frames.psnr, _pair),
  "frames.scores": (frames.scores, {"place": "files", **_pair}),
  "frames.ssim": (frames.ssim, {**_pair, "mode": "magvit_gray"}),
  "frechet.Statistics.gaussian": (
    lambda statistics, ddof: statistics.gaussian(ddof),
    {"statistics": _STATISTICS[0], "ddof": 1},
  ),
  "frechet.distance": (
    frechet.distance,
    {"a": _GAUSSIANS[0], "b": _STATISTICS[1]},
  ),
  "frechet.load": (frechet.load, _load),
  "frechet.merge": (frechet.merge, {"parts": _STATISTICS}),
  "frechet.save": (
    frechet.save,
    {"path": "other.npz", "gaussians": {"": _GAUSSIANS[0]}},
  ),
  "frechet.statistics": (frechet.statistics, {"features": _X}),
  "frechet.streamed": (frechet.streamed, {"features": _X, "rows": 5}),
  "inception_score.inception_score": (
    inception_score.inception_score,
    {"logits_NV": _X, "convention": "adm", "split_size": 5},
  ),
  "inception_score.score_of_probabilities": (
    inception_score.score_of_probabilities,
    {"probabilities_NV": _PROBABILITIES, "convention": "torch_fidelity"},
  ),
  "kernels.cmmd": (kernels.cmmd, {"x_ND": _UNIT[0], "y_MD": _UNIT[1]}),
  "kernels.gaussian": (kernels.gaussian, {"sigma": 1.0}),
  "kernels.kid": (kernels.kid, {**_sets, **_kid}),
  "kernels.mmd": (
    functools.partial(kernels.mmd, kernel=kernels.gaussian(1.0)),
    _sets,
  ),
  "kernels.polynomial": (
    kernels.polynomial,
    {"degree": 2, "gamma": 1.0, "coefficient": 0.0},
  ),
  "kernels.polynomial_mmd": (kernels.polynomial_mmd, _sets),
  "linear_probe.Probe.accuracy": (
    _PROBE.accuracy,
    {"features_ND": _X, "label_N": _LABEL},
  ),
  "linear_probe.Probe.logits": (_PROBE.logits, {"features_ND": _X}),
  "linear_probe.fit": (
    linear_probe.fit,
    {"features_ND": _X, "label_N": _LABEL, "classes": 3},
  ),
  "lpips.Lpips.__call__": (_Lpips(), _pair),
  "lpips.Lpips.__init__": (lpips.Lpips, {"weights": "lpips.safetensors"}),
  "lpips.load_distance": (
    lpips.load_distance,
    {"weights": "lpips.safetensors"},
  ),
  "manifold.density_coverage": (
    manifold.density_coverage,
    {**_folds, "neighbours": 2},
  ),
  "manifold.precision_recall": (
    manifold.precision_recall,
    {**_folds, "neighbours": 2},
  ),
}
# These fit a network or read weights: other tests do their work.
_NOT_CALLED = ("digit_judge", "lpips.Lpips.__init__", "lpips.load_distance")
# These take text, integers and bools: their wrong values are in _WRONG.
_WITHOUT_FLOATS = {
  *("frames.FrameMetric.__post_init__", "frames.at", "frames.codebook"),
  *("frames.requirements",),
  *("frechet.load", "lpips.Lpips.__init__", "lpips.load_distance"),
}


def _changed(array, change):
  array = array.copy()
  array[(0,) * array.ndim] = change
  return array


_bad_pair = [
  ({"video_BTHWC": _SMALL[0] + 1.0}, r"video\[0.* in \[0, 1\] are expected"),
  ({"output_BTHWC": _SMALL[1] - 1.0}, r"output\[0.* in \[0, 1\] are expected"),
  ({"output_BTHWC": _SMALL[1][:, :1]}, "of the same shape"),
  ({"video_BTHWC": _SMALL[0][0], "output_BTHWC": _SMALL[1][0]}, "B, T, H, W"),
  ({k: x[:0] for k, x in _pair.items()}, "none of these sizes 0"),
  ({k: x[:, :0] for k, x in _pair.items()}, "none of these sizes 0"),
  ({k: x[..., :1] for k, x in _pair.items()}, r"\(B, T, H, W, 3\)"),
  ({"video_BTHWC": np.uint8(_SMALL[0] * 255)}, "uint8 .* divide uint8 by 255"),
  ({"video_BTHWC": _SMALL[0].astype(complex)}, "complex128"),
]
_bad_sets = [
  ({"x_ND": _X[:, :2]}, "width"),
  ({"y_MD": _Y[0]}, r"shape \(3,\) must be \(examples, dimensions\)"),
  ({"y_MD": _Y[:0]}, r"shape \(0, 3\)"),
  ({"x_ND": _X.astype(str)}, "real numbers"),
]
_bad_folds = [
  ({"real_ND": _X[:, :2]}, "differ in width: 2 and 3"),
  ({"fake_MD": _Y[:2]}, "more than 2 examples"),
  ({"neighbours": 0}, "neighbours=0 must be an integer, at least 1"),
  ({"neighbours": 1.5}, "neighbours=1.5"),
]
_bad_features = [
  ({"features": _X[:0]}, r"features of shape \(0, 3\)"),
  ({"features": _X[0]}, r"features of shape \(3,\)"),
  ({"features": _X > 0}, "features of bool .* real numbers"),
]
_bad_judge = [
  ({"video_BTHWC": 2 * _SMALL[0]}, r"video\[0.* in \[0, 1\]"),
  ({"video_BTHWC": _SMALL[0][0]}, r"video of shape \(2, 16, 16, 3\)"),
]
_bad_moments = [
  (dataclasses.replace(_GAUSSIANS[0], covariance=-np.eye(3)), "eigenvalue -1"),
  (
    dataclasses.replace(_GAUSSIANS[0], covariance=np.diag([1, 1, -1e-3])),
    "eigenvalue -0.001",
  ),
  (
    dataclasses.replace(
      _GAUSSIANS[0], covariance=np.eye(3) + np.eye(3, k=1) / 9
    ),
    r"covariance\[0, 1\] is 0.111111 and covariance\[1, 0\] is 0",
  ),
  (
    dataclasses.replace(_GAUSSIANS[0], covariance=np.eye(4)),
    r"got \(3,\) and \(4, 4\)",
  ),
]
_bad_statistics = [
  (dataclasses.replace(_STATISTICS[0], count=-3), "count=-3"),
  (dataclasses.replace(_STATISTICS[0], count=2.5), "count=2.5"),
  (dataclasses.replace(_STATISTICS[0], scatter=np.eye(2)), r"\(2, 2\)"),
]
# Function: [(arguments that differ, the error)].
_WRONG = {
  "bd_rate.bd_rate": [
    ({"curve": ([-0.1, 0.2, 0.4, 0.8], _CURVES[1][1])}, "rates must be posit"),
    ({"curve": (_CURVES[1][0], [30, 32, 31, 36])}, "does not improve"),
    ({"curve": (_CURVES[1][0], [60, 62, 64, 66])}, "overlap by 0%"),
    ({"anchor": ([0.1], [30.0])}, "the anchor has 1 points"),
  ],
  "bd_rate.quality_at": [
    ({"rate": 0.0}, "rate=0.0 must be .* above 0"),
    ({"rate": 0.3}, "rate=0.3 is outside"),
    ({"rates": [0.1, 0.1]}, "all different"),
    ({"rates": [0.1]}, "1 points"),
  ],
  "digit_judge.DigitJudge.__init__": [
    _bad_judge[0],
    ({"label_B": np.array([1, 2])}, "one for each"),
    ({"label_B": np.array([0.5])}, "labels of float64"),
    ({"label_B": np.array([-1])}, "labels.*-1"),
  ],
  "digit_judge.DigitJudge.classify": _bad_judge,
  "digit_judge.DigitJudge.features": _bad_judge,
  "frames.FrameMetric.__post_init__": [
    ({"digits": -1}, "digits of x=-1"),
    ({"smallest": 0}, "smallest of x=0"),
    ({"places": ("wall",)}, "place='wall'"),
  ],
  "frames.at": [({"place": "wall"}, "place='wall' must be one of")],
  "frames.requirements": [({"place": "wall"}, "place='wall' must be one of")],
  "frames.codebook": [
    ({"ids": np.array([[0, 4]])}, r"ids\[0, 1\] is 4.* 0\.\.3 \(1 of 2"),
    ({"ids": np.array([[-1, 0]])}, r"ids\[0, 0\] is -1"),
    ({"ids": np.array([[0.0, 1.0]])}, "ids of float64 .* integers"),
    ({"ids": np.zeros((2, 0), int)}, "at least one"),
    ({"vocabulary": 0}, "vocabulary=0"),
  ],
  "frames.masked_psnr": [
    *_bad_pair,
    ({"region_THW": _REGION[:1]}, r"region .* \(1, 16, 16\)"),
    ({"region_THW": ~_REGION}, "at least one pixel"),
    ({"region_THW": _REGION.astype(int)}, "region of int64"),
  ],
  "frames.ms_ssim": [
    (dict(_pair), "161 x 161"),
    ({"output_BTHWC": _LARGE[1] + 1.0}, r"output\[0"),
  ],
  "frames.psnr": _bad_pair,
  "frames.scores": [*_bad_pair, ({"place": "wall"}, "place='wall'")],
  "frames.ssim": [*_bad_pair, ({"mode": "best"}, "mode='best'")],
  "frechet.Statistics.gaussian": [
    *(({"statistics": each}, text) for each, text in _bad_statistics),
    ({"ddof": 2}, "ddof=2 must be 0 or 1"),
    ({"statistics": frechet.statistics(_X[:1])}, "at least 2 examples"),
  ],
  "frechet.distance": [
    *(({"b": each}, text) for each, text in _bad_moments),
    *(({"a": each}, text) for each, text in _bad_statistics),
    ({"a": frechet.statistics(_X[:, :2])}, "dimension, got 2 and 3"),
    ({"b": frechet.statistics(_Y * 1e200)}, "inf"),
  ],
  "frechet.load": [
    ({"path": f"bad{i}.npz"}, rf"bad{i}.npz.*{text}")
    for i, (_, text) in enumerate(_bad_moments[:3])
  ],
  "frechet.merge": [
    *(({"parts": [each]}, text) for each, text in _bad_statistics),
    ({"parts": []}, "at least one part"),
    (
      {"parts": [_STATISTICS[0], frechet.statistics(_X[:, :2])]},
      "dimension, got 3 and 2",
    ),
  ],
  "frechet.save": [
    *(({"gaussians": {"": each}}, text) for each, text in _bad_moments),
    ({"gaussians": {}}, "at least one"),
  ],
  "frechet.statistics": _bad_features,
  "frechet.streamed": [*_bad_features, ({"rows": 0}, "rows=0")],
  "inception_score.inception_score": [
    ({"split_size": 0}, "split_size=0"),
    ({"convention": "one_split"}, "split_size=5 .*'one_split'"),
    ({"convention": "fid"}, "convention='fid'"),
    ({"logits_NV": _X[0]}, "logits of shape"),
  ],
  "inception_score.score_of_probabilities": [
    (
      {"probabilities_NV": _changed(_PROBABILITIES, 0.5)},
      r"\[0\] sums to 1.25",
    ),
    ({"probabilities_NV": _changed(_PROBABILITIES, -0.1)}, r"\[0, 0\] is -0.1"),
    ({"probabilities_NV": _changed(_PROBABILITIES, 1.5)}, r"\[0, 0\] is 1.5"),
    ({"probabilities_NV": _PROBABILITIES[:9]}, "at least 10 examples"),
  ],
  "kernels.cmmd": [*_bad_sets, ({"x_ND": 2 * _UNIT[0]}, "length 1")],
  "kernels.gaussian": [
    ({"sigma": 0.0}, "sigma=0.0"),
    ({"sigma": -1.0}, "sigma=-1.0"),
  ],
  "kernels.kid": [
    *_bad_sets,
    ({"subsets": 0}, "subsets=0"),
    ({"subset_size": 1}, "subset_size=1"),
    ({"subset_size": 13}, "subsets of 13 examples"),
    ({"seed": -1}, "seed=-1"),
  ],
  "kernels.mmd": _bad_sets,
  "kernels.polynomial": [
    ({"degree": 0}, "degree=0"),
    ({"gamma": 0.0}, "gamma=0.0"),
    ({"coefficient": -1.0}, "coefficient=-1.0"),
  ],
  "kernels.polynomial_mmd": _bad_sets,
  "linear_probe.Probe.accuracy": [
    ({"label_N": _LABEL[1:]}, r"label of shape \(11,\)"),
    ({"label_N": _LABEL + 1}, r"label has 1\.\.3.*classes are 0\.\.2"),
  ],
  "linear_probe.Probe.logits": [
    ({"features_ND": _X[:, :2]}, "2 wide, and the probe was fitted on 3"),
    ({"features_ND": _X[0]}, "features of shape"),
  ],
  "linear_probe.fit": [
    ({"features_ND": _X[:9], "label_N": _LABEL[:9]}, "at least 10 examples"),
    ({"label_N": _LABEL.astype(float)}, "label of shape .* float64"),
    ({"label_N": _LABEL - 1}, r"label has -1\.\.1"),
    ({"classes": 2}, "the 2 classes are"),
  ],
  "lpips.Lpips.__call__": [
    ({"video_BTHWC": 255 * _SMALL[0]}, "video has values in"),
    ({"output_BTHWC": _SMALL[1][:, :1]}, "of the same shape"),
    ({"output_BTHWC": _SMALL[1] > 0}, "output has dtype bool"),
  ],
  "lpips.Lpips.__init__": [({"weights": ""}, "lpips_vgg")],
  "lpips.load_distance": [({"weights": "none"}, "lpips_vgg")],
  "manifold.density_coverage": _bad_folds,
  "manifold.precision_recall": _bad_folds,
}


def _public_functions():
  """Names of the functions and methods of evaluation/metrics that one calls."""
  names = set()
  for module in pkgutil.iter_modules(metrics.__path__):
    path = f"{metrics.__name__}.{module.name}"
    for name, member in vars(importlib.import_module(path)).items():
      if name.startswith("_") or getattr(member, "__module__", "") != path:
        continue
      if inspect.isfunction(member):
        names.add(f"{module.name}.{name}")
      elif inspect.isclass(member):
        for method, function in vars(member).items():
          written = inspect.isfunction(function) and (
            pathlib.Path(function.__code__.co_filename).suffix == ".py"
          )  # dataclasses make others
          called = method in ("__init__", "__post_init__", "__call__")
          if written and (called or not method.startswith("_")):
            names.add(f"{module.name}.{name}.{method}")
  return names


def test_every_public_function_is_tested_here():
  assert _public_functions() == _CALLS.keys() == _WRONG.keys()


def _poisoned(argument, number):
  """Yields copies of an argument, each with one number replaced."""
  if isinstance(argument, float):
    yield number
  elif isinstance(argument, np.ndarray) and argument.dtype.kind == "f":
    middle = tuple(size // 2 for size in argument.shape)
    copied = argument.copy()
    copied[middle] = number
    yield copied
  elif isinstance(argument, list | tuple):
    for place, member in enumerate(argument):
      for change in _poisoned(member, number):
        changed = list(argument)
        changed[place] = change
        yield type(argument)(changed)
  elif isinstance(argument, dict):
    for key, member in argument.items():
      for change in _poisoned(member, number):
        yield {**argument, key: change}
  elif dataclasses.is_dataclass(argument):
    for field, member in vars(argument).items():
      for change in _poisoned(member, number):
        yield dataclasses.replace(argument, **{field: change})


@pytest.fixture
def folder(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  frechet.save(_file, {"": _GAUSSIANS[0]})
  for i, (gaussian, _) in enumerate(_bad_moments[:3]):
    np.savez(f"bad{i}.npz", mu=gaussian.mean, sigma=gaussian.covariance)
  return tmp_path


@pytest.mark.parametrize(
  "name", [name for name in _CALLS if not name.startswith(_NOT_CALLED)]
)
def test_the_call_works_as_it_stands(name, folder):
  function, arguments = _CALLS[name]
  result = function(**copy.deepcopy(arguments))
  assert result is not None or name == "frechet.save"


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", _CALLS)
def test_numbers_that_are_not_finite_are_refused_by_name(name, number, folder):
  function, arguments = _CALLS[name]
  poisoned = list(_poisoned(arguments, number))
  assert bool(poisoned) == (name not in _WITHOUT_FLOATS)
  for changed in poisoned:
    with pytest.raises(ValueError, match=str(number)):
      function(**changed)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("array", ["mu", "sigma"])
def test_statistics_of_a_file_are_finite(array, number, folder):
  arrays = {"mu": _GAUSSIANS[0].mean, "sigma": _GAUSSIANS[0].covariance}
  arrays[array] = _changed(arrays[array], number)
  np.savez("poisoned.npz", **arrays)
  with pytest.raises(ValueError, match=f"poisoned.npz, mu and .*{number}"):
    frechet.load("poisoned.npz", "", 3)


@pytest.mark.parametrize("name", _WRONG)
def test_arguments_out_of_range_are_refused_by_name(name, folder):
  function, arguments = _CALLS[name]
  for changes, text in _WRONG[name]:
    with pytest.raises(ValueError, match=text):
      function(**{**arguments, **changes})


def test_the_row_of_a_mapped_file_is_named(tmp_path, monkeypatch):
  monkeypatch.setattr("evaluation.values._VALUES_AT_ONCE", 10)
  features = np.zeros((40, 3), np.float32)
  features[31, 2] = features[33, 0] = np.nan
  np.save(tmp_path / "features.npy", features)
  mapped = np.load(tmp_path / "features.npy", mmap_mode="r")
  with pytest.raises(ValueError, match=r"features\[31, 2\] is nan.*2 of 120"):
    frechet.streamed(mapped)


def test_a_covariance_stored_in_float32_is_taken(tmp_path):
  """Rounding gives its empty directions eigenvalues below 0."""
  x = _RNG.normal(size=(30, 64)) @ _RNG.normal(size=(64, 64))
  covariance = np.cov(x.T).astype(np.float32)
  assert np.linalg.eigvalsh(np.float64(covariance))[0] < 0
  np.savez(tmp_path / "a.npz", mu=np.float32(x.mean(0)), sigma=covariance)
  loaded = frechet.load(str(tmp_path / "a.npz"), "", 64)
  expected = frechet.distance(frechet.statistics(x), loaded)
  assert abs(expected) < 1e-2 * np.trace(covariance)


def test_lpips_refuses_a_network_that_gives_no_numbers(monkeypatch):
  broken = _Lpips()
  broken._distance = lambda target, output: np.array([np.nan])
  with pytest.raises(ValueError, match=r"LPIPS\[0\] is nan"):
    broken(*_SMALL)
