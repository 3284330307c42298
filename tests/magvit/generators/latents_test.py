"""Tests of magvit/generators/latents.py and latent_generator.py."""

from typing import ClassVar

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import latent_base
from input_pipeline import pipeline
from input_pipeline.sources import token_shards
from magvit import algorithm as algorithm_lib
from magvit import mesh as mesh_lib
from magvit.generators import latent_generator
from magvit.generators import latents as latents_lib
from magvit.generators import masked
from magvit.generators import tasks as tasks_lib
from models import network
from models.tokenizer import tokenizer as tokenizer_network
from tests import tiny


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
    raise NotImplementedError

  def sample(self, params, batch, key):
    raise NotImplementedError


@pytest.fixture(scope="module")
def one_device():
  return mesh_lib.make_mesh(tiny.tokenizer().mesh, jax.devices()[:1])


def _config(tokenizer_workdir):
  config = latent_base.latent_generator()
  return tiny.latent_generator(config, tokenizer_workdir)


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
  for _ in range(2):  # the first step of the warm-up has a rate of 0
    last, (state, metrics) = state, built.descend(state, gradient, {})
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
