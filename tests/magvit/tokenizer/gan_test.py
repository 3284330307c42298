"""Tests of magvit/tokenizer/gan.py: the step, its settings, joint training."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from input_pipeline import pipeline
from magvit import mesh as mesh_lib
from magvit import optimizer
from magvit.tokenizer import describe
from magvit.tokenizer import gan
from tests import tiny


def _build(config):
  mesh = mesh_lib.make_mesh(config.mesh, jax.devices()[:1])
  algorithm = gan.TokenizerGan.build(config, mesh)
  return algorithm, tiny.drawn_state(algorithm)


@pytest.fixture
def gradients_kept(monkeypatch):
  """Makes the parameters after a step the gradients that it computed."""
  keep = optax.GradientTransformation(
    lambda params: (), lambda g, s, p: (jax.tree.map(jnp.subtract, g, p), s)
  )
  monkeypatch.setattr(optimizer, "make_optimizer", lambda *args: keep)


def _gradients(config, state, batch):
  algorithm, _ = _build(config)
  state, metrics = jax.jit(algorithm.step)(state, batch, jax.random.key(0))
  return jax.device_get(state.params), metrics


@pytest.mark.slow
@pytest.mark.usefixtures("gradients_kept")
def test_joint_gradients_are_those_of_images_and_clips_added():
  """Metrics of both kinds of examples are told apart, too."""
  joint = tiny.tokenizer()
  joint.dataset.joint_images = 2
  joint.loss.joint_images = 0.5
  joint.loss.entropy_start_factor = 1.0
  _, state = _build(joint)
  video = jax.random.uniform(jax.random.key(1), (2, 5, 16, 16, 3))
  image = jax.random.uniform(jax.random.key(2), (2, 1, 16, 16, 3))
  both, metrics = _gradients(joint, state, {"video": video, "image": image})
  for name in ("generator/loss", "discriminator/accuracy"):
    assert name in metrics and f"image/{name}" in metrics
  for name in ("generator", "discriminator", "image_discriminator"):
    assert f"{name}/gradient_norm" in metrics
  assert metrics["health/flip_rate"].shape == (6,)

  clips = tiny.tokenizer()
  clips.loss.entropy_start_factor = 1.0
  images = tiny.tokenizer()
  images.loss.entropy_start_factor = 1.0
  images.dataset.frames = 1  # the same causal tokenizer, on clips of one frame
  alone = {}
  for name, config, data, discriminator in (
    ("clips", clips, video, "discriminator"),
    ("images", images, image, "image_discriminator"),
  ):
    _, state_alone = _build(config)
    params = {
      "tokenizer": state.params["tokenizer"],
      "discriminator": state.params[discriminator],
    }
    state_alone = state_alone.replace(params=jax.tree.map(jnp.copy, params))
    alone[name], _ = _gradients(config, state_alone, {"video": data})
  added = jax.tree.map(
    lambda a, b: a + 0.5 * b,
    alone["clips"]["tokenizer"],
    alone["images"]["tokenizer"],
  )
  close = lambda a, b: np.testing.assert_allclose(
    a, b, atol=1e-5 * max(1.0, np.abs(b).max())
  )
  jax.tree.map(close, both["tokenizer"], added)
  for name in ("clips", "images"):
    joint_name = "discriminator" if name == "clips" else "image_discriminator"
    jax.tree.map(close, both[joint_name], alone[name]["discriminator"])


@pytest.mark.slow
@pytest.mark.usefixtures("gradients_kept")
def test_microbatches_take_less_memory_and_change_nothing():
  """Entropy and LeCAM, taken over the whole batch, are included."""
  distance = lambda params, x, y: params * jnp.square(x - y).mean((1, 2, 3))
  config = tiny.tokenizer()
  config.loss.lecam = 1.0
  mesh = mesh_lib.make_mesh(config.mesh, jax.devices()[:1])
  batch = {"video": jax.random.uniform(jax.random.key(1), (8, 5, 16, 16, 3))}
  memory, runs = [], []
  for config.microbatches in (1, 4):
    algorithm = dataclasses.replace(
      gan.TokenizerGan.build(config, mesh),
      distance=distance,
      perceptual_params=jnp.float32(3.0),
    )
    state = tiny.drawn_state(algorithm)
    arguments = (state, batch, jax.random.key(0))
    step = jax.jit(algorithm.step).lower(*arguments).compile()
    memory.append(step.memory_analysis().temp_size_in_bytes)
    state, metrics = step(*arguments)
    runs.append((state.params, metrics))
  assert memory[1] < 0.5 * memory[0]
  # Sums of float32 in another order differ by 1e-6, of which the entropy's
  # temperature of 0.01 makes a hundred times more. The entropy of a part of the
  # batch would be another number altogether.
  close = lambda a, b: np.testing.assert_allclose(
    a, b, atol=5e-4 * max(1e-2, np.abs(b).max())
  )
  jax.tree.map(close, *runs)
  assert runs[0][1]["generator/perceptual"] > 0
  assert runs[0][1]["discriminator/r1"] > 0


@pytest.mark.parametrize(
  "name",
  [
    # tests/configs/tokenizers_test.py takes a step with a codebook, too.
    pytest.param("vq", marks=pytest.mark.rows),
    pytest.param("fsq", marks=pytest.mark.rows),
    pytest.param("bsq", marks=pytest.mark.rows),
    pytest.param("none", marks=pytest.mark.rows),
  ],
)
def test_a_step_with_each_quantizer(name):
  config = tiny.tokenizer()
  config.quantizer.name = name
  config.quantizer.codebook_size, config.quantizer.embedding_dim = 16, 8
  config.quantizer.levels = (5, 4)
  algorithm, state = _build(config)
  batch = {"video": jax.random.uniform(jax.random.key(1), (2, 5, 16, 16, 3))}
  state, metrics = jax.jit(algorithm.step)(state, batch, jax.random.key(0))
  assert all(np.isfinite(v).all() for v in metrics.values())
  assert metrics["generator/gradient_norm"] > 0
  if name == "none":
    assert "health/codes_used" not in metrics and state.extras["health"] == {}
    assert metrics["health/dead_channels"] == 0
  else:
    assert 0 < metrics["health/codes_used"] <= 1


def test_a_codebook_from_data_is_made_of_latents():
  config = tiny.tokenizer()
  config.quantizer.name = "vq"
  config.quantizer.codebook_size, config.quantizer.embedding_dim = 16, 8
  config.codebook_from_data = True
  algorithm, state = _build(config)
  before = np.asarray(state.params["tokenizer"]["quantizer"]["codebook"])
  state = algorithm.warm_start(state)
  after = np.asarray(state.params["tokenizer"]["quantizer"]["codebook"])
  assert after.shape == before.shape and (after != before).all()
  np.testing.assert_array_equal(
    after, state.ema["tokenizer"]["quantizer"]["codebook"]
  )
  video = next(pipeline.eval_batches(config.dataset, "train", 8, 8))[0]["video"]
  generator = describe.define_tokenizer(config)
  latents = jax.jit(lambda p, v: generator(p, v, method="encode_latents"))(
    state.params["tokenizer"], video / np.float32(255)
  )
  distance = np.abs(after[:, None] - np.asarray(latents).reshape(1, -1, 8)).max(
    -1
  )
  assert distance.min(-1).max() < 1e-4  # every row is some token's latent


@pytest.mark.parametrize(
  "field, value, message",
  [
    ("loss.gan", "wasserstein", "^loss.gan='wasserstein' .*'non_saturating'"),
    ("loss.r1_interval", 0, "^loss.r1_interval=0 .*at least 1"),
    ("health_every", 0, "^health_every=0 .*at least 1"),
    ("inflate_from", "", "^inflate_from .*--config.inflate_from=DIR.*'none'"),
    ("discriminator.pool", "max", r"^discriminator.pool='max' .*\['"),
    (
      "codebook_from_data",
      True,
      "^codebook_from_data=True .*quantizer.name='vq'.*'lfq'",
    ),
    ("quantizer.name", "rvq", "quantizer.name='rvq'"),
  ],
)
def test_settings_that_cannot_work_are_refused(field, value, message):
  config = tiny.tokenizer()
  config.update_from_flattened_dict({field: value})
  with pytest.raises(ValueError, match=message):
    _build(config)
