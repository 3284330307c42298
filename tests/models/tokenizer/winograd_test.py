"""Tests of models/tokenizer/winograd.py against the convolution it computes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.tokenizer import convolution
from models.tokenizer import convolution_forms
from models.tokenizer import winograd


def _draw(*shape):
  x = np.random.default_rng(sum(shape)).normal(size=shape)
  return jnp.asarray(x, jnp.float32)


@pytest.mark.parametrize(
  "size, kt",
  [
    ((1, 5, 8, 8), 3),  # an odd number of frames
    ((2, 2, 6, 4), 3),  # the smallest frames, in a batch
    ((1, 1, 4, 12), 1),  # an image
    ((1, 3, 32, 128), 3),  # bands of rows
  ],
)
def test_outputs_are_those_of_the_direct_form(size, kt):
  batch, frames, height, width = size
  x = _draw(batch, frames + kt - 1, height + 2, width + 2, 3)
  kernel = _draw(kt, 3, 3, 3, 5)
  expected = convolution_forms.conv_native(x, kernel, (1, 1, 1))
  y = jax.jit(winograd.valid_conv)(x, kernel)
  assert y.shape == expected.shape
  # The error measured 2e-6 of the largest output; that of the direct form 3e-7.
  np.testing.assert_allclose(y, expected, atol=1e-5 * np.abs(expected).max())


def test_transforms_are_exact():
  """F(m, 3) is an identity, and float64 computes with integers exactly."""
  rng = np.random.default_rng(0)
  for m, (output, kernel, inputs) in winograd._TRANSFORMS.items():
    x, k = rng.integers(-9, 9, m + 2), rng.integers(-9, 9, 3)
    y = output @ ((kernel @ k) * (inputs @ x))
    np.testing.assert_allclose(y, np.correlate(x, k, "valid"), atol=1e-12)


@pytest.mark.parametrize(
  "change",
  [
    dict(strides=(1, 2, 2)),
    dict(kernel=(4, 4, 4, 64, 64)),
    dict(kernel=(1, 1, 1, 64, 64)),
    dict(kernel=(3, 3, 3, 64, 32)),
    dict(size=(18, 18)),
    dict(size=(34, 35)),
    dict(dtype=jnp.bfloat16),
  ],
)
def test_only_wide_layers_of_large_frames_are_taken(change):
  settings = dict(
    strides=(1, 1, 1),
    kernel=(3, 3, 3, 64, 64),
    size=(34, 34),
    dtype=jnp.float32,
  )

  def is_faster(strides, kernel, size, dtype):
    x = jax.ShapeDtypeStruct((1, 3, *size, kernel[3]), dtype)
    return winograd.is_faster(x, jax.ShapeDtypeStruct(kernel, dtype), strides)

  assert is_faster(**settings)
  assert not is_faster(**settings | change)


def test_a_wide_layer_has_the_direct_forms_gradient():
  x, kernel = _draw(1, 3, 34, 34, 64), _draw(3, 3, 3, 64, 64)
  weight = _draw(1, 1, 32, 32, 64)

  def gradients(conv):
    loss = lambda x, k: (weight * conv(x, k, (1, 1, 1))).mean()
    return jax.jit(jax.grad(loss, (0, 1)))(x, kernel)

  for ours, direct in zip(
    gradients(convolution.valid_conv),
    gradients(convolution_forms.conv_as_taps),
    strict=True,
  ):
    # The operations are the same; another order of sums is allowed.
    scale = float(jnp.abs(direct).max())
    np.testing.assert_allclose(ours, direct, atol=1e-5 * scale)


def test_wide_layers_run_in_fewer_multiplications():
  """The compiler counts them; the form is for CPUs only."""
  x, kernel = _draw(1, 4, 34, 34, 64), _draw(3, 3, 3, 64, 64)

  def flops(conv):
    lowered = jax.jit(conv).lower(x, kernel)
    return lowered.compile().cost_analysis()["flops"]

  direct = flops(lambda x, k: convolution_forms.conv_as_taps(x, k, (1, 1, 1)))
  wide = flops(lambda x, k: convolution.valid_conv(x, k, (1, 1, 1)))
  assert wide < 0.6 * direct
