"""The forms of a convolution are one function, with the same gradients."""

import functools

import jax
from jax import lax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec
import numpy as np
import pytest

from magvit.cost import flops
from models.tokenizer import convolution
from models.tokenizer import convolution_forms

# Winograd's form takes few layers: winograd_test.py.
FORMS = sorted(set(convolution_forms.FORMS) - {"winograd"})
# Shape of the input, kernel size, strides.
CASES = [
  ((2, 5, 6, 7, 3), (3, 3, 3), (1, 1, 1)),
  ((2, 7, 8, 8, 3), (4, 4, 4), (2, 2, 2)),
  ((1, 6, 7, 9, 2), (4, 4, 4), (1, 2, 2)),
  ((2, 1, 5, 6, 3), (1, 3, 3), (1, 1, 1)),
  ((2, 4, 5, 3, 3), (1, 1, 1), (1, 1, 1)),
]


def _arguments(shape, size, dtype=jnp.float32):
  shapes = (shape, (*size, shape[-1], 4))
  return [
    jax.random.normal(jax.random.key(seed), s).astype(dtype)
    for seed, s in enumerate(shapes)
  ]


def _cotangent(y):
  return jax.random.normal(jax.random.key(2), y.shape).astype(y.dtype)


def _native(x, kernel, strides):
  return convolution_forms.conv_native(x, kernel, strides)


@functools.partial(jax.jit, static_argnums=(0, 3))
def _by_definition(conv, x, kernel, strides):
  """The output, and its gradients."""
  y, pull = jax.vjp(lambda x, k: conv(x, k, strides), x, kernel)
  return (y, *pull(_cotangent(y)))


@functools.partial(jax.jit, static_argnums=(0, 3))
def _by_form(name, x, kernel, strides):
  form = convolution_forms.FORMS[name]
  y = form.forward(x, kernel, strides)
  g = _cotangent(y)
  return (
    y,
    form.input_gradient(g, kernel, strides, x.shape[1:4]),
    form.kernel_gradient(x, g, strides, kernel.shape[:3]),
  )


def _assert_close(actual, expected, tolerance):
  for a, b in zip(actual, expected, strict=True):
    assert a.dtype == b.dtype and a.shape == b.shape
    a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
    np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * abs(b).max())


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("shape, size, strides", CASES)
def test_forms_and_their_gradients_equal_the_native_form(
  name, shape, size, strides
):
  x, kernel = _arguments(shape, size)
  expected = _by_definition(_native, x, kernel, strides)
  _assert_close(_by_form(name, x, kernel, strides), expected, 1e-5)


@pytest.mark.parametrize("name", FORMS)
def test_forms_agree_in_bfloat16_to_its_rounding(name):
  x, kernel = _arguments((2, 5, 6, 7, 3), (3, 3, 3), jnp.bfloat16)
  expected = _by_definition(
    _native, *(a.astype(jnp.float32) for a in (x, kernel)), (1, 1, 1)
  )
  expected = [a.astype(jnp.bfloat16) for a in expected]
  _assert_close(_by_form(name, x, kernel, (1, 1, 1)), expected, 2e-2)


def test_convolutions_of_folded_gradients_lie_as_the_cpu_has_them():
  """Images first and channels last, which XLA mends only outside branches."""
  x, kernel = _arguments((2, 5, 6, 7, 3), (3, 3, 3))
  y = _native(x, kernel, (1, 1, 1))
  form = convolution_forms.FORMS["folded"]
  convolutions = [
    equation
    for gradient in (
      lambda: form.input_gradient(y, kernel, (1, 1, 1), (5, 6, 7)),
      lambda: form.kernel_gradient(x, y, (1, 1, 1), (3, 3, 3)),
    )
    for equation in jax.make_jaxpr(gradient)().eqns
    if equation.primitive.name == "conv_general_dilated"
  ]
  assert len(convolutions) == 2
  for equation in convolutions:
    shapes = [x.aval.shape for x in equation.invars]
    assert equation.params["dimension_numbers"] == lax.conv_dimension_numbers(
      *shapes, ("NHWC", "HWIO", "NHWC")
    )


@pytest.mark.parametrize("shape, size, strides", CASES)
def test_the_layer_and_its_gradients_equal_the_native_form(
  shape, size, strides
):
  x, kernel = _arguments(shape, size)
  expected = _by_definition(_native, x, kernel, strides)
  actual = _by_definition(convolution.valid_conv, x, kernel, strides)
  _assert_close(actual, expected, 1e-5)


def _penalty_gradients(conv, x, kernel, strides):
  """Gradients of a penalty on gradients, as R1 takes them."""

  def penalty(x, kernel):
    loss = lambda x, k: jnp.sin(conv(x, k, strides)).sum()
    gradients = jax.grad(loss, (0, 1))(x, kernel)
    return sum(jnp.square(g).sum() for g in gradients)

  return jax.jit(jax.grad(penalty, (0, 1)))(x, kernel)


@pytest.mark.parametrize("shape, size, strides", CASES[:2])
def test_second_gradients_equal_those_of_the_native_form(shape, size, strides):
  x, kernel = _arguments(shape, size)
  _assert_close(
    _penalty_gradients(convolution.valid_conv, x, kernel, strides),
    _penalty_gradients(_native, x, kernel, strides),
    1e-5,
  )


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu", "rocm"])
def test_every_platform_lowers_the_layer_and_its_gradients(platform):
  """Its own forms, and no others: those of other platforms would cost, too."""
  x, kernel = jnp.ones((1, 5, 6, 7, 256)), jnp.ones((3, 3, 3, 256, 256))
  loss = lambda x, k: convolution.valid_conv(x, k, (1, 1, 1)).sum()
  text = (
    jax.jit(jax.grad(loss, (0, 1)))
    .trace(x, kernel)
    .lower(lowering_platforms=(platform,))
    .as_text()
  )
  # Columns are kw times the channels; no other form has as many.
  assert ("x768x" in text) == (platform == "tpu")


def test_gradients_act_clip_by_clip_under_vmap():
  x, kernel = _arguments((2, 5, 6, 7, 3), (3, 3, 3))
  loss = lambda x, k: jnp.sin(convolution.valid_conv(x, k, (1, 1, 1))).sum()
  one = lambda x: jax.grad(loss)(x[None], kernel)[0]
  _assert_close(
    [jax.jit(jax.vmap(one))(x)], [jax.jit(jax.grad(loss))(x, kernel)], 1e-6
  )


@pytest.mark.parametrize("name", FORMS)
def test_clips_may_lie_on_several_devices(name):
  x, kernel = _arguments((4, 5, 6, 7, 3), (3, 3, 3))
  mesh = Mesh(np.array(jax.devices()[:4]), ("data",))
  spread = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data")))
  whole = jax.device_put(kernel, NamedSharding(mesh, PartitionSpec()))
  expected = _by_definition(_native, x, kernel, (1, 1, 1))
  _assert_close(_by_form(name, spread, whole, (1, 1, 1)), expected, 1e-5)


@pytest.mark.parametrize("shape, size, strides", CASES)
def test_counted_operations_are_those_of_the_definition(shape, size, strides):
  x, kernel = _arguments(shape, size)
  count = lambda conv: flops.count(lambda x, k: conv(x, k, strides), x, kernel)
  assert count(convolution.valid_conv) == count(_native)
  for name in FORMS:
    form = convolution_forms.FORMS[name]
    assert count(form.forward) == count(_native)
