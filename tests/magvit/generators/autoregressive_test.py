"""Tests of magvit/generators/autoregressive.py: sampling and training."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from configs import autoregressive as configs
from magvit import mesh as mesh_lib
from magvit.generators import autoregressive
from magvit.generators import sampling
from magvit.generators import tokens as tokens_lib
from magvit.tokenizer import describe
from models import network
from models.quantizers import bits as bits_lib
from tests import batches
from tests import tiny

_TOKENS, _BITS, _NO_CLASS = 7, (3, 2), 10


@pytest.fixture(scope="module")
def one_device():
  return mesh_lib.make_mesh(tiny.tokenizer().mesh, jax.devices()[:1])


@pytest.fixture(scope="module")
def tokens(tiny_tokenizer_workdir, one_device):
  config = tiny.autoregressive(tiny_tokenizer_workdir)
  return tokens_lib.open_tokenizer(config, one_device)


@pytest.fixture
def build(tokens, monkeypatch):
  """Builds an algorithm of 3 x 2 x 2 tokens, stored in batches: it is fast."""
  few = dataclasses.replace(tokens, latent_shape=(3, 2, 2))
  monkeypatch.setattr(tokens_lib, "open_tokenizer", lambda *_: few)
  monkeypatch.setattr(
    tokens_lib.Tokens,
    "tokenize_batch",
    lambda self, params, batch: batch["ids"],
  )
  return autoregressive.AutoregressiveGenerator.build


def _ids_batch():
  ids = np.random.default_rng(0).integers(0, 2**6, (8, 12), np.int32)
  return {"label": np.arange(8, dtype=np.int32), "ids": ids}


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
  """Compiles (key, class_B, prompt_BMF, given) -> sub-tokens (B, N, F)."""
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
  """Draws each sub-token in turn, with a pass over the whole sequence."""
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


def test_the_loop_reads_weights_in_the_type_that_it_computes_in():
  """A cast within it would read weights of twice the bytes with every token."""
  config = tiny.autoregressive("")
  config.transformer.factor_bits = _BITS
  config.transformer.dtype = "bfloat16"
  net = autoregressive.define_transformer(config, _TOKENS)
  params = jax.eval_shape(net.init, jax.random.key(0))

  def run(params, key):
    prompt = jnp.zeros((1, 0, 2), jnp.int32)
    return autoregressive.generate(
      net, params, key, _TOKENS, jnp.zeros(1, int), prompt, 0, 10, _settings()
    )

  jaxpr = jax.make_jaxpr(run)(params, jax.random.key(0))
  # The first loop, over the layers, makes the cache.
  loop = [e for e in jaxpr.eqns if e.primitive.name in ("while", "scan")][-1]
  read = {(x.aval.shape, x.aval.dtype.name) for x in loop.invars}
  table = (2**3, config.transformer.width)
  assert (table, "bfloat16") in read
  assert (table, "float32") not in read


@pytest.mark.parametrize(
  "platform, remat, unroll",
  [("gpu", "auto", True), ("gpu", "all", False), ("cpu", "off", False)],
)
def test_blocks_are_compiled_one_by_one_where_a_loop_would_copy(
  platform, remat, unroll, monkeypatch
):
  monkeypatch.setattr(jax, "default_backend", lambda: platform)
  config = tiny.autoregressive("")
  config.transformer.remat = remat
  settings, _ = tokens_lib.transformer_settings(config, _TOKENS, None)
  assert settings["size"].unroll == unroll


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


def test_a_model_of_three_tasks_samples_videos_with_one_program(
  tiny_tokenizer_workdir, one_device
):
  config = tiny.autoregressive(tiny_tokenizer_workdir)
  config.tasks.class_conditional_frame_prediction = 1.0
  algorithm = autoregressive.AutoregressiveGenerator.build(config, one_device)
  params = tiny.drawn_state(algorithm).predict_params()
  # Sharp attention and logits, so that everything seen moves some token.
  params["transformer"] = jax.tree.map(lambda x: 5 * x, params["transformer"])
  sample = jax.jit(algorithm.predict["sample"])
  key = jax.random.key(0)
  batch = batches.with_task(config, "class_conditional")
  out = sample(params, batch, key)
  assert out["video"].shape == (8, 5, 16, 16, 3)
  assert 0 <= out["video"].min() and out["video"].max() <= 1
  assert out["ids"].shape == (8, 3, 8, 8)
  assert 0 <= out["ids"].min() and out["ids"].max() < 2**6

  other = {**batch, "label": (batch["label"] + 1) % 10}
  assert (sample(params, other, key)["ids"] != out["ids"]).any()

  batch = batches.with_task(config, "frame_prediction")
  ids = sample(params, batch, key)["ids"]
  made_by = tiny.tokenizer()
  generator = describe.define_tokenizer(made_by)
  encode = describe.predict_functions(generator)["encode"]
  truth = jax.jit(encode)(params, {"video": batch["video"]}, None)
  np.testing.assert_array_equal(ids[:, :2], truth[:, :2])  # 3 frames given
  hidden = {**batch, "video": batch["video"].copy()}
  hidden["video"][:, 3:] = 77
  hidden["label"] = (batch["label"] + 1) % 10  # this task has no class
  np.testing.assert_array_equal(ids, sample(params, hidden, key)["ids"])
  batch = batches.with_task(config, "class_conditional_frame_prediction")
  ids = sample(params, batch, key)["ids"]
  np.testing.assert_array_equal(ids[:, :2], truth[:, :2])
  other = {**batch, "label": (batch["label"] + 1) % 10}
  assert (sample(params, other, key)["ids"] != ids).any()
  assert sample._cache_size() == 1


def test_a_few_steps_lower_the_loss(build, one_device):
  """No label is kept: only the row of "no class" has a gradient."""
  config = tiny.autoregressive("")
  config.num_steps, config.optimizer.peak_learning_rate = 100, 1e-2
  config.tasks.frame_prediction = 0.0
  config.label_drop = 1.0
  algorithm = build(config, one_device)
  state = tiny.drawn_state(algorithm)
  frozen = jax.device_get(state.frozen)
  step = jax.jit(algorithm.step)
  loss = []
  for i in range(25):
    state, metrics = step(state, _ids_batch(), jax.random.key(i))
    loss.append(float(metrics["loss"]))
  assert loss[0] > 3.5  # two heads of 8: 4.16 nats when uniform
  assert loss[-1] < loss[0] - 0.5
  moments = state.opt_state["transformer"][1].mu["classes"]["embedding"]
  per_class = np.abs(moments).max(-1)
  assert per_class[_NO_CLASS] > 0 and (per_class[:_NO_CLASS] == 0).all()
  jax.tree.map(np.testing.assert_array_equal, frozen, state.frozen)


def test_the_loss_is_the_mean_over_the_tokens_that_are_not_given(
  build, one_device
):
  config = tiny.autoregressive("")
  config.transformer.dropout = 0.0
  config.tasks.class_conditional = 0.0
  algorithm = build(config, one_device)
  state, batch = tiny.drawn_state(algorithm), _ids_batch()
  loss = jax.jit(lambda *a: algorithm.step(*a)[1]["loss"])(
    state, batch, jax.random.key(0)
  )
  given = 2 * 2 * 2
  expected, _ = jax.jit(
    lambda params: autoregressive.token_losses(
      autoregressive.define_transformer(config, 12),
      params,
      bits_lib.factorize(batch["ids"], (3, 3)),
      jnp.full(8, _NO_CLASS),
      given,
      None,
      config.label_smoothing,
      chunks=1,
    )
  )(state.params["transformer"])
  np.testing.assert_allclose(loss, expected[:, given:].mean(), rtol=1e-5)


def test_eight_devices_draw_the_tokens_of_one(monkeypatch):
  monkeypatch.setattr(mesh_lib, "_SMALLEST_SHARDED", 64)
  net, params = _transformer()
  sizes = ml_collections.ConfigDict(dict(data=2, fsdp=4, tensor=1))
  mesh = mesh_lib.make_mesh(sizes)
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
    (
      "tasks.central_inpainting",
      1.0,
      r"^tasks=\{.*'central_inpainting': 1.0.*\} .* class_conditional, frame",
    ),
    ("condition_frames", 4, r"condition_frames=4 .* \[1, 3\]"),
    (
      "transformer.factor_bits",
      (5,),
      r"transformer.factor_bits=\(5,\) .* 64 codes .* 6$",
    ),
    (
      "transformer.prefix_attention",
      "full",
      r"prefix_attention='full' .*\('causal', 'bidirectional'\)",
    ),
    ("loss_chunks", 5, "^loss_chunks=5 .* 12 tokens"),
    ("loss_chunks", 0, "^loss_chunks=0 .* 12 tokens"),
    ("sampling.temperature", 0.0, "temperature=0.0 .* sampling.top_k=1$"),
    ("sampling.top_k", -1, "^sampling.top_k=-1 "),
    ("sampling.top_p", 0.0, "^sampling.top_p=0.0 "),
  ],
)
def test_fields_that_cannot_work_are_refused(
  build, one_device, field, value, message
):
  config = tiny.autoregressive("")
  with config.unlocked():
    config.update_from_flattened_dict({field: value})
  with pytest.raises(ValueError, match=message):
    build(config, one_device)


@pytest.mark.parametrize(
  "arg, tokens, millions",
  [
    ("digits", 80, 0.5),
    ("ucf101_v1", 1024, 305.6),  # the paper prints 306
    ("ucf101", 1280, 840.6),  # the paper prints 840
    ("ucf101_factorized", 1280, 305.8),
  ],
)
def test_sizes_of_the_rows(arg, tokens, millions):
  net = autoregressive.define_transformer(configs.get_config(arg), tokens)
  abstract = jax.eval_shape(net.init, jax.random.key(0))
  assert round(network.count(abstract) / 1e6, 1) == millions
  assert arg in configs.__doc__ and str(millions) in configs.__doc__


def test_an_unknown_row_is_refused():
  with pytest.raises(ValueError, match="'kinetics': .*'ucf101_v1'"):
    configs.get_config("kinetics")
