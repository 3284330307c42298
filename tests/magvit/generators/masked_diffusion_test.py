"""Tests of magvit/generators/masked_diffusion.py: conditioning and training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from magvit import mesh as mesh_lib
from magvit.generators import masked_diffusion
from magvit.generators import sampling
from magvit.generators import tasks
from tests import batches
from tests import tiny

_WHOLE_FRAMES = [
  f"tasks.{name}"
  for name in tasks.TASKS
  if tasks.given_frames(name, (5, 16, 16), 3).any()
]


@pytest.fixture(scope="module")
def one_device():
  return mesh_lib.make_mesh(tiny.tokenizer().mesh, jax.devices()[:1])


@pytest.fixture(scope="module")
def built(tiny_tokenizer_workdir, one_device):
  """Guidance and detail are on, so that one program has everything.

  It is strong, because a class changes the outputs of drawn weights by 1e-4.
  """
  config = tiny.masked_diffusion(tiny_tokenizer_workdir)
  config.sampling.guidance = 1000.0
  config.sampling.carry_detail = True
  algorithm = masked_diffusion.MaskedDiffusion.build(config, one_device)
  return config, algorithm, tiny.drawn_state(algorithm)


@pytest.fixture(scope="module")
def tokenize(built):
  _, algorithm, state = built
  return batches.tokenizing(algorithm, state)


@pytest.fixture(scope="module")
def sample(built):
  """The function (batch, key) -> samples, one program for all tasks."""
  _, algorithm, state = built
  return batches.one_program(algorithm.sample, state.predict_params())


def test_samples_follow_the_key_and_are_videos(built, sample):
  batch = batches.with_task(built[0], "class_conditional")
  out = sample(batch)
  assert out["video"].shape == (8, 5, 16, 16, 3)
  assert 0 <= out["video"].min() and out["video"].max() <= 1
  assert out["ids"].shape == (8, 3, 8, 8)
  np.testing.assert_array_equal(out["ids"], sample(batch)["ids"])
  assert (out["ids"] != sample(batch, jax.random.key(1))["ids"]).any()


@pytest.mark.slow
@pytest.mark.parametrize("task", sorted(tasks.TASKS))
def test_a_task_keeps_exact_latents_and_sees_given_pixels_only(
  built, sample, tokenize, task
):
  config = built[0]
  batch = batches.with_task(config, task)
  made = sample(batch)
  ids = made["ids"]
  kept = tasks.kept_latents(task, (3, 8, 8), 3, 2)
  truth = tokenize(batch).reshape(ids.shape)
  np.testing.assert_array_equal(ids[:, kept], truth[:, kept])
  pixels = tasks.given_pixels(task, (5, 16, 16), 3)
  hidden = {**batch, "video": batch["video"].copy()}
  hidden["video"][:, ~pixels] = 77
  again = sample(hidden)
  np.testing.assert_array_equal(ids, again["ids"])
  np.testing.assert_array_equal(made["video"], again["video"])
  whole = pixels.all((1, 2))
  real = batch["video"] / np.float32(255)
  video = made["video"]
  np.testing.assert_allclose(video[:, whole], real[:, whole], atol=1e-6)
  other = {**batch, "label": (batch["label"] + 1) % 10}
  changed = (sample(other)["ids"] != ids).any()
  assert changed == tasks.TASKS[task].class_conditional


@pytest.fixture(scope="module")
def masked(built):
  """Masked clips of a task with given and kept latents, and their task."""
  config, algorithm, state = built
  batch = batches.with_task(config, "interpolation")
  z_BthwC = jax.jit(algorithm.latents.encode_batch)(state.frozen, batch)
  condition_BthwC, _ = jax.jit(algorithm.condition)(
    state.frozen, batch, batch["task"]
  )
  flat = lambda x: x.reshape(8, 192, 6)
  keys = tuple(jax.random.split(jax.random.key(3), 3))
  masked = jax.jit(algorithm.mask)(
    keys, batch["task"], flat(z_BthwC), flat(condition_BthwC), batch["label"]
  )
  return masked, batch["task"], flat(condition_BthwC)


def test_the_loss_is_of_masked_latents_and_not_of_given_ones(built, masked):
  config, algorithm, state = built
  masked, task, condition_BNC = masked
  params = state.params["denoiser"]
  weight_BN = np.asarray(masked.weight_BN)
  kept_N = tasks.kept_latents("interpolation", (3, 8, 8), 3, 2).reshape(-1)
  assert not weight_BN[:, kept_N].any()
  # The last frame is given: where it is chosen, the input is the condition's.
  given_N = tasks.given_latents("interpolation", (3, 8, 8), 3, 2).reshape(-1)
  refined_BN = (weight_BN > 0) & given_N[None]
  assert refined_BN.any() and not np.asarray(masked.masked_BN)[refined_BN].any()
  np.testing.assert_array_equal(
    masked.input_BNC[refined_BN],
    np.repeat(condition_BNC, 2, axis=0)[refined_BN],
  )
  np.testing.assert_allclose(weight_BN.mean(), 1, rtol=1e-5)
  # The head's targets elsewhere are not read.
  loss = jax.jit(
    lambda noise: algorithm.loss(
      params, masked.replace(noise_BNKC=noise), task, None
    )[0]
  )
  gradient = jax.jit(jax.grad(loss))(masked.noise_BNKC)
  np.testing.assert_array_equal((gradient != 0).any((2, 3)), weight_BN > 0)


def test_a_new_model_has_an_error_of_one(built, masked):
  _, algorithm, state = built
  masked, task, _ = masked
  zeros = jax.tree.map(jnp.zeros_like, state.params["denoiser"])
  loss, metrics = jax.jit(
    lambda params: algorithm.loss(params, masked, task, None)
  )(zeros)
  # A mean of about 12,000 squares of noise.
  np.testing.assert_allclose(metrics["noise_error"], 1, atol=0.05)
  np.testing.assert_allclose(
    loss, metrics["noise_error"] + metrics["bound"], rtol=1e-6
  )
  assert metrics["bound"] > 0


@pytest.mark.rows
@pytest.mark.slow
def test_parts_of_a_batch_train_as_the_whole_does(
  built, tiny_tokenizer_workdir, one_device
):
  config, algorithm, state = built
  config = config.copy_and_resolve_references()
  config.microbatches = 4
  config.denoiser.dropout = 0.0
  parts = masked_diffusion.MaskedDiffusion.build(config, one_device)
  config.microbatches = 1
  whole = masked_diffusion.MaskedDiffusion.build(config, one_device)
  batch = batches.with_task(config, "class_conditional")
  (_, a), (_, b) = (
    jax.jit(x.step)(state, batch, jax.random.key(5)) for x in (parts, whole)
  )
  for name in ("loss", "noise_error", "bound", "gradient_norm"):
    np.testing.assert_allclose(a[name], b[name], rtol=1e-4, err_msg=name)


def test_guidance_moves_the_noise_and_not_the_variance():
  output = jnp.array([[[1.0, 5.0]], [[0.5, 7.0]]])
  guided = masked_diffusion.guide_noise(output, jnp.array(2.0))
  np.testing.assert_allclose(guided, [[[2.0, 5.0]]])


def test_mars_masks_are_of_seven_tenths_at_the_least():
  keys = jax.random.split(jax.random.key(0), 300)
  masks = jax.vmap(
    lambda key: sampling.training_mask(key, 2, 100, False, "normal")
  )(keys)
  masked = masks.sum(-1)
  np.testing.assert_array_equal(masked[:, 0], masked[:, 1])  # one for a batch
  assert 70 <= masked.min() and masked.max() == 100
  # 0.867 is the mean of the truncated normal distribution; 0.5 of rounding up.
  np.testing.assert_allclose(masked.mean(), 87.2, atol=1.5)
  assert sampling.least_masked(100, "normal") <= masked.min()


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"denoiser.trunk": "ours"}, "denoiser.trunk='ours' must be one of"),
    ({"mask_ratio": "sine"}, "mask_ratio='sine' must be one of"),
    ({"denoiser.trunk": "autoencoder"}, "is for the task class_conditional"),
    ({"sampling.diffusion_steps": 1}, "diffusion_steps=1 must be from 2"),
    (
      {"sampling.carry_detail": True, **dict.fromkeys(_WHOLE_FRAMES, 0.0)},
      "carry_detail=True .* are given none: set it to False",
    ),
  ],
)
def test_fields_that_cannot_work_are_refused(
  tiny_tokenizer_workdir, one_device, fields, message
):
  config = tiny.masked_diffusion(tiny_tokenizer_workdir)
  config.update_from_flattened_dict(fields)
  with pytest.raises(ValueError, match=message):
    masked_diffusion.MaskedDiffusion.build(config, one_device, abstract=True)


@pytest.mark.rows
@pytest.mark.slow
def test_mars_trunk_trains_and_samples(tiny_tokenizer_workdir, one_device):
  config = tiny.masked_diffusion(tiny_tokenizer_workdir)
  for task in config.tasks:
    config.tasks[task] = float(task == "class_conditional")
  config.denoiser.trunk, config.mask_ratio = "autoencoder", "normal"
  algorithm = masked_diffusion.MaskedDiffusion.build(config, one_device)
  state = tiny.drawn_state(algorithm)
  batch = batches.with_task(config, "class_conditional")
  _, metrics = jax.jit(algorithm.step)(state, batch, jax.random.key(0))
  assert np.isfinite(metrics["loss"]) and metrics["gradient_norm"] > 0
  out = jax.jit(algorithm.sample)(
    state.predict_params(), batch, jax.random.key(0)
  )
  assert out["ids"].shape == (8, 3, 8, 8)
