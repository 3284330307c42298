"""Tests of magvit/generators/latents.py and latent_generator.py."""

import dataclasses
import json
import pathlib
import shutil
from typing import ClassVar

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import latent_base
from input_pipeline import pipeline
from input_pipeline.sources import token_shards
import magvit
from magvit import algorithm as algorithm_lib
from magvit import mesh as mesh_lib
from magvit import trained as trained_lib
from magvit.generators import latent_generator
from magvit.generators import latents as latents_lib
from magvit.generators import masked
from magvit.generators import tasks as tasks_lib
from magvit.modes import export as export_mode
from magvit.workdir import latent_statistics
from models import network
from models.tokenizer import tokenizer as tokenizer_network
from tests import tiny
from tests import untrained


class Linear(latent_generator.LatentGenerator):
  """The smallest generator of latents: a linear map of their channels."""

  facts: ClassVar = algorithm_lib.Facts(
    kind=algorithm_lib.GENERATOR,
    network="denoiser",
    section="denoiser",
    leading_metrics=("loss",),
    evaluators=("samples",),
    defining=latents_lib.DEFINING,
  )

  @classmethod
  def build(cls, config, mesh, abstract=False):
    parts = latent_generator.open_parts(config, mesh, abstract)
    channels = parts["latents"].channels
    net = network.define(lambda rngs: nnx.Linear(channels, channels, rngs=rngs))
    return cls(**parts, denoiser=net)

  def step(self, state, batch, key):
    z = self.latents.encode_batch(state.frozen, batch)
    loss = lambda params: jnp.square(self.denoiser(params, z) - z).mean()
    value, gradient = jax.value_and_grad(loss)(state.params["denoiser"])
    return self.descend(state, gradient, {"loss": value})

  def sample(self, params, batch, key):
    """The network's answer to noise, whatever the task."""
    grid = (batch["label"].shape[0], *self.latents.shape, self.latents.channels)
    noise = jax.random.normal(key, grid)
    return self.latents.decode(params, self.denoiser(params["denoiser"], noise))


@pytest.fixture(scope="module")
def one_device():
  return mesh_lib.make_mesh(tiny.tokenizer().mesh, jax.devices()[:1])


def _config(tokenizer_workdir, kind="bits"):
  config = latent_base.latent_generator()
  config.algorithm, config.latents.kind = "linear", kind
  return tiny.latent_generator(config, tokenizer_workdir)


@pytest.fixture(scope="module")
def continuous_tokenizer(tmp_path_factory):
  """A workdir with an untrained tokenizer that has no quantizer."""
  workdir = str(tmp_path_factory.mktemp("continuous"))
  config = tiny.tokenizer()
  config.quantizer.name, config.quantizer.embedding_dim = "none", 6
  untrained.write(workdir, config)
  return workdir


@pytest.fixture(scope="module")
def continuous(continuous_tokenizer, one_device):
  """A generator of a new run, with measured statistics."""
  config = _config(continuous_tokenizer, "continuous")
  return Linear.build(config, one_device).measured(one_device)


@pytest.fixture(scope="module")
def workdir(continuous_tokenizer, tmp_path_factory):
  """The workdir of a generator of continuous latents after its first step."""
  workdir = str(tmp_path_factory.mktemp("generator"))
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(trained_lib.ALGORITHMS, "linear", Linear)
    untrained.write(workdir, _config(continuous_tokenizer, "continuous"))
  return workdir


@pytest.fixture(scope="module")
def built(tiny_tokenizer_workdir, one_device):
  return Linear.build(_config(tiny_tokenizer_workdir), one_device)


@pytest.fixture(scope="module")
def batch(built):
  return next(pipeline.train_batches(built.config.dataset, 4))


@pytest.fixture(scope="module")
def codes(built, batch):
  return jax.jit(built.latents.encode_batch)(built.frozen, batch)


def test_bits_are_the_signs_of_the_tokens_and_decode_as_they_do(
  built, batch, codes
):
  assert codes.shape == (4, 3, 8, 8, 6)
  assert codes.dtype == jnp.float32
  assert (jnp.abs(codes) == 1).all()
  latents = built.latents
  decode = jax.jit(latents.decode)
  clips = decode(built.frozen, codes)
  video = tokenizer_network.to_float(batch["video"])
  params = built.frozen["tokenizer"]
  ids_BN = jax.jit(latents.tokens.encode)(params, video)
  np.testing.assert_array_equal(clips["ids"].reshape(4, -1), ids_BN)
  output, quantized, _ = jax.jit(latents.tokens.network)(params, video)
  np.testing.assert_array_equal(codes, quantized.z)
  np.testing.assert_allclose(
    clips["video"], jnp.clip(output, 0.0, 1.0), atol=1e-5
  )
  # The decoder sees signs, whatever their size; zero counts as positive.
  noisy = decode(
    built.frozen,
    codes * np.linspace(0.01, 3.0, 6, dtype=np.float32)[None, None, None, None],
  )
  np.testing.assert_array_equal(noisy["video"], clips["video"])
  zero = decode(built.frozen, jnp.where(codes > 0, 0.0, codes))
  np.testing.assert_array_equal(zero["ids"], clips["ids"])


def test_stored_ids_give_the_latents_of_their_clips(built, batch, codes):
  ids = latents_lib.bits_lib.codes_to_ids(codes)
  stored = {"ids": ids, "label": batch["label"]}
  again = built.latents.encode_batch(built.frozen, stored)
  np.testing.assert_array_equal(again, codes)


@pytest.fixture(scope="module")
def masked_twin(tiny_tokenizer_workdir, one_device):
  config = tiny.masked(tiny_tokenizer_workdir)
  return masked.MaskedGenerator.build(config, one_device)


@pytest.fixture(scope="module")
def conditions(built, masked_twin):
  """Programs of (batch, task): latents and mask, and the masked twin's ids."""
  factor = masked_twin.config.transformer.factor_bits

  @jax.jit
  def twin(batch, task):
    _, parts_BNF = masked_twin.tokenize(built.frozen["tokenizer"], batch, task)
    low, high = parts_BNF[..., 0], parts_BNF[..., 1]
    return low + 2 ** factor[0] * high

  program = jax.jit(built.condition)
  return lambda batch, task: program(built.frozen, batch, task), twin


@pytest.mark.parametrize("task", sorted(tasks_lib.TASKS))
def test_a_task_is_given_what_the_masked_generator_is_given(
  built, masked_twin, batch, conditions, task
):
  condition, twin = conditions
  place = np.int32(built.tasks.names.index(task))
  assert masked_twin.tasks.names == built.tasks.names
  z, given = condition(batch, place)
  expected = masked_twin.given_SN[place].reshape(3, 8, 8)
  np.testing.assert_array_equal(given, np.broadcast_to(expected, given.shape))
  np.testing.assert_array_equal(
    built.kept_Sthw[place], masked_twin.fixed_SN[place].reshape(3, 8, 8)
  )
  ids = np.asarray(twin(batch, place)).reshape(4, 3, 8, 8)
  signs = latents_lib.bits_lib.ids_to_codes(jnp.asarray(ids), 6)
  np.testing.assert_array_equal(
    z, np.where(expected[None, ..., None], signs, 0)
  )


@pytest.mark.parametrize("task", ["frame_prediction", "interpolation"])
def test_stored_condition_ids_give_the_latents_of_the_condition_clip(
  built, batch, codes, conditions, task
):
  condition, twin = conditions
  place = np.int32(built.tasks.names.index(task))
  ids = latents_lib.bits_lib.codes_to_ids(codes)
  stored = {"ids": ids, "label": batch["label"]}
  for name in built.tasks.names:
    there = np.int32(built.tasks.names.index(name))
    if tasks_lib.needs_clip(name) and not tasks_lib.TASKS[name].exact:
      of_clip = twin(batch, there) if name == task else ids
      stored[token_shards.CONDITION + name] = of_clip.reshape(ids.shape)
  for a, b in zip(
    condition(batch, place), condition(stored, place), strict=True
  ):
    np.testing.assert_array_equal(a, b)


def test_the_average_follows_the_weights_and_predicts(built):
  state = built.init(jax.random.key(0))
  before = state.params["denoiser"]
  gradient = jax.tree.map(jnp.ones_like, before)
  descend = jax.jit(built.descend)
  for _ in range(2):  # the first step of the warm-up has a rate of 0
    last, (state, metrics) = state, descend(state, gradient, {})
  assert metrics["gradient_norm"] == pytest.approx(42**0.5)
  decay = built.config.ema_decay
  moved = jax.tree.map(
    lambda a, b: decay * a + (1 - decay) * b,
    last.ema["denoiser"],
    state.params["denoiser"],
  )
  jax.tree.map(np.testing.assert_allclose, state.ema["denoiser"], moved)
  kernel = lambda tree: np.asarray(tree["denoiser"]["kernel"])
  assert (kernel(state.params) != kernel(last.params)).all()
  predicting = state.predict_params()["denoiser"]["kernel"]
  np.testing.assert_array_equal(predicting, kernel(state.ema))


def test_tokenized_clips_are_the_tokenizers_reconstructions(built, batch):
  clips = jax.jit(built.tokenized)(built.frozen, batch, None)
  video = tokenizer_network.to_float(batch["video"])
  net, params = built.latents.tokens.network, built.frozen["tokenizer"]
  output, _, _ = jax.jit(net)(params, video)
  np.testing.assert_allclose(
    clips["video"], jnp.clip(output, 0.0, 1.0), atol=1e-5
  )


@pytest.mark.parametrize(
  "kind, quantizer, message",
  [
    ("words", "lfq", r"latents.kind='words' must be one of .*'bits'"),
    ("bits", "vq", r"latents.kind=bits needs .*\(lfq, bsq\).*name='vq'"),
    ("bits", "none", r"='none': name another, or set latents.kind=continuous$"),
    ("continuous", "lfq", r"='lfq', .*=none, or set latents.kind=bits$"),
    ("continuous", "vq", "='vq', and a decoder that .* quantizer.name=none$"),
  ],
)
def test_unfit_latents_are_refused(
  tmp_path, kind, quantizer, message, one_device
):
  made_by = tiny.tokenizer()
  made_by.quantizer.name = quantizer
  workdir = tmp_path / "config.json"
  workdir.write_text(made_by.to_json())
  config = _config(str(tmp_path))
  config.latents.kind = kind
  with pytest.raises(ValueError, match=message):
    latents_lib.open_latents(config, one_device, abstract=True)


def test_continuous_latents_are_normalised_and_decode_as_they_were(
  continuous, batch
):
  latents = continuous.latents
  batches = pipeline.train_batches(continuous.config.dataset, 8)
  measured = np.concatenate([next(batches)["video"] for _ in range(8)])
  encode = jax.jit(latents.encode_batch)
  z = encode(continuous.frozen, {"video": measured})
  assert z.shape == (64, 3, 8, 8, 6) and z.dtype == jnp.float32
  np.testing.assert_allclose(z.mean((0, 1, 2, 3)), 0.0, atol=1e-4)
  np.testing.assert_allclose(z.std((0, 1, 2, 3)), 1.0, atol=1e-4)
  out = jax.jit(continuous.tokenized)(continuous.frozen, batch, None)
  video = tokenizer_network.to_float(batch["video"])
  params = continuous.frozen["tokenizer"]
  output, _, _ = jax.jit(latents.tokens.network)(params, video)
  assert set(out) == {"video"}
  np.testing.assert_allclose(out["video"], jnp.clip(output, 0, 1), atol=1e-5)
  decoded = jax.eval_shape(latents.decode, continuous.frozen, z[:1])
  assert set(decoded) == {"video"}  # there are no ids


def test_statistics_are_measured_once_and_read_ever_after(
  continuous, workdir, one_device, monkeypatch
):
  monkeypatch.setitem(trained_lib.ALGORITHMS, "linear", Linear)
  measured = continuous.latents.statistics
  monkeypatch.setattr(pipeline, "train_batches", None)  # nothing is read
  config = _config("gone", "continuous")
  resolved = trained_lib.resolve(config, workdir, training=True)
  again = trained_lib.build(resolved, one_device).frozen["latents"]
  for name in ("mean", "std"):
    assert again[name].dtype == np.float32
    # They were measured on other devices there.
    np.testing.assert_allclose(again[name], measured[name], atol=1e-5)
  # A run that starts from those weights keeps what they were trained with.
  config.init_from = workdir
  unmeasured = dataclasses.replace(continuous.latents, statistics=None)
  kept = unmeasured.measured(config, one_device).statistics
  np.testing.assert_array_equal(kept["mean"], again["mean"])


def test_an_export_carries_the_statistics_into_programs(
  workdir, tmp_path, monkeypatch
):
  monkeypatch.setitem(trained_lib.ALGORITHMS, "linear", Linear)
  folder = tmp_path / "export"
  export_mode.export(workdir, str(folder), stablehlo=True)
  path = pathlib.Path("tokenizer", latent_statistics.FILE)
  assert (folder / path).read_text() == pathlib.Path(workdir, path).read_text()
  key, generator = jax.random.key(3), magvit.load_generator(folder)
  sample = generator.sample(key, 2)
  np.testing.assert_array_equal(
    sample, magvit.load_generator(workdir).sample(key, 2)
  )
  assert sample.std() > 0
  output = magvit.load_program(folder, "sample")(
    key=np.asarray(jax.random.key_data(key)),
    task=np.array(0, np.int32),
    label=np.zeros(2, np.int32),
    video=np.zeros((2, 5, 16, 16, 3), np.float32),
  )
  np.testing.assert_allclose(output["video"], sample, atol=1e-6)
  statistics = json.loads((folder / path).read_text())
  statistics["std"][0] *= 2
  (folder / path).write_text(json.dumps(statistics))
  with pytest.raises(ValueError, match="latents.json is not the file that was"):
    magvit.load_generator(folder)


@pytest.mark.parametrize(
  "text, message",
  [
    (None, "lacks latents.json, by which .*: copy the whole folder"),
    ('{"mean": [0], "std": [1]}', "has 1 numbers in mean, .* has 6 channels"),
    ('{"mean": [0], "std": [0]}', r"latents.json.* std.0. .* above 0"),
    ("{", "latents.json"),
  ],
)
def test_a_generator_without_its_statistics_is_refused(
  workdir, tmp_path, monkeypatch, text, message
):
  monkeypatch.setitem(trained_lib.ALGORITHMS, "linear", Linear)
  copy = shutil.copytree(workdir, tmp_path / "copy")
  path = copy / "tokenizer" / latent_statistics.FILE
  path.unlink() if text is None else path.write_text(text)
  with pytest.raises(ValueError, match=message) as raised:
    trained_lib.open_trained(str(copy))
  assert "\n" not in str(raised.value)


def test_a_channel_that_does_not_vary_is_refused(
  continuous, one_device, monkeypatch
):
  still = np.random.default_rng(0).normal(size=(20, 6))
  still[:, 4] = 0.1
  monkeypatch.setattr(
    latents_lib.Latents, "_training_latents", lambda *unused: still
  )
  with pytest.raises(ValueError, match="^channel 4 .* has one value in 20 "):
    continuous.latents.measured(continuous.config, one_device)


def test_stored_tokens_have_no_continuous_latents(
  continuous_tokenizer, one_device
):
  config = _config(continuous_tokenizer, "continuous")
  config.dataset.tokens = "tokens"
  match = "^dataset.tokens=tokens holds ids, .*kind=continuous .*from pixels$"
  with pytest.raises(ValueError, match=match):
    latents_lib.open_latents(config, one_device)
