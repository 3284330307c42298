"""Tests of models/transformers/autoregressive.py."""

import functools
import itertools

import jax
import jax.numpy as jnp
from jax.sharding import AbstractDevice
from jax.sharding import AbstractMesh
from jax.sharding import AxisType
from jax.sharding import Mesh
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec
from jax.sharding import use_abstract_mesh
import numpy as np
import pytest

from models import network
from models import settings as settings_lib
from models.transformers import attend
from models.transformers import attention
from models.transformers import autoregressive as ar_transformer
from models.transformers import kernels
from tests import tiny

_TOKENS = 6
_SMALL = dict(
  num_tokens=_TOKENS,
  num_classes=3,
  factor_bits=(3, 2),
  tie_embeddings=False,
  prefix_attention="causal",
  num_layers=3,
  width=8,
  mlp_width=16,
  num_heads=2,
  dropout=0.5,
  remat="off",
  attention=attend.Form(),
  dropout_bits="hash",
  unroll=False,
)
_LARGE = dict(num_classes=101, num_layers=24, width=1024, mlp_width=4096)


@functools.cache
def _define(**changes):
  size, settings = settings_lib.split(
    attention.TransformerSize, {**_SMALL, **changes}
  )
  return network.define(
    lambda rngs: ar_transformer.ArTransformer(**settings, size=size, rngs=rngs)
  )


@functools.cache
def _params(**changes):
  return jax.tree.map(lambda x: 3 * x, tiny.trained_like(_define(**changes)))


@pytest.fixture(scope="module")
def inputs():
  """Sub-tokens (2, 6, 2) and classes, one of them "no class"."""
  keys = jax.random.split(jax.random.key(1))
  parts = [
    jax.random.randint(k, (2, _TOKENS), 0, n)
    for k, n in zip(keys, (8, 4), strict=True)
  ]
  return jnp.stack(parts, axis=-1), jnp.array([0, 3])


@pytest.mark.parametrize(
  "num_tokens, factor_bits, tie_embeddings, millions",
  [
    (1024, (10,), False, 305.6),  # MAGVIT's tokens; the paper prints 306
    (1280, (18,), False, 840.6),  # MAGVIT-v2's; the paper prints 840
    (1280, (18,), True, 572.2),
    (1280, (9, 9), False, 305.8),
  ],
)
def test_sizes_of_the_rows(num_tokens, factor_bits, tie_embeddings, millions):
  net = _define(
    num_tokens=num_tokens,
    factor_bits=factor_bits,
    tie_embeddings=tie_embeddings,
    **_LARGE,
  )
  abstract = jax.eval_shape(net.init, jax.random.key(0))
  assert round(network.count(abstract) / 1e6, 1) == millions


def _reach(given, prefix_attention):
  """Largest derivative [n, m] of token n's logits by embedded position m."""
  return np.abs(_jacobian(prefix_attention)(given)).max((1, 3))


@functools.cache
def _jacobian(prefix_attention):
  net = _define(prefix_attention=prefix_attention)
  params = _params(prefix_attention=prefix_attention)
  parts, label = jnp.zeros((1, _TOKENS, 2), jnp.int32), jnp.zeros(1, jnp.int32)

  def run(positions, given):
    moved = {**params, "positions": {"embedding": positions}}
    return net(moved, parts, label, given)[0][0]

  jacobian = jax.jit(jax.jacobian(run))
  return lambda given: jacobian(params["positions"]["embedding"], given)


def test_no_logit_sees_a_later_token():
  """Gradients are exactly 0; position n + 1 predicts token n."""
  reach = _reach(0, "causal")
  sees = np.tril(np.ones((_TOKENS, _TOKENS + 1), bool), k=1)
  np.testing.assert_array_equal(reach > 0, sees)


def test_only_the_prefix_sees_itself_both_ways():
  reach = _reach(2, "bidirectional")
  sees = np.tril(np.ones((_TOKENS, _TOKENS + 1), bool), k=1)
  sees[:, :4] = True  # [bos] [class] and two given tokens
  np.testing.assert_array_equal(reach > 0, sees)
  np.testing.assert_array_equal(
    _reach(0, "bidirectional") > 0, _reach(0, "causal") > 0
  )


def test_a_sub_token_sees_the_earlier_ones_of_its_token_only(inputs):
  parts, label = inputs
  run = _uncached()
  before = run(_params(), parts, label)
  for f in range(2):
    changed = parts.at[:, 2, f].set((parts[:, 2, f] + 1) % 4)
    after = run(_params(), changed, label)
    moved = [
      np.abs(a - b).max((0, 2)) > 0 for a, b in zip(before, after, strict=True)
    ]
    later = np.arange(_TOKENS) > 2
    itself = np.arange(_TOKENS) == 2
    np.testing.assert_array_equal(moved[0], later)
    np.testing.assert_array_equal(moved[1], later | (itself & (f == 0)))


def test_log_probabilities_of_the_heads_add_up_to_a_distribution(inputs):
  """Sums over all 2^5 values of a token, whose parts are not independent."""
  parts, label = inputs
  values = np.array(list(itertools.product(range(8), range(4))))
  all_parts = jnp.repeat(parts[:1], len(values), 0).at[:, 3].set(values)
  logits = _uncached()(_params(), all_parts, jnp.repeat(label[:1], len(values)))
  first, second = (
    np.asarray(jax.nn.log_softmax(x))[np.arange(32), 3, values[:, f]]
    for f, x in enumerate(logits)
  )
  joint = np.exp(first + second).reshape(8, 4)
  np.testing.assert_allclose(joint.sum(), 1, rtol=1e-5)
  product = np.outer(joint.sum(1), joint.sum(0))
  assert np.abs(joint - product).max() > 1e-3


@pytest.mark.parametrize("given", [0, 2, 5])
@pytest.mark.parametrize("prefix_attention", ["causal", "bidirectional"])
@pytest.mark.parametrize("form", ["plain", "kernel"])
def test_cached_logits_are_the_uncached(inputs, form, prefix_attention, given):
  net = _define(prefix_attention=prefix_attention, attention=attend.Form(form))
  params = _params(prefix_attention=prefix_attention)
  parts, label = inputs
  expected = jax.jit(net)(params, parts, label, given)
  # The prompt has room for 5 tokens: those after the given ones are ignored.
  prompt = parts[:, :5].at[:, given:].set(3)
  cache = _start(net)(params, prompt, label, given)
  for n in range(given, _TOKENS):
    logits, cache = _step(net)(params, parts, label, n, cache)
    for a, b in zip(logits, expected, strict=True):
      np.testing.assert_allclose(a[:, 0], b[:, n], atol=1e-5)


@functools.cache
def _start(net):
  return jax.jit(functools.partial(net, method="start"))


@functools.cache
def _step(net):
  def step(params, parts, label, n, cache):
    x, cache = net(params, parts[:, n - 1], label, n, cache, method="step")
    token = jax.lax.dynamic_slice_in_dim(parts, n, 1, 1)
    logits = [net(params, x, token[..., :f], method="logits") for f in range(2)]
    return logits, cache

  return jax.jit(step)


def _loss(net, parts, label):
  """(parameters) -> a loss of all logits, with dropout, and the gradient."""

  def loss(params):
    logits = net(params, parts, label, 1, jax.random.key(4))
    return sum(jnp.mean(x**2) for x in logits)

  return jax.value_and_grad(loss)


@pytest.mark.parametrize("prefix_attention", ["causal", "bidirectional"])
@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_training_runs_kernels_with_its_masks(
  inputs, platform, prefix_attention
):
  """One forward and a backward pass of one scanned block."""
  net = _define(
    prefix_attention=prefix_attention, attention=attend.Form("kernel")
  )
  loss, params = jax.jit(_loss(net, *inputs)), _params()
  # Where there is no GPU, jax 0.12 asks which one a kernel is for.
  device = AbstractDevice("NVIDIA H100", None, "gpu")
  with use_abstract_mesh(AbstractMesh((1,), ("x",), abstract_device=device)):
    text = loss.trace(params).lower(lowering_platforms=(platform,)).as_text()
  call, kernels = {
    "cuda": ("@__gpu$xla.gpu.triton", 3),  # queries and keys apart
    "tpu": ("@tpu_custom_call", 2),
  }[platform]
  assert text.count(f"stablehlo.custom_call {call}") == kernels


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_kernels_train_on_a_mesh_as_the_plain_form_on_one_device(
  platform, monkeypatch
):
  """The kernels run step by step, each on its part of the clips and heads."""

  def on_platform(*inputs, default, **branches):
    return branches.get(platform, default)(*inputs)

  monkeypatch.setattr(jax.lax, "platform_dependent", on_platform)
  monkeypatch.setattr(
    attend, "How", functools.partial(kernels.How, interpret=True)
  )
  mesh = Mesh(
    np.asarray(jax.devices()).reshape(2, 2, 2),
    ("data", "fsdp", "tensor"),
    axis_types=(AxisType.Auto,) * 3,
  )
  parts = jax.random.randint(jax.random.key(2), (4, _TOKENS, 2), 0, 4)
  label = jnp.array([0, 1, 2, 3])
  params = _params(prefix_attention="bidirectional")
  split = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
  results = []
  for form, place in (
    (attend.Form("kernel", mesh), lambda x: jax.device_put(x, split)),
    (attend.Form("plain"), lambda x: x),
  ):
    net = _define(prefix_attention="bidirectional", attention=form)
    run = lambda params, *inputs, net=net: _loss(net, *inputs)(params)
    results.append(jax.jit(run)(params, place(parts), place(label)))
  for a, b in zip(*map(jax.tree.leaves, results), strict=True):
    a, b = np.asarray(a), np.asarray(b)
    assert np.linalg.norm(a - b) <= 1e-5 * np.linalg.norm(b)


def test_tied_logits_use_the_input_tables(inputs):
  parts, label = inputs
  net, params = _define(tie_embeddings=True), _params(tie_embeddings=True)
  assert "outputs" not in params
  table = params["factors"][1]["embedding"].at[3].set(0.0)
  params = {**params, "factors": {**params["factors"], 1: {"embedding": table}}}
  logits = jax.jit(net)(params, parts, label)[1]
  np.testing.assert_array_equal(logits[..., 3], 0)
  assert (logits[..., 2] != 0).all()


@pytest.mark.parametrize("source", ["embeddings", "layers"])
def test_dropout_of_either_source_follows_its_key(inputs, source):
  silent = functools.partial(jax.tree.map, jnp.zeros_like)
  params = dict(_params())
  if source == "embeddings":  # the layers add nothing to them
    layers = silent(params["stack"]["layers"])
    params["stack"] = {**params["stack"], "layers": layers}
  else:  # dropout leaves embeddings of 0 as they are
    for name in ("factors", "bos", "classes", "positions"):
      params[name] = silent(params[name])
  first, again, other = (
    _uncached()(params, *inputs, 0, jax.random.key(k))[0] for k in (0, 0, 1)
  )
  np.testing.assert_array_equal(first, again)
  assert np.abs(first - other).max() > 1e-3


@functools.cache
def _uncached():
  return jax.jit(_define())


@pytest.mark.parametrize(
  "changes, message",
  [
    (dict(num_heads=3), "width=8 .*num_heads=3"),
    (dict(prefix_attention="full"), "transformer.prefix_attention='full'"),
  ],
)
def test_settings_that_cannot_work_are_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    _define(**changes)
