"""Convolutions of clips: padding, and the form that each platform runs fastest.

There is one definition, `valid_conv`; what computes it and its gradients on a
platform is chosen by measurement (`choose`).
"""

from collections.abc import Sequence
import functools

import jax
from jax import lax
import jax.numpy as jnp

from models.tokenizer import convolution_forms
from models.tokenizer import winograd

_NATIVE_CHANNELS = 256  # on CUDA, forward; fewer are faster by taps
# On CPUs as many channels in, or fewer, make folded gradients the fastest; the
# forward form is folded if half as many come in, or if more come out.
_FOLDED_CHANNELS = 32
_PLATFORMS = ("cpu", "cuda", "tpu")  # what has a choice of its own


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
  """Unpadded 3-D convolution, lowered as each platform runs it fastest.

  So are its gradients, of any order, in reverse mode: `jax.jvp` is not defined.
  """
  return _conv(x_BTHWI, kernel, tuple(strides))


def choose(
  platform: str,
  x_BTHWI: jax.Array | jax.ShapeDtypeStruct,
  kernel: jax.Array | jax.ShapeDtypeStruct,
  strides: Sequence[int],
) -> tuple[str, str]:
  """Names of the forms (convolution_forms.py) that run forward and backward.

  `benchmarks/README.md` has the measurements on a CPU, and
  `docs/plan_a_job.md` what the compiler says for TPUs. On an H100 in bfloat16
  the native form and the taps reach 358 and 372 TF/s forward at 128 channels,
  484 and 476 at 256, 306 and 254 at 512; the taps win every gradient by 7 to
  20 %. Elsewhere, as on ROCm, nothing has been measured.
  """
  if platform == "tpu":
    return "columns", "columns"
  if platform == "cpu" and winograd.is_faster(x_BTHWI, kernel, strides):
    return "winograd", "taps"
  kt, *_, channels, out_channels = kernel.shape
  wide = min(channels, out_channels) >= _NATIVE_CHANNELS
  if platform == "cuda" and wide and kt > 1:
    return "native", "taps"
  if platform == "cpu" and tuple(strides) == (1, 1, 1) and kt > 1:
    few = channels <= _FOLDED_CHANNELS
    fewer = channels <= _FOLDED_CHANNELS // 2
    forward = fewer or (few and out_channels > channels)
    return "folded" if forward else "taps", "folded" if few else "taps"
  return "taps", "taps"


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _conv(x_BTHWI, kernel, strides):
  def lowered(platform):
    name, _ = choose(platform, x_BTHWI, kernel, strides)
    forward = convolution_forms.FORMS[name].forward
    return lambda x, k: forward(x, k, strides)

  return _by_platform(lowered, x_BTHWI, kernel)


# The product of a convolution's output with a cotangent is linear in input,
# kernel and cotangent, so that the gradients of the three functions below are
# the same three functions: R1, which differentiates twice, stays within them.
@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _input_gradient(g_BTHWO, kernel, strides, size):
  """Gradient of the input, whose frames, height and width are `size`."""

  def lowered(platform):
    x_BTHWI = jax.ShapeDtypeStruct(
      (g_BTHWO.shape[0], *size, kernel.shape[3]), g_BTHWO.dtype
    )
    _, name = choose(platform, x_BTHWI, kernel, strides)
    gradient = convolution_forms.FORMS[name].input_gradient
    return lambda g, k: gradient(g, k, strides, size)

  return _by_platform(lowered, g_BTHWO, kernel)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _kernel_gradient(x_BTHWI, g_BTHWO, strides, size):
  """Gradient of the kernel, which is `size` in time, height and width."""

  def lowered(platform):
    kernel = jax.ShapeDtypeStruct(
      (*size, x_BTHWI.shape[-1], g_BTHWO.shape[-1]), x_BTHWI.dtype
    )
    _, name = choose(platform, x_BTHWI, kernel, strides)
    gradient = convolution_forms.FORMS[name].kernel_gradient
    return lambda x, g: gradient(x, g, strides, size)

  return _by_platform(lowered, x_BTHWI, g_BTHWO)


def _by_platform(lowered, *arguments):
  branches = {platform: lowered(platform) for platform in _PLATFORMS}
  return lax.platform_dependent(
    *arguments, **branches, default=lowered("default")
  )


def _conv_backward(strides, inputs, g_BTHWO):
  x_BTHWI, kernel = inputs
  return (
    _input_gradient(g_BTHWO, kernel, strides, x_BTHWI.shape[1:4]),
    _kernel_gradient(x_BTHWI, g_BTHWO, strides, kernel.shape[:3]),
  )


def _input_gradient_backward(strides, size, inputs, cotangent_BTHWI):
  del size
  g_BTHWO, kernel = inputs
  return (
    _conv(cotangent_BTHWI, kernel, strides),
    _kernel_gradient(cotangent_BTHWI, g_BTHWO, strides, kernel.shape[:3]),
  )


def _kernel_gradient_backward(strides, size, inputs, cotangent):
  del size
  x_BTHWI, g_BTHWO = inputs
  return (
    _input_gradient(g_BTHWO, cotangent, strides, x_BTHWI.shape[1:4]),
    _conv(x_BTHWI, cotangent, strides),
  )


_conv.defvjp(lambda x, k, s: (_conv(x, k, s), (x, k)), _conv_backward)
_input_gradient.defvjp(
  lambda g, k, s, size: (_input_gradient(g, k, s, size), (g, k)),
  _input_gradient_backward,
)
_kernel_gradient.defvjp(
  lambda x, g, s, size: (_kernel_gradient(x, g, s, size), (x, g)),
  _kernel_gradient_backward,
)
