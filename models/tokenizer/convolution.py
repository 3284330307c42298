"""Convolutions of clips: padding, and the form that each platform runs fastest.

There is one definition, `valid_conv`; its lowering is chosen by measurement
(`benchmarks/convolution.py`).
"""

from collections.abc import Sequence

import jax
from jax import lax
import jax.numpy as jnp

from models.tokenizer import winograd


def pad_with_edge(
  x_BTHWC: jax.Array, padding: Sequence[tuple[int, int]]
) -> jax.Array:
  """Repeats the edges, (before, after) points along time, height and width.

  `jnp.pad` does the same with a gradient that is twice as slow on CPU.
  """
  for axis, (before, after) in reversed(list(enumerate(padding, start=1))):
    first = lax.slice_in_dim(x_BTHWC, 0, 1, axis=axis)
    last = lax.slice_in_dim(x_BTHWC, -1, None, axis=axis)
    parts = [first] * before + [x_BTHWC] + [last] * after
    x_BTHWC = jnp.concatenate(parts, axis=axis)
  return x_BTHWC


def pad_with_zeros(
  x_BTHWC: jax.Array, padding: Sequence[tuple[int, int]]
) -> jax.Array:
  """Adds zeros, (before, after) points along time, height and width."""
  return jnp.pad(x_BTHWC, [(0, 0), *padding, (0, 0)])


def valid_conv(
  x_BTHWI: jax.Array, kernel: jax.Array, strides: Sequence[int]
) -> jax.Array:
  """Unpadded 3-D convolution, lowered as each platform runs it fastest."""
  if winograd.is_faster(x_BTHWI, kernel, strides):
    return _valid_conv_wide(x_BTHWI, kernel)
  return _valid_conv(x_BTHWI, kernel, strides)


def _valid_conv(x_BTHWI, kernel, strides=(1, 1, 1)):
  if kernel.shape[0] == 1:
    return conv_as_taps(x_BTHWI, kernel, strides)
  # Sums of 2-D convolutions win on CPU (measured: benchmarks/convolution.py)
  # and, by ahead-of-time estimate, on TPU. On GPUs they have not been measured;
  # cuDNN has native 3-D kernels, so those are taken.
  return lax.platform_dependent(
    x_BTHWI,
    kernel,
    cuda=lambda x, k: conv_native(x, k, strides),
    rocm=lambda x, k: conv_native(x, k, strides),
    default=lambda x, k: conv_as_taps(x, k, strides),
  )


@jax.custom_vjp
def _valid_conv_wide(x_BTHWI, kernel):
  """Convolution of a wide layer, in fewer multiplications on CPUs."""
  return lax.platform_dependent(
    x_BTHWI, kernel, cpu=winograd.valid_conv, default=_valid_conv
  )


# The gradient is that of the plain convolution, not of Winograd's transforms.
_valid_conv_wide.defvjp(
  lambda x, kernel: (_valid_conv_wide(x, kernel), (x, kernel)),
  lambda inputs, gradient: jax.vjp(_valid_conv, *inputs)[1](gradient),
)


def conv_native(
  x_BTHWI: jax.Array, kernel: jax.Array, strides: Sequence[int]
) -> jax.Array:
  """`valid_conv` as one 3-D convolution."""
  return lax.conv_general_dilated(
    x_BTHWI,
    kernel,
    strides,
    "VALID",
    dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
  )


def conv_as_taps(
  x_BTHWI: jax.Array, kernel: jax.Array, strides: Sequence[int]
) -> jax.Array:
  """`valid_conv` as a sum of 2-D convolutions, one per temporal tap."""
  batch, frames, height, width, channels = x_BTHWI.shape
  kt, stride = kernel.shape[0], strides[0]
  out_frames = (frames - kt) // stride + 1
  span = (out_frames - 1) * stride + 1
  y = jnp.zeros((), x_BTHWI.dtype)
  for tap in range(kt):
    x_tap = lax.slice_in_dim(x_BTHWI, tap, tap + span, stride, axis=1)
    y = y + lax.conv_general_dilated(
      x_tap.reshape(batch * out_frames, height, width, channels),
      kernel[tap],
      strides[1:],
      "VALID",
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
  return y.reshape(batch, out_frames, *y.shape[1:])
