"""Protocols from files on disk to the JSON, by the real feature networks.

Their weights are drawn: the distances mean nothing, and must be those of the
same clips taken through the parts by hand.
"""

import json
import pathlib

import jax
import numpy as np
import pytest

from configs import datasets
from evaluation.metrics import frechet
from evaluation.metrics import lpips
from evaluation.protocols import networks
from evaluation.protocols import run as protocol_run
from evaluation.show import pictures
from input_pipeline import pipeline
from magvit.modes import evaluate as evaluate_mode
from magvit.modes import offline
from magvit.scoring import held_out
from magvit.tokenizer import loaded
from models.features import networks as feature_networks
from models.features import perceptual
from tests import raw_data
from tests import tiny
from tests import untrained

pytestmark = pytest.mark.slow


def _weights(name, define, tmp_path):
  path = str(tmp_path / f"{name}.safetensors")
  return untrained.write_weights(path, name, define)


def _score(workdir, protocol, **fields):
  """Scores as main.py does, and reads the result from disk."""
  evaluate_mode.score_protocol(
    None, str(workdir), protocol_run.Request(protocol, **fields)
  )
  (path,) = pathlib.Path(workdir, "results").glob(f"{protocol}*.json")
  return json.loads(path.read_text())


def _distance(one, other):
  return frechet.distance(
    *(frechet.statistics(np.float64(x)) for x in (one, other))
  )


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
  root = tmp_path_factory.mktemp("ucf101")
  raw_data.ucf101(root, root, lengths=(17, 19, 18, 20))
  return root


def _on(config, videos):
  datasets.ucf101(config)
  config.dataset.frames = 17
  config.dataset.path = str(videos)
  return config


@pytest.fixture(scope="module")
def tokenizer_workdir(videos, tmp_path_factory):
  workdir = str(tmp_path_factory.mktemp("tokenizer"))
  untrained.write(workdir, _on(tiny.tokenizer(), videos))
  return workdir


class _Projections:
  """Projections of pixels, in the place of a network that compiles for long."""

  weights_sha256 = "0" * 64

  def __call__(self, batch):
    x = batch.reshape(len(batch), -1).astype(np.float32) / 255
    rng = np.random.default_rng(0)
    dims = {"pool3": 4, "spatial": 3, "logits": 5}
    return {
      name: x @ rng.normal(size=(x.shape[1], dim)).astype(np.float32)
      for name, dim in dims.items()
    }


def _network(name, tmp_path, monkeypatch):
  """(network, file of its weights); where no name is given, a stand-in."""
  if name is None:
    network = _Projections()
    load = lambda *_: network
    monkeypatch.setattr(protocol_run.measurements, "load_network", load)
    return network, None
  weights = _weights(name, feature_networks.define, tmp_path)
  return networks.load(name, weights), weights


@pytest.mark.parametrize(
  "name", [None, pytest.param("i3d", marks=pytest.mark.rows)]
)
def test_rfvd_of_a_tokenizer_on_raw_videos(
  name, tokenizer_workdir, tmp_path, monkeypatch
):
  # With eight devices clips would be added until each has one.
  monkeypatch.setattr(jax, "local_devices", lambda: jax.devices()[:1])
  network, weights = _network(name, tmp_path, monkeypatch)
  record = _score(tokenizer_workdir, "ucf101_rfvd", weights=weights, num=4)
  assert record["evaluator"] == "ucf101_rfvd@4x1"
  assert record["protocol"]["splits"] == ["train"]

  tokenizer = loaded.load_tokenizer(tokenizer_workdir)
  dataset = tokenizer.config.dataset
  clips = pipeline.source(dataset, "train", training=False)
  real = np.stack([clips[i]["video"] for i in range(len(clips))])
  assert real.shape == (4, 17, 16, 16, 3)
  made = pictures.to_uint8(np.asarray(tokenizer.decode(tokenizer.encode(real))))
  assert record["protocol"]["weights_sha256"] == network.weights_sha256
  logits = [network(video[:, :16])["logits"] for video in (real, made)]
  np.testing.assert_allclose(
    record["metrics"]["rfvd"], _distance(*logits), rtol=1e-4
  )


def test_fvd_of_a_generator_that_is_given_real_frames(
  videos, tokenizer_workdir, tmp_path, monkeypatch
):
  """The generated clips begin with the frames of the real ones."""
  config = _on(tiny.masked(tokenizer_workdir), videos)
  config.condition_frames = 5
  config.sampling.replace_condition_pixels = True
  untrained.write(str(tmp_path / "run"), config)
  seen = []

  def network(batch):
    seen.append(batch)
    return {
      "logits": batch.reshape(len(batch), -1)[:, ::4999].astype(np.float32)
    }

  monkeypatch.setattr(
    protocol_run.measurements, "load_network", lambda *_: network
  )
  record = _score(tmp_path / "run", "magvit_k600_fvd", num=4, folds=2)
  assert record["evaluator"].startswith("magvit_k600_fvd@4x2,dataset=ucf101")
  assert len({record["metrics"][f"fvd_fold_{i}"] for i in (0, 1)}) == 2
  made, real = seen[0], seen[-1]
  assert made.shape == real.shape == (8, 16, 64, 64, 3)
  np.testing.assert_array_equal(made[:, :5], real[:, :5])
  assert (made[:, 5:] != real[:, 5:]).mean() > 0.5


class _Pool:
  """Features of pixels, and distances of them, in SqueezeNet's place."""

  def __call__(self, batch):
    x = batch.reshape(len(batch), -1).astype(np.float32)
    return {"pool": np.resize(x[:, ::64], (len(x), 512)) / 255}

  def distance(self, target, output):
    return np.square(target / 255 - output / 255).mean((1, 2, 3))


def test_completions_of_a_generator_beside_trivial_ones(
  videos, tokenizer_workdir, tmp_path, monkeypatch
):
  """All held-out clips count, and no frame that was given."""
  config = _on(tiny.masked(tokenizer_workdir), videos)
  config.condition_frames = 5
  config.dataset.eval_examples = 2
  untrained.write(str(tmp_path / "run"), config)
  load = lambda *_: _Pool()
  monkeypatch.setattr(protocol_run.measurements, "load_network", load)
  name = "squeezenet_frame_prediction"
  record = _score(tmp_path / "run", name)
  assert record["evaluator"] == name
  scores = record["metrics"]
  for start in ("", "baseline_", "tokenized_", "tokenized_baseline_"):
    assert 3 < scores[f"{start}hidden_psnr"] < 100
    for score in ("distance", "frechet", "frechet_differences"):
      assert scores[f"{start}squeezenet_{score}"] > 0
  protocol = record["protocol"]
  assert protocol["given_frames"] == [0, 1, 2, 3, 4]
  assert protocol["baseline"] == "last given frame repeated"
  assert protocol["examples"] == 2
  page = (tmp_path / "run" / "report.html").read_text()
  assert "without a model: by SqueezeNet" in page
  assert "without a model, through the tokens: by SqueezeNet" in page
  # As by hand: a still of the last given frame.
  clips = pipeline.source(config.dataset, "held_out")
  real = np.stack([clips[i]["video"] for i in range(2)]) / 255.0
  mse = np.square(real[:, 5:] - real[:, 4:5]).mean((1, 2, 3, 4))
  np.testing.assert_allclose(
    scores["baseline_hidden_psnr"], (-10 * np.log10(mse)).mean(), rtol=1e-6
  )
  np.testing.assert_allclose(
    scores["baseline_squeezenet_distance"], mse.mean(), rtol=1e-5
  )
  tokenizer = loaded.load_tokenizer(tokenizer_workdir)
  coded = np.asarray(
    tokenizer.decode(tokenizer.encode((real * 255).round().astype(np.uint8)))
  )
  mse = np.square(coded - real)[:, 5:].mean((1, 2, 3, 4))
  np.testing.assert_allclose(
    scores["tokenized_hidden_psnr"], (-10 * np.log10(mse)).mean(), rtol=0.01
  )
  with pytest.raises(ValueError, match="completes real clips by a model"):
    _score(tmp_path / "run", name, input=str(videos), reference=str(videos))


def test_a_generator_of_videos_is_evaluated_after_training(
  videos, tokenizer_workdir, tmp_path
):
  """Classes have no judge; completions are scored, and pictures drawn."""
  config = _on(tiny.masked(tokenizer_workdir), videos)
  for task in config.tasks:
    config.tasks[task] = float(task in ("class_conditional", "interpolation"))
  config.dataset.eval_examples = 2
  config.evaluation.protocols = ("is_c3d",)
  config.evaluation.num = 2
  # The file is there and of this network; its tensors are not read.
  nothing = lambda name: (
    None,
    {"scale": jax.ShapeDtypeStruct((1,), "float32")},
  )
  config.evaluation.c3d_weights = _weights("c3d", nothing, tmp_path)
  network = lambda batch: {"probabilities": np.full((len(batch), 4), 0.25)}
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(protocol_run.measurements, "load_network", lambda *_: network)
    untrained.write(str(tmp_path / "run"), config)
    held_out.evaluate_all(offline.open_model(str(tmp_path / "run"), config))
  names = {path.stem for path in (tmp_path / "run" / "results").iterdir()}
  assert names == {"interpolation", "is_c3d@2x1"}
  assert (tmp_path / "run" / "samples" / "class_conditional.gif").exists()
  # Training does not keep the features of a step.
  assert not list((tmp_path / "run" / "features").glob("*made*"))


@pytest.mark.parametrize(
  "name", [None, pytest.param("inception", marks=pytest.mark.rows)]
)
def test_fid_of_somebody_elses_images(name, tmp_path, monkeypatch):
  network, weights = _network(name, tmp_path, monkeypatch)
  rng = np.random.default_rng(0)
  images = [
    rng.integers(0, high, (8, 32, 32, 3), np.uint8) for high in (256, 99)
  ]
  paths = [str(tmp_path / f"{name}.npz") for name in ("made", "real")]
  for path, array in zip(paths, images, strict=True):
    np.savez(path, arr_0=array)
  record = _score(
    tmp_path,
    "adm_imagenet",
    **dict(input=paths[0], reference=paths[1], weights=weights),
  )
  assert record["evaluator"] == "adm_imagenet@8x1"
  features = [network(array) for array in images]
  for name, layer in (("fid", "pool3"), ("sfid", "spatial")):
    np.testing.assert_allclose(
      record["metrics"][name],
      _distance(*(f[layer] for f in features)),
      rtol=1e-4,
    )
  assert {"precision", "recall", "density", "coverage"} < set(record["metrics"])


def test_ms_ssim_and_lpips_of_large_images(tmp_path):
  weights = _weights("lpips_vgg", perceptual.define, tmp_path)
  real = raw_data.frames(2, 0, 176, 176)
  made = np.clip(np.int16(real) + 30, 0, 255).astype(np.uint8)
  paths = [str(tmp_path / f"{name}.npz") for name in ("made", "real")]
  np.savez(paths[0], arr_0=made)
  np.savez(paths[1], arr_0=real)
  record = _score(
    tmp_path,
    "reconstruction",
    **dict(input=paths[0], reference=paths[1], weights=weights),
  )
  distance = lpips.Lpips(weights)
  np.testing.assert_allclose(
    record["metrics"]["lpips"],
    distance(real[:, None], made[:, None]).mean(),
    rtol=1e-5,
  )
  assert record["protocol"]["weights_sha256"] == distance.weights_sha256
  assert 0.5 < record["metrics"]["ms_ssim"] < 1
