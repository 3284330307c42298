"""Tests of magvit/generators/next_frame_flow.py: conditions, endless video."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from magvit import mesh as mesh_lib
from magvit.generators import next_frame_flow
from magvit.generators import tasks
from tests import batches
from tests import tiny

_TASKS = (
  "class_conditional",
  "class_conditional_frame_prediction",
  "frame_prediction",
)


@pytest.fixture(scope="module")
def one_device():
  return mesh_lib.make_mesh(tiny.tokenizer().mesh, jax.devices()[:1])


@pytest.fixture(scope="module")
def built(tiny_tokenizer_workdir, one_device):
  """Guidance is on, so that one program has everything."""
  config = tiny.next_frame_flow(tiny_tokenizer_workdir)
  config.sampling.guidance = 0.5
  algorithm = next_frame_flow.NextFrameFlow.build(config, one_device)
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


@pytest.mark.parametrize("task", _TASKS)
def test_a_task_keeps_its_first_frames_and_sees_nothing_else(
  built, sample, tokenize, task
):
  config = built[0]
  batch = batches.with_task(config, task)
  out = sample(batch)
  assert out["video"].shape == (8, 5, 16, 16, 3)
  ids = out["ids"]
  given = tasks.given_latents(task, (3, 8, 8), 3, 2)
  truth = tokenize(batch).reshape(ids.shape)
  np.testing.assert_array_equal(ids[:, given], truth[:, given])
  pixels = tasks.given_pixels(task, (5, 16, 16), 3)
  hidden = {**batch, "video": batch["video"].copy()}
  hidden["video"][:, ~pixels] = 77
  np.testing.assert_array_equal(ids, sample(hidden)["ids"])
  assert (sample(batch, jax.random.key(1))["ids"] != ids).any()
  other = {**batch, "label": (batch["label"] + 1) % 10}
  changed = (sample(other)["ids"] != ids).any()
  assert changed == tasks.TASKS[task].class_conditional


def _noisy(algorithm, task, key, z_BthwC):
  place = jnp.asarray(algorithm.tasks.names.index(task))
  label_B = jnp.arange(len(z_BthwC))
  return algorithm.add_noise(jax.random.key(key), place, z_BthwC, label_B)


def test_given_frames_are_clean_and_carry_no_loss(built):
  _, algorithm, state = built
  z_BthwC = jax.random.normal(jax.random.key(0), (2, 3, 8, 8, 6))
  noisy = _noisy(algorithm, "frame_prediction", 1, z_BthwC)
  np.testing.assert_array_equal(noisy.time_Bt[:, :2], 0)
  assert (noisy.time_Bt[:, 2] > 0).all() and (noisy.time_Bt[:, 2] < 1).all()
  loss = jax.jit(
    lambda noise: algorithm.loss(
      state.params["denoiser"], noisy.replace(noise_BthwC=noise)
    )[0]
  )
  gradient = jax.jit(jax.grad(loss))(noisy.noise_BthwC)
  np.testing.assert_array_equal(gradient[:, :2], 0)
  assert (gradient[:, 2] != 0).any()
  np.testing.assert_allclose(noisy.weight_Bt.mean(), 1, rtol=1e-6)


def test_some_clips_begin_with_their_second_frame(built):
  _, algorithm, _ = built
  z_BthwC = jax.random.normal(jax.random.key(0), (2, 3, 1, 1, 1))
  kinds = {}
  for key in range(20):
    noisy = _noisy(algorithm, "class_conditional", key, z_BthwC)
    kinds[int(noisy.first_frame_B[0])] = noisy
  np.testing.assert_array_equal(kinds[0].z_BthwC, z_BthwC)
  np.testing.assert_array_equal(kinds[0].weight_Bt, 1)
  np.testing.assert_array_equal(kinds[1].z_BthwC[:, :2], z_BthwC[:, 1:])
  np.testing.assert_array_equal(kinds[1].weight_Bt, [[1.5, 1.5, 0]] * 2)


def test_a_video_without_end_takes_the_memory_of_a_short_one(built):
  config, algorithm, state = built
  params = state.predict_params()
  label_B = jnp.array([1, 10])
  shapes = []
  keep = algorithm.keep

  def watched(params, z_B1hwC, frame, class_B, cache):
    shapes.append(tuple(x.shape for x in cache))
    return keep(params, z_B1hwC, frame, class_B, cache)

  object.__setattr__(algorithm, "keep", watched)
  try:
    frames = list(
      itertools.islice(algorithm.endless(params, label_B, jax.random.key(0)), 8)
    )
  finally:
    object.__delattr__(algorithm, "keep")
  assert [x.shape for x in frames] == [(2, 1, 8, 8, 6)] * 8
  # One program for all frames: two frames' keys and values, of both halves.
  assert shapes == [((2, 4, 2 * 64, 2, 8),) * 2]
  assert all(np.isfinite(x).all() for x in frames)


def test_more_latent_frames_than_a_clip_has_are_decoded(built):
  _, algorithm, state = built
  params = state.predict_params()
  z_BthwC = jax.random.normal(jax.random.key(0), (2, 8, 8, 8, 6))
  decode = jax.jit(algorithm.latents.decode)
  video = decode(params, z_BthwC)["video"]
  assert video.shape == (2, 1 + 2 * 7, 16, 16, 3)
  clip = decode(params, z_BthwC[:, :3])["video"]
  np.testing.assert_allclose(video[:, :5], clip, atol=1e-5)


def test_an_endless_video_goes_on_from_the_frames_that_it_is_given(built):
  _, algorithm, state = built
  first = jax.random.normal(jax.random.key(1), (1, 2, 8, 8, 6))
  start = lambda first: list(
    itertools.islice(
      algorithm.endless(
        state.predict_params(), jnp.array([1]), jax.random.key(0), first
      ),
      3,
    )
  )
  frames = start(first)
  np.testing.assert_array_equal(jnp.concatenate(frames[:2], axis=1), first)
  assert (start(-first)[2] != frames[2]).any()


def test_tasks_whose_condition_is_no_beginning_are_refused(
  tiny_tokenizer_workdir, one_device
):
  config = tiny.next_frame_flow(tiny_tokenizer_workdir)
  config.tasks.interpolation = 1.0
  with pytest.raises(ValueError, match="can only be class_conditional"):
    next_frame_flow.NextFrameFlow.build(config, one_device, abstract=True)
