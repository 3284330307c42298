"""Tests of magvit/autoregressive.py: sampling, and what training learns."""

import functools
import itertools

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from configs import autoregressive as configs
from input_pipeline import pipeline
from magvit import autoregressive
from magvit import masking
from magvit import mesh as mesh_lib
from magvit import sampling
from magvit import tokenizer as tokenizer_lib
from magvit import tokens as tokens_lib
from models import network
from models import quantizers
from tests import tiny

_TOKENS, _BITS, _NO_CLASS = 7, (3, 2), 10


@pytest.fixture(scope="module")
def one_device():
  return mesh_lib.make_mesh(tiny.tokenizer().mesh, jax.devices()[:1])


@pytest.fixture(scope="module")
def built(tiny_tokenizer_workdir, one_device):
  config = tiny.autoregressive(tiny_tokenizer_workdir)
  algorithm = autoregressive.build(config, one_device)
  return config, algorithm, tiny.drawn_state(algorithm)


@functools.cache
def _transformer():
  config = tiny.autoregressive("")
  config.transformer.factor_bits = _BITS
  config.transformer.prefix_attention = "bidirectional"
  net = autoregressive.define_transformer(config, _TOKENS)
  return net, jax.tree.map(lambda x: 3 * x, tiny.trained_like(net))


def _settings(**changes):
  settings = dict(temperature=1.0, top_k=0, top_p=1.0, guidance=0.0)
  return ml_collections.ConfigDict({**settings, **changes})


@functools.cache
def _generate(**changes):
  """Compiled; (key, class_B, prompt_BMF, given) to sub-tokens (B, N, F)."""
  net, params = _transformer()

  def run(key, class_B, prompt_BMF, given):
    return autoregressive.generate(
      net,
      params,
      key,
      _TOKENS,
      class_B,
      prompt_BMF,
      given,
      _NO_CLASS,
      _settings(**changes),
    )

  return jax.jit(run)


@functools.cache
def _uncached(net):
  return jax.jit(net)


def _reference(key, label, prompt, given, settings):
  """Token by token and sub-token by sub-token, whole sequences each time."""
  net, params = _transformer()
  run = _uncached(net)
  batch, _, factors = prompt.shape
  parts = np.zeros((batch, _TOKENS, factors), np.int32)
  parts[:, :given] = prompt[:, :given]
  for n, f in itertools.product(range(given, _TOKENS), range(factors)):
    logits = run(params, parts, label, given)[f][:, n]
    if settings.guidance:
      nothing = jnp.full_like(label, _NO_CLASS)
      unconditional = run(params, parts, nothing, given)[f][:, n]
      logits += settings.guidance * (logits - unconditional)
    logits = sampling.truncate(
      logits / settings.temperature, settings.top_k, settings.top_p
    )
    draw = jax.random.fold_in(jax.random.fold_in(key, n), f)
    parts[:, n, f] = jax.random.categorical(draw, logits)
  return parts


@pytest.mark.parametrize(
  "changes",
  [{}, dict(guidance=2.0, temperature=0.7, top_k=3, top_p=0.9)],
  ids=["plain", "all settings"],
)
def test_sampling_is_the_reference_token_by_token(changes):
  label = jnp.array([0, 4, 10, 2])
  prompt = jax.random.randint(jax.random.key(5), (4, 3, 2), 0, 4)
  for given in (0, 3):
    arguments = (jax.random.key(3), label, prompt, given)
    expected = _reference(*arguments, _settings(**changes))
    np.testing.assert_array_equal(_generate(**changes)(*arguments), expected)
    np.testing.assert_array_equal(expected[:, :given], prompt[:, :given])
  assert _generate(**changes)._cache_size() == 1  # `given` may be traced


def test_samples_follow_the_key_and_hardly_a_guidance_of_almost_zero():
  label = jnp.arange(8)
  prompt = jnp.zeros((8, 0, 2), jnp.int32)
  sample = lambda k, **changes: np.asarray(
    _generate(**changes)(jax.random.key(k), label, prompt, 0)
  )
  first = sample(0)
  np.testing.assert_array_equal(first, sample(0))
  assert (first != sample(1)).any()
  # The two-pass path; a tie may fall the other way.
  assert (first == sample(0, guidance=1e-9)).mean() > 0.99


def test_top_k_1_draws_the_most_likely_sub_tokens():
  net, params = _transformer()
  label = jnp.arange(3)
  prompt = jnp.zeros((3, 0, 2), jnp.int32)
  run = _generate(top_k=1)
  parts = run(jax.random.key(0), label, prompt, 0)
  np.testing.assert_array_equal(parts, run(jax.random.key(1), label, prompt, 0))
  for f, logits in enumerate(_uncached(net)(params, parts, label, 0)):
    np.testing.assert_array_equal(parts[..., f], logits.argmax(-1))


def test_losses_add_the_heads_and_chunks_change_nothing():
  net, params = _transformer()
  parts = jax.random.randint(jax.random.key(0), (2, _TOKENS, 2), 0, 4)
  label, smoothing = jnp.array([3, 10]), 0.1
  losses, hits = (
    jax.jit(
      lambda p, c=chunks: autoregressive.token_losses(
        net, p, parts, label, 0, None, smoothing, c
      )
    )(params)
    for chunks in (1, _TOKENS)
  )
  expected, right = 0.0, True
  for f, logits in enumerate(_uncached(net)(params, parts, label, 0)):
    log_p = np.asarray(jax.nn.log_softmax(logits))
    target = np.eye(2 ** _BITS[f])[parts[..., f]]
    target = (1 - smoothing) * target + smoothing / 2 ** _BITS[f]
    expected -= (target * log_p).sum(-1)
    right &= np.asarray(logits.argmax(-1) == parts[..., f])
  for loss, hit in (losses, hits):
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_array_equal(hit, right)


def _batch(config, task=None):
  batch = next(pipeline.train_batches(config.dataset, config.batch_size))
  if task is not None:
    batch["task"] = np.int32(masking.task_names(config).index(task))
  return batch


def test_a_model_of_two_tasks_samples_videos_with_one_program(built):
  config, algorithm, state = built
  sample = jax.jit(algorithm.predict["sample"])
  params, key = state.predict_params(), jax.random.key(0)
  out = sample(params, _batch(config, "class_conditional"), key)
  assert out["video"].shape == (8, 5, 16, 16, 3)
  assert 0 <= out["video"].min() and out["video"].max() <= 1
  assert out["ids"].shape == (8, 3, 8, 8)
  assert 0 <= out["ids"].min() and out["ids"].max() < 2**6

  batch = _batch(config, "frame_prediction")
  ids = sample(params, batch, key)["ids"]
  made_by = tiny.tokenizer()
  generator = tokenizer_lib.define_tokenizer(made_by)
  encode = tokenizer_lib.predict_functions(generator)["encode"]
  truth = jax.jit(encode)(params, {"video": batch["video"]}, None)
  np.testing.assert_array_equal(ids[:, :2], truth[:, :2])  # 3 frames given
  hidden = {**batch, "video": batch["video"].copy()}
  hidden["video"][:, 3:] = 77
  hidden["label"] = (batch["label"] + 1) % 10  # this task has no class
  np.testing.assert_array_equal(ids, sample(params, hidden, key)["ids"])
  assert sample._cache_size() == 1


@pytest.fixture
def tokens_in_the_batch(monkeypatch):
  """A batch of labels and ids; steps without the tokenizer compile faster."""
  monkeypatch.setattr(
    tokens_lib.Tokens, "of_batch", lambda self, params, batch: batch["ids"]
  )
  ids = np.random.default_rng(0).integers(0, 2**6, (8, 192), np.int32)
  return {"label": np.arange(8, dtype=np.int32), "ids": ids}


def _only(config, task):
  for name in config.tasks:
    config.tasks[name] = float(name == task)


def test_a_few_steps_on_one_batch_lower_the_loss(
  tiny_tokenizer_workdir, one_device, tokens_in_the_batch
):
  config = tiny.autoregressive(tiny_tokenizer_workdir)
  config.num_steps, config.optimizer.peak_learning_rate = 100, 1e-2
  config.transformer.dropout = 0.0
  algorithm = autoregressive.build(config, one_device)
  state = tiny.drawn_state(algorithm)
  frozen = jax.device_get(state.frozen)
  step = jax.jit(algorithm.step)
  history = []
  for i in range(60):
    state, metrics = step(state, tokens_in_the_batch, jax.random.key(i))
    history.append(float(metrics["loss"]))
  assert np.mean(history[:2]) > 3.5  # two heads of 8: 4.16 nats when uniform
  assert np.mean(history[-5:]) < np.mean(history[:2]) - 0.5
  jax.tree.map(np.testing.assert_array_equal, frozen, state.frozen)


@pytest.mark.parametrize("task", ["class_conditional", "frame_prediction"])
def test_the_loss_is_the_mean_over_the_tokens_that_are_not_given(
  tiny_tokenizer_workdir, one_device, tokens_in_the_batch, task
):
  config = tiny.autoregressive(tiny_tokenizer_workdir)
  config.transformer.dropout = 0.0
  config.label_drop = 0.0
  _only(config, task)
  algorithm = autoregressive.build(config, one_device)
  state, batch = tiny.drawn_state(algorithm), tokens_in_the_batch
  loss = jax.jit(lambda *a: algorithm.step(*a)[1]["loss"])(
    state, batch, jax.random.key(0)
  )
  given = {"class_conditional": 0, "frame_prediction": 2 * 8 * 8}[task]
  expected, _ = jax.jit(
    lambda params, class_B: autoregressive.token_losses(
      autoregressive.define_transformer(config, 192),
      params,
      quantizers.factorize(batch["ids"], (3, 3)),
      class_B,
      given,
      None,
      config.label_smoothing,
      chunks=1,
    )
  )(
    state.params["transformer"],
    np.full(8, _NO_CLASS) if given else batch["label"],
  )
  np.testing.assert_allclose(loss, expected[:, given:].mean(), rtol=1e-5)


def test_dropped_labels_are_no_class_on_one_device_and_on_eight(
  tiny_tokenizer_workdir, one_device, tokens_in_the_batch, monkeypatch
):
  """The row of "no class" gets all of the gradient, the labels' none."""
  monkeypatch.setattr(mesh_lib, "_SMALLEST_SHARDED", 64)
  config = tiny.autoregressive(tiny_tokenizer_workdir)
  _only(config, "class_conditional")
  config.label_drop = 1.0
  gradients, metrics = [], []
  for mesh in (one_device, _eight_devices()):
    algorithm = autoregressive.build(config, mesh)
    state = tiny.drawn_state(algorithm)
    state = jax.device_put(state, mesh_lib.state_shardings(state, mesh))
    after, measured = jax.jit(algorithm.step)(
      state, mesh_lib.place_batch(tokens_in_the_batch, mesh), jax.random.key(0)
    )
    moments = after.opt_state["transformer"][1].mu
    gradients.append(jax.device_get(moments))
    metrics.append(jax.device_get(measured))
  per_class = np.abs(gradients[0]["classes"]["embedding"]).max(-1)
  assert per_class[_NO_CLASS] > 0 and (per_class[:_NO_CLASS] == 0).all()
  same = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-6)
  jax.tree.map(same, *gradients)  # float32 sums in another order
  jax.tree.map(same, *metrics)


def _eight_devices():
  return mesh_lib.make_mesh(ml_collections.ConfigDict(dict(data=2, fsdp=4)))


def test_eight_devices_draw_the_tokens_of_one():
  net, params = _transformer()
  mesh = _eight_devices()
  label = np.arange(8)
  prompt = np.ones((8, 3, 2), np.int32)
  expected = _generate(guidance=1.0)(jax.random.key(0), label, prompt, 3)
  batch = mesh_lib.place_batch({"label": label, "prompt": prompt}, mesh)
  split = jax.device_put(params, mesh_lib.state_shardings(params, mesh))
  drawn = jax.jit(
    lambda p, batch: autoregressive.generate(
      net,
      p,
      jax.random.key(0),
      _TOKENS,
      batch["label"],
      batch["prompt"],
      3,
      _NO_CLASS,
      _settings(guidance=1.0),
    )
  )(split, batch)
  np.testing.assert_array_equal(drawn, expected)


@pytest.mark.parametrize(
  "field, value, message",
  [
    ("tasks.central_inpainting", 1.0, "condition is a prefix .* masked"),
    ("tokenizer_workdir", "", "give the workdir of a trained tokenizer"),
    ("condition_frames", 4, r"condition_frames=4 .* e\.g\. \[1, 3\]"),
    ("transformer.factor_bits", (5,), "log2 of the 64 codes .*, 6$"),
    ("transformer.prefix_attention", "full", "'causal', 'bidirectional'"),
    ("loss_chunks", 5, "loss_chunks=5 must divide the 192 tokens"),
    ("loss_chunks", 0, "loss_chunks=0 must divide"),
    ("sampling.temperature", 0.0, "set sampling.top_k=1"),
    ("sampling.top_k", -1, "sampling.top_k=-1"),
    ("sampling.top_p", 0.0, "sampling.top_p=0.0 must be above 0"),
  ],
)
def test_fields_that_cannot_work_are_refused(
  tiny_tokenizer_workdir, one_device, field, value, message
):
  config = tiny.autoregressive(tiny_tokenizer_workdir)
  with config.unlocked():
    config.update_from_flattened_dict({field: value})
  with pytest.raises(ValueError, match=message):
    autoregressive.build(config, one_device)


@pytest.mark.parametrize(
  "arg, tokens, millions",
  [
    ("digits", 80, 0.5),
    ("ucf101_v1", 1024, 305.6),  # the paper prints 306
    ("ucf101", 1280, 840.6),  # 840
    ("ucf101_factorized", 1280, 305.8),
  ],
)
def test_sizes_of_the_rows(arg, tokens, millions):
  net = autoregressive.define_transformer(configs.get_config(arg), tokens)
  abstract = jax.eval_shape(net.init, jax.random.key(0))
  assert round(network.count(abstract) / 1e6, 1) == millions
  assert arg in configs.__doc__ and str(millions) in configs.__doc__


def test_an_unknown_row_is_refused():
  with pytest.raises(ValueError, match="unknown variant 'kinetics'"):
    configs.get_config("kinetics")
