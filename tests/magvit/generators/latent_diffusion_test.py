"""Tests of magvit/generators/latent_diffusion.py and denoising.py."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from input_pipeline import pipeline
from magvit import mesh as mesh_lib
from magvit.generators import latent_diffusion
from magvit.generators import masked
from tests import tiny

_TASKS = {"class_conditional": 0, "frame_prediction": 1, "interpolation": 3}


class Perfect(latent_diffusion.LatentDiffusion):
  """Knows the clean latents: those that a condition calls given."""

  def _run(self, params, z_BthwC, time_Bf, hint_BthwC, condition):
    del params, hint_BthwC
    t_Bf11 = time_Bf[:, :, None, None]
    signal, scale = (x[..., None] for x in self.process.scales(t_Bf11))
    noise = (z_BthwC - signal * condition.given_BthwC) / scale
    return self.process.target(condition.given_BthwC, noise, t_Bf11)


@pytest.fixture(scope="module")
def mesh():
  return mesh_lib.make_mesh(tiny.tokenizer().mesh, jax.devices()[:1])


@pytest.fixture(scope="module")
def built(tiny_tokenizer_workdir, mesh):
  config = tiny.diffusion(tiny_tokenizer_workdir)
  return latent_diffusion.LatentDiffusion.build(config, mesh)


@pytest.fixture(scope="module")
def state(built):
  return tiny.drawn_state(built)


@pytest.fixture(scope="module")
def batch(built):
  return next(pipeline.train_batches(built.config.dataset, 4))


@pytest.fixture(scope="module")
def examples(built, batch):
  """Examples of a task by its place."""
  make = jax.jit(built.examples)
  return lambda task: make(built.frozen, batch, task, jax.random.key(0))


def test_the_loss_is_the_error_where_latents_are_not_kept(built, examples):
  """A new network predicts zero: the targets are left, about 1 in square."""
  example = examples(_TASKS["frame_prediction"])
  params = jax.tree.map(jnp.zeros_like, tiny.drawn_state(built).params)
  loss, _ = jax.jit(built.loss)(params["denoiser"], example, True)

  target = built.process.target(
    example.clean_BthwC, example.noise_BthwC, example.time_Bf[..., None, None]
  )
  # condition_frames are 3, two latent frames of the three.
  assert float(loss) == pytest.approx(
    float(jnp.square(target[:, 2:]).mean()), rel=1e-5
  )
  assert 0.7 < float(loss) < 1.3


def test_the_estimate_has_no_gradient_and_is_read(built, state, examples):
  example = examples(_TASKS["class_conditional"])
  params = state.params["denoiser"]
  value = jax.jit(jax.value_and_grad(lambda p, h: built.loss(p, example, h)[0]))
  (plain, _), (hinted, gradient) = value(params, False), value(params, True)
  assert not np.isclose(plain, hinted)

  t_Bf11 = example.time_Bf[..., None, None]
  z = built.process.add(example.clean_BthwC, example.noise_BthwC, t_Bf11)
  run = lambda params, hint: built._run(
    params, z, example.time_Bf, hint, example.condition
  )
  target = built.process.target(
    example.clean_BthwC, example.noise_BthwC, t_Bf11
  )

  @jax.jit
  def expected(params):
    hint = built.process.clean(z, run(params, jnp.zeros_like(z)), t_Bf11)
    loss = lambda params: jnp.square(run(params, hint) - target).mean()
    return jax.grad(loss)(params)

  for a, b in zip(
    jax.tree.leaves(gradient), jax.tree.leaves(expected(params)), strict=True
  ):
    np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize(
  "guidance", [pytest.param(0.0, marks=pytest.mark.rows), 1.0]
)
def test_given_latents_never_change(built, state, batch, guidance):
  """Those of frame prediction, which are exact, in samples of any network."""
  config = built.config.copy_and_resolve_references()
  config.sampling.guidance = guidance
  config.sampling.eta = 0.5
  algorithm = dataclasses.replace(built, config=config)
  params = {**state.params, **state.frozen}
  task = _TASKS["frame_prediction"]
  sample = jax.jit(
    lambda key: algorithm.sample(params, {**batch, "task": task}, key)
  )
  ids = [sample(jax.random.key(i))["ids"] for i in range(2)]

  encode = jax.jit(built.latents.tokens.encode)
  true = encode(params["tokenizer"], batch["video"] / 255)
  true = np.asarray(true).reshape(ids[0].shape)
  for drawn in ids:
    np.testing.assert_array_equal(drawn[:, :2], true[:, :2])
  assert (ids[0][:, 2:] != ids[1][:, 2:]).any()


def test_a_perfect_network_makes_the_clip(built, batch):
  perfect = Perfect(
    **{
      field.name: getattr(built, field.name)
      for field in dataclasses.fields(built)
    }
  )
  clean = jax.jit(built.latents.encode_batch)(built.frozen, batch)
  class_B = jnp.zeros(4, jnp.int32)
  condition = jax.jit(built._given)(built.frozen, batch, 0, class_B)
  condition = condition.replace(given_BthwC=clean)
  key = jax.random.key(0)

  made = jax.jit(lambda: perfect.denoise({}, condition, key, key))()

  np.testing.assert_allclose(made, clean, atol=1e-5)


def test_latents_that_have_seen_what_was_filled_in_are_made_anew(built):
  """The first latent frame of interpolation alone is kept."""
  place = built.tasks.names.index("interpolation")

  assert (
    built.kept_Sthw[place, 0].all() and not built.kept_Sthw[place, 1:].any()
  )
  assert built.given_Sthw[place, [0, -1]].all()


def test_without_a_condition_nothing_of_it_is_left(built, examples):
  condition = examples(_TASKS["interpolation"]).condition
  untold = condition.untold(10)

  assert (untold.class_Bf == 10).all()
  np.testing.assert_array_equal(untold.mask_Bthw, condition.kept_Bthw)
  kept = condition.kept_Bthw[..., None]
  np.testing.assert_array_equal(
    untold.given_BthwC, jnp.where(kept, condition.given_BthwC, 0)
  )
  assert condition.mask_Bthw[:, -1].all() and not untold.mask_Bthw[:, -1].any()


def test_images_are_trained_in_stacks_behind_the_clips(
  tiny_tokenizer_workdir, mesh
):
  config = tiny.diffusion(tiny_tokenizer_workdir)
  config.dataset.joint_images = 6
  algorithm = latent_diffusion.LatentDiffusion.build(config, mesh)
  batch = next(pipeline.train_batches(config.dataset, 4))
  make = jax.jit(
    lambda batch: algorithm.examples(
      algorithm.frozen, batch, _TASKS["frame_prediction"], jax.random.key(0)
    )
  )
  example = make(batch)
  condition = example.condition

  assert example.clean_BthwC.shape == (6, 3, 8, 8, 6)
  assert list(condition.stacked_B) == [False] * 4 + [True] * 2
  assert (condition.class_Bf[4:] == 10).all()
  assert not condition.mask_Bthw[4:].any() and condition.mask_Bthw[:4].any()
  # A clip has one time, each image of a stack another.
  assert (example.time_Bf[:4] == example.time_Bf[:4, :1]).all()
  assert len(np.unique(example.time_Bf[4:])) == 6
  # An image is the first frame of a clip that begins with it.
  images = np.repeat(batch["image"], 5, axis=1)
  encode = jax.jit(algorithm.latents.encode)
  clips = encode(algorithm.frozen, jnp.asarray(images) / 255)
  np.testing.assert_array_equal(
    example.clean_BthwC[4:].reshape(6, 8, 8, 6), clips[:, 0]
  )
  loss, _ = jax.jit(algorithm.loss)(
    tiny.drawn_state(algorithm).params["denoiser"], example, False
  )
  assert np.isfinite(loss)


@pytest.mark.slow
def test_super_resolution_reads_the_clip_at_half_its_size(
  tiny_tokenizer_workdir, mesh, batch
):
  config = tiny.diffusion(tiny_tokenizer_workdir)
  config.denoiser.upscales = True
  config.noise.process = "flow"
  algorithm = latent_diffusion.LatentDiffusion.build(config, mesh)
  state = tiny.drawn_state(algorithm)
  params = {**state.params, **state.frozen}
  sample = jax.jit(
    lambda video: algorithm.sample(
      params, {**batch, "video": video, "task": 0}, jax.random.key(0)
    )["video"]
  )
  clip = sample(batch["video"])
  example = jax.jit(algorithm.examples)(
    algorithm.frozen, batch, 0, jax.random.key(0)
  )

  assert example.condition.low_BthwC.shape == (4, 3, 4, 4, 6)
  assert (example.condition.low_time_B <= 0.3).all()
  assert clip.shape == batch["video"].shape
  # Details that half the size does not have are not read.
  halves = batch["video"].reshape(4, 5, 8, 2, 8, 2, 3)
  flipped = halves[:, :, :, ::-1].reshape(batch["video"].shape)
  np.testing.assert_array_equal(clip, sample(flipped))
  assert not np.array_equal(clip, sample(255 - batch["video"]))


@pytest.mark.parametrize(
  "fields, message",
  [
    ({"dataset.joint_images": 4}, "joint_images=4 must be a multiple of 3"),
    (
      {"dataset.joint_images": 3, "denoiser.text_width": 8},
      "joint_images=3 goes without denoiser.text_width=8",
    ),
    (
      {"denoiser.upscales": True, "dataset.tokens": "stored"},
      "upscales needs the pixels .* dataset.tokens=stored",
    ),
    ({"denoiser.num_layers": 3}, "num_layers=3 must be even"),
    ({"denoiser.spatial_window": (3, 3)}, r"spatial_window=\(3, 3\) must div"),
    ({"noise.process": "heat"}, "noise.process='heat' must be one of"),
    ({"sampling.steps": 1001}, "sampling.steps=1001 must be from 1 to 1000"),
    ({"sampling.guidance_schedule": "up"}, "guidance_schedule='up' must be"),
  ],
)
def test_fields_that_contradict_are_refused(
  tiny_tokenizer_workdir, mesh, fields, message
):
  config = tiny.diffusion(tiny_tokenizer_workdir)
  config.update_from_flattened_dict(fields)
  with pytest.raises(ValueError, match=message):
    latent_diffusion.LatentDiffusion.build(config, mesh, abstract=True)


def test_text_needs_batches_that_have_it(tiny_tokenizer_workdir, mesh, batch):
  config = tiny.diffusion(tiny_tokenizer_workdir)
  config.denoiser.text_width = 8
  algorithm = latent_diffusion.LatentDiffusion.build(config, mesh)
  make = lambda batch: jax.eval_shape(
    algorithm.examples, algorithm.frozen, batch, 0, jax.random.key(0)
  )
  with pytest.raises(
    ValueError, match="text_width=8 needs batches with embedd"
  ):
    make(batch)
  text = jnp.ones((4, 5, 8))
  assert make({**batch, "text": text}).condition.text_BfMK.shape == (4, 1, 5, 8)


def test_other_generators_train_no_images(tiny_tokenizer_workdir, mesh):
  config = tiny.masked(tiny_tokenizer_workdir)
  config.dataset.joint_images = 3
  with pytest.raises(ValueError, match="joint_images=3 is for tokenizers and"):
    masked.MaskedGenerator.build(config, mesh)
