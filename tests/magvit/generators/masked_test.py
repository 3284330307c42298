"""Tests of magvit/generators/masked.py: conditioning and training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from magvit import algorithm as algorithm_lib
from magvit import mesh as mesh_lib
from magvit.generators import masked
from magvit.generators import tasks
from magvit.tokenizer import describe
from tests import batches
from tests import tiny

_CONDITIONED = [f"tasks.{x}" for x in tasks.TASKS if tasks.needs_clip(x)]


@pytest.fixture(scope="module")
def one_device():
  return mesh_lib.make_mesh(tiny.tokenizer().mesh, jax.devices()[:1])


@pytest.fixture(scope="module")
def built(tiny_tokenizer_workdir, one_device):
  config = tiny.masked(tiny_tokenizer_workdir)
  algorithm = masked.MaskedGenerator.build(config, one_device)
  state = algorithm_lib.create(algorithm, one_device, jax.random.key(0))
  return config, algorithm, state


def _trained(state):
  """Parameters unlike fresh ones, to which all classes are nearly the same."""
  params = state.predict_params()
  larger = jax.tree.map(lambda x: 20.0 * x, params["transformer"])
  return {**params, "transformer": larger}


@pytest.fixture(scope="module")
def sample(built):
  """The function (batch, key) -> samples, one program for all tasks."""
  _, algorithm, state = built
  return batches.one_program(algorithm.predict["sample"], _trained(state))


def test_samples_follow_the_key_and_are_videos(built, sample):
  batch = batches.with_task(built[0], "class_conditional")
  out = sample(batch, jax.random.key(0))
  assert out["video"].shape == (8, 5, 16, 16, 3)
  assert out["ids"].shape == (8, 3, 8, 8)
  assert 0 <= out["ids"].min() and out["ids"].max() < 2**6
  again = sample(batch, jax.random.key(0))["ids"]
  np.testing.assert_array_equal(out["ids"], again)
  assert (sample(batch, jax.random.key(1))["ids"] != again).any()


@pytest.mark.parametrize("task", sorted(tasks.TASKS))
def test_a_task_keeps_exact_latents_and_sees_given_pixels_only(
  built, sample, encode, task
):
  batch = batches.with_task(built[0], task)
  ids = sample(batch, jax.random.key(0))["ids"]
  kept = tasks.kept_latents(task, (3, 8, 8), 3, 2)
  truth = encode(batch["video"])
  np.testing.assert_array_equal(ids[:, kept], truth[:, kept])
  pixels = tasks.given_pixels(task, (5, 16, 16), 3)
  hidden = {**batch, "video": batch["video"].copy()}
  hidden["video"][:, ~pixels] = 77
  np.testing.assert_array_equal(ids, sample(hidden, jax.random.key(0))["ids"])
  seen = {**batch, "video": batch["video"].copy()}
  seen["video"][:, pixels] = 77
  changed = (sample(seen, jax.random.key(0))["ids"] != ids).any()
  assert changed == tasks.needs_clip(task)


@pytest.mark.parametrize("task", sorted(tasks.TASKS))
def test_a_class_is_read_by_the_tasks_that_have_one(built, sample, task):
  batch = batches.with_task(built[0], task)
  other = {**batch, "label": (batch["label"] + 1) % 10}
  a, b = (sample(x, jax.random.key(0))["ids"] for x in (batch, other))
  assert (a != b).any() == tasks.TASKS[task].class_conditional


@pytest.fixture(scope="module")
def encode(built):
  made_by = tiny.tokenizer()
  program = jax.jit(
    describe.predict_functions(describe.define_tokenizer(made_by))["encode"]
  )
  params = built[2].predict_params()
  return lambda video: program(params, {"video": video}, None)


@pytest.fixture(scope="module")
def other_settings(built, tiny_tokenizer_workdir, one_device):
  """Guidance 1e-9, completions the likeliest, given pixels pasted back."""
  config = tiny.masked(tiny_tokenizer_workdir)
  config.sampling.guidance = 1e-9
  config.sampling.completion = "likeliest"
  config.sampling.replace_condition_pixels = True
  algorithm = masked.MaskedGenerator.build(config, one_device)
  program = jax.jit(algorithm.predict["sample"])
  params = _trained(built[2])
  return lambda batch, key: program(params, batch, key)


def test_without_guidance_the_guided_program_gives_the_unguided_tokens(
  built, sample, other_settings
):
  """Guidance 1e-9 takes the two-pass path and must change nothing."""
  batch, key = (
    batches.with_task(built[0], "class_conditional"),
    jax.random.key(0),
  )
  a, b = (run(batch, key)["ids"] for run in (sample, other_settings))
  assert (a == b).mean() > 0.99  # a tie may fall the other way


@pytest.mark.parametrize("task", sorted(tasks.TASKS))
def test_the_likeliest_completion_is_one_and_class_samples_stay_many(
  built, other_settings, task
):
  batch = batches.with_task(built[0], task)
  a, b = (
    other_settings(batch, jax.random.key(seed))["ids"] for seed in range(2)
  )
  assert (a == b).all() == tasks.needs_clip(task)


@pytest.mark.parametrize("task", sorted(tasks.TASKS))
def test_given_pixels_are_pasted_back_and_no_others(
  built, other_settings, task
):
  batch, key = batches.with_task(built[0], task), jax.random.key(0)
  real = batch["video"] / np.float32(255)
  pixels = tasks.given_pixels(task, (5, 16, 16), 3)
  video = other_settings(batch, key)["video"]
  np.testing.assert_allclose(video[:, pixels], real[:, pixels], rtol=1e-6)
  assert np.abs(video[:, ~pixels] - real[:, ~pixels]).mean() > 0.01


@pytest.fixture(scope="module")
def with_hints(built, tiny_tokenizer_workdir, one_device):
  """(algorithm with hints, batch -> samples whose detail is carried)."""
  config = tiny.masked(tiny_tokenizer_workdir)
  config.transformer.condition_hints = True
  config.sampling.carry_detail = True
  config.sampling.guidance = 0.5  # its second pass has no hints
  algorithm = masked.MaskedGenerator.build(config, one_device)
  run = batches.one_program(algorithm.predict["sample"], _trained(built[2]))
  return algorithm, run


@pytest.mark.parametrize("task", sorted(tasks.TASKS))
def test_hints_and_detail_are_of_given_pixels_only(built, with_hints, task):
  batch = batches.with_task(built[0], task)
  _, run = with_hints
  out = run(batch)
  pixels = tasks.given_pixels(task, (5, 16, 16), 3)
  hidden = {**batch, "video": batch["video"].copy()}
  hidden["video"][:, ~pixels] = 77
  again = run(hidden)
  np.testing.assert_array_equal(out["ids"], again["ids"])
  np.testing.assert_array_equal(out["video"], again["video"])
  whole = pixels.all((1, 2))
  real = batch["video"] / np.float32(255)
  np.testing.assert_allclose(out["video"][:, whole], real[:, whole], atol=1e-6)


@pytest.mark.parametrize("task", sorted(tasks.TASKS))
def test_hints_are_the_condition_and_never_the_truth(built, with_hints, task):
  """Under the mask a model sees what it is given, or nothing."""
  algorithm, _ = with_hints
  number = algorithm.tasks.names.index(task)
  parts = np.ones((2, 192, 2), np.int32)
  key = jax.random.key(0)
  of = lambda algorithm: algorithm.mask(
    key, key, number, parts, 0 * parts, jnp.zeros(2, jnp.int32)
  )
  made, plain = of(algorithm), of(built[1])
  np.testing.assert_array_equal(made.masked_BN, plain.masked_BN)
  assert built[1]._hinted(number, plain.masked_BN) is None
  expected = made.masked_BN if tasks.needs_clip(task) else 0 * made.masked_BN
  hinted_BN = algorithm._hinted(number, made.masked_BN)
  np.testing.assert_array_equal(hinted_BN, expected)
  assert not made.input_BNF[hinted_BN].any()
  known = ~made.masked_BN & (made.input_BNF == 1).all(-1)
  given = jnp.asarray(algorithm.given_SN)[number]
  assert known[:, ~given].sum() == (~made.masked_BN[:, ~given]).sum()


class _Untokenized(masked.MaskedGenerator):
  """A generator whose clips through the tokens are not numbers."""

  def tokenized(self, params, batch, key):
    return {"video": jnp.full_like(batch["video"], jnp.nan)}


@pytest.mark.parametrize("task", sorted(tasks.TASKS))
def test_condition_clips_are_tokenized_for_whole_given_frames_alone(
  with_hints, one_device, task
):
  """Elsewhere nothing is made of their tokens, which cost time."""
  config = with_hints[0].config
  algorithm = _Untokenized.build(config, one_device)
  batch = batches.with_task(config, task)
  completed = np.full(batch["video"].shape, 0.5, np.float32)
  finished = algorithm.finish({}, batch, completed, jax.random.key(0))
  whole = tasks.given_frames(task, (5, 16, 16), 3).any()
  assert whole == ("frame_prediction" in task or task == "interpolation")
  assert np.isnan(finished).any() == whole
  if not whole:
    np.testing.assert_array_equal(finished, completed)


@pytest.mark.slow
def test_a_few_steps_on_one_batch_lower_the_loss(
  tiny_tokenizer_workdir, one_device
):
  config = tiny.masked(tiny_tokenizer_workdir)
  config.num_steps, config.optimizer.peak_learning_rate = 200, 1e-2
  config.transformer.dropout = 0.0
  algorithm = masked.MaskedGenerator.build(config, one_device)
  state = algorithm_lib.create(algorithm, one_device, jax.random.key(0))
  step = jax.jit(algorithm.step)
  batch = batches.with_task(config)
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
    state, batches.with_task(config), jax.random.key(0)
  )
  jax.tree.map(np.testing.assert_array_equal, before, state.frozen)
  assert float(metrics["gradient_norm"]) > 0
  assert jnp.isfinite(metrics["loss"])


@pytest.mark.parametrize(
  "field, value, message",
  [
    ("tokenizer_workdir", "", r"\(--config.tokenizer_workdir=DIR\)$"),
    ("tokenizer_workdir", "/nowhere", "workdir=/nowhere .*directory"),
    ("condition_frames", 4, r"condition_frames=4 .* \[1, 3\]"),
    ("dataset.frames", 6, r"\b6\b.*\b5 and 7$"),
    (
      "transformer.factor_bits",
      (3, 4),
      r"transformer.factor_bits=\(3, 4\) .* 64 codes .* 6$",
    ),
    ("sampling.steps", 0, "sampling.steps=0"),
    ("sampling.schedule", "linear", "sampling.schedule='linear'"),
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
    masked.MaskedGenerator.build(config, one_device)
    return
  with pytest.raises(ValueError, match=message):
    masked.MaskedGenerator.build(config, one_device)


@pytest.mark.parametrize(
  "fields, message",
  [
    ({"dataset.tokens": "somewhere"}, "tokens=somewhere: stored .*=False"),
    ({"tasks.class_conditional": 0.0, "sampling.guidance": 2.0}, "guidance=2"),
    ({name: 0.0 for name in _CONDITIONED}, "given nothing: .*_hints=False"),
    ({"tasks.class_conditional": 0.0}, None),
  ],
)
def test_hints_have_to_be_shown_and_learnt(
  tiny_tokenizer_workdir, one_device, fields, message
):
  config = tiny.masked(tiny_tokenizer_workdir)
  config.transformer.condition_hints = True
  with config.unlocked():
    config.update_from_flattened_dict(fields)
  if message is None:
    algorithm = masked.MaskedGenerator.build(config, one_device)
    assert algorithm.hinted_S.all()
    return
  with pytest.raises(ValueError, match=message):
    masked.MaskedGenerator.build(config, one_device)


def test_detail_needs_a_task_with_whole_given_frames(
  tiny_tokenizer_workdir, one_device
):
  config = tiny.masked(tiny_tokenizer_workdir)
  config.sampling.carry_detail = True
  for name in config.tasks:
    config.tasks[name] = float("painting" in name)
  with pytest.raises(ValueError, match="detail=True .* are given none: set it"):
    masked.MaskedGenerator.build(config, one_device)
  config.tasks.interpolation = 1.0
  masked.MaskedGenerator.build(config, one_device)


def test_a_config_of_before_has_neither_hints_nor_detail(
  tiny_tokenizer_workdir, one_device
):
  config = tiny.masked(tiny_tokenizer_workdir)
  with config.unlocked():
    del config.transformer.condition_hints
    del config.sampling.carry_detail
  algorithm = masked.MaskedGenerator.build(config, one_device)
  assert not algorithm.hinted_S.any()
  batch = batches.with_task(config, "frame_prediction")
  state = jax.eval_shape(algorithm.init, jax.random.key(0))
  params = {**state.predict_params(), "tokenizer": algorithm.tokens.params}
  jax.eval_shape(algorithm.sample, params, batch, jax.random.key(0))


def test_at_least_one_known_task_is_needed(tiny_tokenizer_workdir, one_device):
  config = tiny.masked(tiny_tokenizer_workdir)
  for name in config.tasks:
    config.tasks[name] = 0.0
  with pytest.raises(ValueError, match=r"^tasks=\{.*\} .* \['central_inpaint"):
    masked.MaskedGenerator.build(config, one_device)
