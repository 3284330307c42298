"""Tests of magvit/masked.py: conditioning, and what training learns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from input_pipeline import pipeline
from magvit import masked
from magvit import masking
from magvit import mesh as mesh_lib
from magvit import state as state_lib
from magvit import tokenizer as tokenizer_lib
from tests import tiny


@pytest.fixture(scope="module")
def one_device():
  return mesh_lib.make_mesh(tiny.tokenizer().mesh, jax.devices()[:1])


@pytest.fixture(scope="module")
def built(tiny_tokenizer_workdir, one_device):
  config = tiny.masked(tiny_tokenizer_workdir)
  algorithm = masked.build(config, one_device)
  state = state_lib.create(algorithm, one_device, jax.random.key(0))
  return config, algorithm, state


def _batch(config, task=None):
  batch = next(pipeline.train_batches(config.dataset, config.batch_size))
  if task is not None:
    batch["task"] = np.int32(masking.task_names(config).index(task))
  return batch


def test_samples_follow_the_key_and_are_videos(built):
  config, algorithm, state = built
  sample = jax.jit(algorithm.predict["sample"])
  batch = _batch(config, "class_conditional")
  params = state.predict_params()
  out = sample(params, batch, jax.random.key(0))
  assert out["video"].shape == (8, 5, 16, 16, 3)
  assert out["ids"].shape == (8, 3, 8, 8)
  assert 0 <= out["ids"].min() and out["ids"].max() < 2**6
  again = sample(params, batch, jax.random.key(0))["ids"]
  np.testing.assert_array_equal(out["ids"], again)
  assert (sample(params, batch, jax.random.key(1))["ids"] != again).any()
  for task in ("frame_prediction", "central_inpainting"):
    sample(params, _batch(config, task), jax.random.key(0))
  assert sample._cache_size() == 1  # one program serves every task


def test_frame_prediction_keeps_the_given_latents_and_sees_no_others(built):
  config, algorithm, state = built
  sample = jax.jit(algorithm.predict["sample"])
  params, key = state.predict_params(), jax.random.key(0)
  batch = _batch(config, "frame_prediction")
  ids = sample(params, batch, key)["ids"]
  truth = _encode(params, batch["video"])
  np.testing.assert_array_equal(ids[:, :2], truth[:, :2])  # 3 frames given
  hidden = {**batch, "video": batch["video"].copy()}
  hidden["video"][:, 3:] = 77
  np.testing.assert_array_equal(ids, sample(params, hidden, key)["ids"])


def _encode(params, video):
  made_by = tiny.tokenizer()
  encode = tokenizer_lib.predict_functions(
    tokenizer_lib.define_tokenizer(made_by)
  )["encode"]
  return jax.jit(encode)(params, {"video": video}, None)


def test_inpainting_does_not_see_what_is_hidden(built):
  config, algorithm, state = built
  sample = jax.jit(algorithm.predict["sample"])
  batch = _batch(config, "central_inpainting")
  hidden = {**batch, "video": batch["video"].copy()}
  hidden["video"][:, :, 4:12, 4:12] = 77
  run = lambda b: sample(state.predict_params(), b, jax.random.key(0))["ids"]
  np.testing.assert_array_equal(run(batch), run(hidden))


def test_without_guidance_the_guided_program_gives_the_unguided_tokens(
  built, tiny_tokenizer_workdir, one_device
):
  """Guidance 1e-9 takes the two-pass path and must change nothing."""
  config, algorithm, state = built
  params, key = state.predict_params(), jax.random.key(0)
  guided = tiny.masked(tiny_tokenizer_workdir)
  guided.sampling.guidance = 1e-9
  other = masked.build(guided, one_device)
  one_pass, two_pass = (
    jax.jit(a.predict["sample"]) for a in (algorithm, other)
  )
  for task in masking.task_names(config):
    batch = _batch(config, task)
    a = one_pass(params, batch, key)["ids"]
    b = two_pass(params, batch, key)["ids"]
    assert (a == b).mean() > 0.99  # a tie may fall the other way


@pytest.mark.slow
def test_a_few_steps_on_one_batch_lower_the_loss(
  tiny_tokenizer_workdir, one_device
):
  config = tiny.masked(tiny_tokenizer_workdir)
  config.num_steps, config.optimizer.peak_learning_rate = 200, 1e-2
  config.transformer.dropout = 0.0
  algorithm = masked.build(config, one_device)
  state = state_lib.create(algorithm, one_device, jax.random.key(0))
  step = jax.jit(algorithm.step)
  batch = _batch(config)
  losses = []
  for i in range(60):
    state, metrics = step(state, batch, jax.random.key(i))
    losses.append(float(metrics["loss"]))
  assert np.mean(losses[:3]) > 3.5  # two heads of 8: 4.16 nats when uniform
  assert np.mean(losses[-10:]) < np.mean(losses[:3]) - 0.5


def test_the_frozen_tokenizer_is_not_trained(built):
  config, algorithm, state = built
  before = jax.device_get(state.frozen)
  state, metrics = jax.jit(algorithm.step)(
    state, _batch(config), jax.random.key(0)
  )
  jax.tree.map(np.testing.assert_array_equal, before, state.frozen)
  assert float(metrics["gradient_norm"]) > 0
  assert jnp.isfinite(metrics["loss"])


@pytest.mark.parametrize(
  "field, value, message",
  [
    ("tokenizer_workdir", "", "give the workdir of a trained tokenizer"),
    ("tokenizer_workdir", "/nowhere", "is not a directory"),
    ("condition_frames", 4, r"condition_frames=4 .* e\.g\. \[1, 3\]"),
    ("dataset.frames", 6, "clip length 6 .* nearest are 5 and 7"),
    (
      "transformer.factor_bits",
      (3, 4),
      "add up to log2 of the 64 codes .*, 6$",
    ),
    ("sampling.steps", 0, "sampling.steps=0"),
    ("tasks.central_inpainting", 0.0, None),
  ],
)
def test_fields_that_contradict_the_tokenizer_are_refused(
  tiny_tokenizer_workdir, one_device, field, value, message
):
  config = tiny.masked(tiny_tokenizer_workdir)
  with config.unlocked():
    config.update_from_flattened_dict({field: value})
  if message is None:
    masked.build(config, one_device)
    return
  with pytest.raises(ValueError, match=message):
    masked.build(config, one_device)


def test_at_least_one_known_task_is_needed(tiny_tokenizer_workdir, one_device):
  config = tiny.masked(tiny_tokenizer_workdir)
  for name in config.tasks:
    config.tasks[name] = 0.0
  with pytest.raises(ValueError, match="positive weight to one or more"):
    masked.build(config, one_device)
