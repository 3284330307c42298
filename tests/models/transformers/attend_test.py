"""Tests of models/transformers/attend.py and its kernels."""

import functools

import jax
import jax.numpy as jnp
from jax.sharding import AxisType
from jax.sharding import Mesh
import numpy as np
import pytest

from models.transformers import attend
from models.transformers import cuda_attention
from models.transformers import dropout as dropout_lib
from models.transformers import kernels
from models.transformers import tpu_attention

_BATCH, _HEADS = 2, 2


def _arrays(tokens, depth, dtype=jnp.float32):
  keys = jax.random.split(jax.random.key(0), 4)
  shape = (_BATCH, tokens, _HEADS, depth)
  return [jax.random.normal(key, shape).astype(dtype) for key in keys]


def _with_gradients(run, arrays):
  """[output, gradients of queries, keys and values]."""

  @jax.jit  # one program instead of one of each operation
  def outputs(*arrays):
    *inputs, g = arrays
    y, pull = jax.vjp(run, *inputs)
    return [y, *pull(g)]

  return outputs(*arrays)


def _run(form, prefix=None, rate=0.0, bits="hash"):
  """Attention in a form; a prefix of None means that all see all."""
  layout = None if prefix is None else attend.Layout(prefix=prefix)
  drop = attend.Drop(rate, jax.random.key(9), bits) if rate else None
  return lambda q, k, v: attend.attend(q, k, v, layout, drop, form)


def _assert_close(results, expected, tolerance):
  for a, b in zip(results, expected, strict=True):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    assert np.linalg.norm(a - b) <= tolerance * np.linalg.norm(b)


# Lengths below, at, and above a block, and prefixes in the first and in a later
# block of keys.
_CASES = [
  (300, None, 0.1),
  (256, 0, 0.0),
  (300, 270, 0.1),
  (40, 3, 0.3),
]


@pytest.mark.parametrize("name", ["blocks", "kernel"])
@pytest.mark.parametrize("tokens, prefix, rate", _CASES)
def test_forms_are_the_plain_one(name, tokens, prefix, rate):
  """The kernels are for CUDA: here `kernel` runs what stands in for them."""
  arrays = _arrays(tokens, 8)
  results = [
    _with_gradients(_run(attend.Form(form), prefix, rate), arrays)
    for form in (name, "plain")
  ]
  _assert_close(*results, tolerance=1e-5)


@pytest.mark.parametrize(
  "dtype, tolerance", [("float32", 1e-5), ("bfloat16", 1e-2)]
)
@pytest.mark.parametrize(
  "layout", [None, attend.Layout(4), attend.Layout(4, 9)]
)
def test_one_query_is_the_plain_form(layout, dtype, tolerance):
  """As with a cache: most of its keys are not there yet."""
  _, k, v, _ = _arrays(40, 8, dtype)
  q = _arrays(1, 8, dtype)[0]
  results = [
    [attend.attend(q, k, v, layout, form=attend.Form(name))]
    for name in ("kernel", "plain")
  ]
  assert results[0][0].dtype == dtype
  _assert_close(*results, tolerance)


def test_one_query_reads_its_keys_by_sums():
  q, k, v = _arrays(1, 8)[0], *_arrays(40, 8)[:2]

  def run(name):
    layout, form = attend.Layout(4), attend.Form(name)
    attention = lambda q, k, v: attend.attend(q, k, v, layout, form=form)
    return str(jax.make_jaxpr(attention)(q, k, v))

  assert "dot_general" in run("plain")
  assert "dot_general" not in run("kernel")


def _kernels(platform, arrays, prefix, rate):
  """What the kernels compute, step by step as they would."""
  run = functools.partial(_steps_of_kernels, platform, prefix, rate)
  return jax.jit(run)(*arrays)


def _steps_of_kernels(platform, prefix, rate, q, k, v, g):
  how = kernels.How(q.shape[1], prefix is not None, rate, interpret=True)
  seeds = dropout_lib.draw_seeds(jax.random.key(9), (_BATCH, _HEADS))
  place = jnp.full((1,), prefix or 0, jnp.int32)
  inputs = (q, k, v, seeds, place)
  if platform == "tpu":
    o = tpu_attention.forward(*inputs, how)
    return [o, *tpu_attention.backward(*inputs, g, how)]
  o, lse = cuda_attention.forward(*inputs, how)
  return [o, *cuda_attention.backward(*inputs, o, lse, g, how)]


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize(
  "tokens, depth, prefix, rate, dtype, tolerance",
  [
    (150, 16, None, 0.1, jnp.float32, 1e-5),
    (129, 24, 70, 0.3, jnp.float32, 1e-5),
    (128, 16, 0, 0.1, jnp.bfloat16, 1e-2),
  ],
)
def test_kernels_are_the_plain_form(
  platform, tokens, depth, prefix, rate, dtype, tolerance
):
  """Lengths and depths that fill no block, hidden keys, and dropout."""
  arrays = _arrays(tokens, depth, dtype)
  expected = _with_gradients(_run(attend.Form(), prefix, rate), arrays)
  _assert_close(_kernels(platform, arrays, prefix, rate), expected, tolerance)


@pytest.mark.parametrize(
  "dtype, tolerance",
  [
    ("float32", 1e-5),
    pytest.param("bfloat16", 1e-2, marks=pytest.mark.rows),
  ],
)
@pytest.mark.parametrize("prefix", [None, 0, 70])
@pytest.mark.parametrize("form", ["blocks", "cuda", "tpu"])
def test_forms_are_the_plain_one_without_dropout(
  form, prefix, dtype, tolerance, monkeypatch
):
  """Both ways, causal, and causal behind a prefix; two blocks and a part."""
  monkeypatch.setattr(attend, "_BLOCK", 64)
  arrays = _arrays(150, 16, dtype)
  expected = _with_gradients(_run(attend.Form(), prefix), arrays)
  if form == "blocks":
    results = _with_gradients(_run(attend.Form("blocks"), prefix), arrays)
  else:
    results = _kernels(form, arrays, prefix, 0.0)
  _assert_close(results, expected, tolerance)


def test_dropout_keeps_the_mean_and_adds_the_variance_that_it_should():
  """Over seeds; the other forms draw the same masks as the plain one.

  With values of 1 an output is the sum of the weights that are kept: its mean
  is 1, its variance rate / (1 - rate) times the sum of their squares.
  """
  rate, seeds = 0.1, 200
  q, k, v, _ = _arrays(40, 8)

  @jax.jit
  def run(key):
    drop = attend.Drop(rate, key)
    return attend.attend(q, k, jnp.ones_like(v), None, drop)[..., 0]

  y_SBNA = np.stack([run(jax.random.key(s)) for s in range(seeds)])
  scores = np.einsum("bqad,bkad->bqak", q, k) / 8**0.5
  squares_BNA = (np.asarray(jax.nn.softmax(scores)) ** 2).sum(-1)
  expected_BNA = squares_BNA * rate / (1 - rate)
  error = np.sqrt(expected_BNA.sum() / seeds) / expected_BNA.size
  assert abs(y_SBNA.mean() - 1) < 5 * error
  # A mean of 160 sample variances of 200 seeds, each to a tenth.
  ratio = y_SBNA.var(0, ddof=1).mean() / expected_BNA.mean()
  assert abs(ratio - 1) < 0.1


def test_blocks_of_queries_of_the_tpu_kernels(monkeypatch):
  """Gradients of keys are sums over the blocks."""
  monkeypatch.setattr(tpu_attention, "BLOCK", 128)
  arrays = _arrays(300, 8)
  expected = _with_gradients(_run(attend.Form(), 140, 0.1), arrays)
  _assert_close(_kernels("tpu", arrays, 140, 0.1), expected, 1e-5)


def test_the_program_of_a_tpu_has_the_kernels():
  """They lower for a TPU that is not at hand, inside a mesh, too."""
  mesh = Mesh(
    np.asarray(jax.devices()[:2]).reshape(2, 1, 1),
    ("data", "fsdp", "tensor"),
    axis_types=(AxisType.Auto,) * 3,
  )
  arrays = _arrays(300, 64, jnp.bfloat16)
  for form in (attend.Form("kernel"), attend.Form("kernel", mesh)):
    run = jax.jit(functools.partial(_with_gradients, _run(form, 3, 0.1)))
    text = run.trace(arrays).lower(lowering_platforms=("tpu",)).as_text()
    assert text.count("stablehlo.custom_call @tpu_custom_call") == 2


def test_only_the_plain_form_keeps_an_array_of_scores():
  tokens = 600
  q, k, v, _ = _arrays(tokens, 8)

  def largest(name):
    run = _run(attend.Form(name), None, 0.1)
    _, pull = jax.eval_shape(lambda *qkv: jax.vjp(run, *qkv), q, k, v)
    return max(x.size for x in jax.tree.leaves(pull))

  assert largest("plain") == _BATCH * _HEADS * tokens**2
  assert largest("blocks") < _BATCH * _HEADS * tokens**2 / 8
  assert largest("kernel") < _BATCH * _HEADS * tokens**2 / 8


def test_a_layout_says_who_sees_whom():
  row, column = jnp.arange(4)[:, None], jnp.arange(6)[None]
  np.testing.assert_array_equal(
    attend.Layout(start=1, prefix=4).seen(row, column),
    np.array(
      [
        [1, 1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 1, 1, 1, 0],
      ],
      bool,
    ),
  )


def test_bits_of_before_are_drawn_in_the_plain_form():
  arrays = _arrays(12, 8)
  expected = _run(attend.Form(), None, 0.3, "threefry")(*arrays[:3])
  for name in ("blocks", "kernel"):
    y = _run(attend.Form(name), None, 0.3, "threefry")(*arrays[:3])
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("heads", [1, 2])
def test_a_mesh_changes_nothing(heads):
  mesh = Mesh(
    np.asarray(jax.devices()[: 2 * heads]).reshape(1, 2, heads),
    ("data", "fsdp", "tensor"),
    axis_types=(AxisType.Auto,) * 3,
  )
  form = attend.Form("kernel", mesh)
  arrays = _arrays(40, 8)
  results = [
    jax.jit(functools.partial(_with_gradients, _run(f, 3, 0.3)))(arrays)
    for f in (form, attend.Form("kernel"))
  ]
  _assert_close(*results, tolerance=1e-6)


def test_a_batch_that_the_mesh_does_not_divide_is_computed_in_blocks():
  mesh = Mesh(
    np.asarray(jax.devices()[:4]).reshape(4, 1, 1),
    ("data", "fsdp", "tensor"),
    axis_types=(AxisType.Auto,) * 3,
  )
  arrays = _arrays(12, 8)[:3]
  np.testing.assert_array_equal(
    _run(attend.Form("kernel", mesh))(*arrays),
    _run(attend.Form("blocks"))(*arrays),
  )


@pytest.mark.parametrize(
  "field, platform, tokens, name",
  [
    ("auto", "gpu", 20, "kernel"),
    ("auto", "cpu", 512, "plain"),
    ("auto", "cpu", 1281, "blocks"),
    ("auto", "tpu", 1281, "plain"),
    ("plain", "gpu", 1281, "plain"),
    ("blocks", "cpu", 20, "blocks"),
  ],
)
def test_auto_goes_by_platform_and_length(field, platform, tokens, name):
  assert attend.choose(field, platform, tokens).name == name


def test_an_unknown_form_is_refused():
  with pytest.raises(ValueError, match="attention='flash' must be one of"):
    attend.choose("flash", "cpu", 20)
