"""Forms of the unpadded 3-D convolution: the same sums in another order.

`convolution.py` chooses among them. Each comes with the gradients of its input
and of its kernel.
"""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
import functools

import jax
from jax import lax
import jax.numpy as jnp

from models.tokenizer import winograd


@dataclasses.dataclass(frozen=True)
class Form:
  """A convolution of strides (time, height, width), and its gradients.

  forward: (x (B, T, H, W, I), kernel (kt, kh, kw, I, O), strides) -> y.
  input_gradient: (gradient of y, kernel, strides, (T, H, W)) -> that of x.
  kernel_gradient: (x, gradient of y, strides, (kt, kh, kw)) -> the kernel's.
  """

  forward: Callable[[jax.Array, jax.Array, Sequence[int]], jax.Array]
  input_gradient: Callable[
    [jax.Array, jax.Array, Sequence[int], Sequence[int]], jax.Array
  ]
  kernel_gradient: Callable[
    [jax.Array, jax.Array, Sequence[int], Sequence[int]], jax.Array
  ]


def transposed(forward: Callable) -> Form:
  """The form whose gradients are JAX's of `forward`, without `forward`."""
  return Form(
    forward,
    functools.partial(_transposed_input, forward),
    functools.partial(_transposed_kernel, forward),
  )


def _transposed_input(conv, g_BTHWO, kernel, strides, size):
  shape = (g_BTHWO.shape[0], *size, kernel.shape[3])
  x_BTHWI = jax.ShapeDtypeStruct(shape, g_BTHWO.dtype)
  transpose = jax.linear_transpose(lambda x: conv(x, kernel, strides), x_BTHWI)
  return transpose(g_BTHWO)[0]


def _transposed_kernel(conv, x_BTHWI, g_BTHWO, strides, size):
  shape = (*size, x_BTHWI.shape[-1], g_BTHWO.shape[-1])
  kernel = jax.ShapeDtypeStruct(shape, x_BTHWI.dtype)
  transpose = jax.linear_transpose(lambda k: conv(x_BTHWI, k, strides), kernel)
  return transpose(g_BTHWO)[0]


def conv_native(
  x_BTHWI: jax.Array, kernel: jax.Array, strides: Sequence[int]
) -> jax.Array:
  """The convolution as one 3-D convolution."""
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
  """The convolution as a sum of 2-D convolutions, one per temporal tap."""
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


def conv_folded(
  x_BTHWI: jax.Array, kernel: jax.Array, strides: Sequence[int]
) -> jax.Array:
  """The convolution as one 2-D convolution of kt * I channels."""
  frames_BTHWF = _side_by_side(x_BTHWI, kernel.shape[0], strides[0], axis=1)
  batch, out_frames, height, width, folded = frames_BTHWF.shape
  kt, kh, kw, channels, out_channels = kernel.shape
  y = lax.conv_general_dilated(
    frames_BTHWF.reshape(batch * out_frames, height, width, folded),
    kernel.transpose(1, 2, 0, 3, 4).reshape(
      kh, kw, kt * channels, out_channels
    ),
    strides[1:],
    "VALID",
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
  )
  return y.reshape(batch, out_frames, *y.shape[1:])


# XLA's CPU compiler gives a convolution to its fast routine if clips or frames
# are the first of its axes and channels the last; elsewhere in a program it
# makes them so, but not in branches and loops, where R1's conditional is: there
# JAX's gradients were 2 and 7 times slower than these.
def _folded_input_gradient(g_BTHWO, kernel, strides, size):
  if tuple(strides) != (1, 1, 1):
    return _transposed_input(conv_folded, g_BTHWO, kernel, strides, size)
  batch, out_frames, *_, out_channels = g_BTHWO.shape
  kt, kh, kw, channels, _ = kernel.shape
  turned = kernel[:, ::-1, ::-1].transpose(1, 2, 4, 0, 3)
  gradient_NHWF = _conv_in_plane(
    g_BTHWO.reshape(batch * out_frames, *g_BTHWO.shape[2:]),
    turned.reshape(kh, kw, out_channels, kt * channels),
    [(kh - 1, kh - 1), (kw - 1, kw - 1)],
  )
  x_BTHWI = jax.ShapeDtypeStruct((batch, *size, channels), g_BTHWO.dtype)
  fold = lambda x: _side_by_side(x, kt, 1, axis=1)
  return jax.linear_transpose(fold, x_BTHWI)(
    gradient_NHWF.reshape(batch, out_frames, *gradient_NHWF.shape[1:])
  )[0]


def _folded_kernel_gradient(x_BTHWI, g_BTHWO, strides, size):
  if tuple(strides) != (1, 1, 1):
    return _transposed_kernel(conv_folded, x_BTHWI, g_BTHWO, strides, size)
  kt, kh, kw = size
  in_planes = lambda x_BTHWC: x_BTHWC.reshape(-1, *x_BTHWC.shape[2:])
  # The outputs slide over the inputs; clips and frames are summed over.
  gradient_FhwO = _conv_in_plane(
    in_planes(_side_by_side(x_BTHWI, kt, 1, axis=1)).transpose(3, 1, 2, 0),
    in_planes(g_BTHWO).transpose(1, 2, 0, 3),
    [(0, 0), (0, 0)],
  )
  gradient = gradient_FhwO.reshape(kt, -1, kh, kw, g_BTHWO.shape[-1])
  return gradient.transpose(0, 2, 3, 1, 4)


def _conv_in_plane(x_NHWI, kernel, padding):
  dimensions = ("NHWC", "HWIO", "NHWC")
  return lax.conv_general_dilated(
    x_NHWI, kernel, (1, 1), padding, dimension_numbers=dimensions
  )


def conv_as_columns(
  x_BTHWI: jax.Array, kernel: jax.Array, strides: Sequence[int]
) -> jax.Array:
  """The convolution over time and height, of columns beside one another.

  Taps along the width become channels, kw * I of them, and each place of the
  output's width is one example. A TPU lays examples into the eight
  rows of its registers: a width of 64 fills them, where the 17 frames of the
  taps' examples fill 17 of 24, and arrays keep the layout that all other layers
  use. The clips of a batch are the third dimension, with a window of one.
  """
  if kernel.shape[:3] == (1, 1, 1):
    st, sh, sw = strides
    return x_BTHWI[:, ::st, ::sh, ::sw] @ kernel[0, 0, 0]
  columns_BTHWF = _side_by_side(x_BTHWI, kernel.shape[2], strides[2], axis=3)
  kt, kh, kw, channels, out_channels = kernel.shape
  return lax.conv_general_dilated(
    columns_BTHWF,
    kernel.reshape(1, kt, kh, kw * channels, out_channels),
    (1, *strides[:2]),
    "VALID",
    dimension_numbers=("DHWNC", "DHWIO", "DHWNC"),
  )


def _side_by_side(
  x_BTHWI: jax.Array, taps: int, stride: int, axis: int
) -> jax.Array:
  """Joins the channels of the points that each output reads along an axis."""
  outputs = (x_BTHWI.shape[axis] - taps) // stride + 1
  span = (outputs - 1) * stride + 1
  points = [
    lax.slice_in_dim(x_BTHWI, tap, tap + span, stride, axis=axis)
    for tap in range(taps)
  ]
  return jnp.concatenate(points, axis=-1)


def _columns_input_gradient(g_BTHWO, kernel, strides, size):
  if tuple(strides) != (1, 1, 1) or kernel.shape[:3] == (1, 1, 1):
    return _transposed_input(conv_as_columns, g_BTHWO, kernel, strides, size)
  # At stride 1 the gradient is a convolution like the forward one, which
  # compiles faster and moves less than the transposed slices of the columns.
  around = [(0, 0), *((k - 1, k - 1) for k in kernel.shape[:3]), (0, 0)]
  flipped = kernel[::-1, ::-1, ::-1].swapaxes(3, 4)
  return conv_as_columns(jnp.pad(g_BTHWO, around), flipped, strides)


def _columns_kernel_gradient(x_BTHWI, g_BTHWO, strides, size):
  if tuple(strides) != (1, 1, 1) or tuple(size) == (1, 1, 1):
    return _transposed_kernel(conv_as_columns, x_BTHWI, g_BTHWO, strides, size)
  # Without the barrier the compiler keeps the columns of the forward pass, kw
  # times the input, until this runs.
  x_BTHWI, g_BTHWO = lax.optimization_barrier((x_BTHWI, g_BTHWO))
  kt, kh, kw = size
  # The output's frames and height slide over the input's; clips and width are
  # summed over.
  gradient = lax.conv_general_dilated(
    _side_by_side(x_BTHWI, kw, 1, axis=3),
    g_BTHWO,
    (1, 1, 1),
    "VALID",
    dimension_numbers=("DHWCN", "DHWIO", "DHWNC"),
  )
  return gradient.reshape(kt, kh, kw, x_BTHWI.shape[-1], g_BTHWO.shape[-1])


def conv_winograd(
  x_BTHWI: jax.Array, kernel: jax.Array, strides: Sequence[int]
) -> jax.Array:
  """The convolution by Winograd's products, where `winograd.is_faster`.

  Its gradients are those of the plain convolution, not of the transforms.
  """
  del strides  # 1
  return winograd.valid_conv(x_BTHWI, kernel)


_TAPS = transposed(conv_as_taps)
FORMS = {
  "native": transposed(conv_native),
  "taps": _TAPS,
  "folded": Form(conv_folded, _folded_input_gradient, _folded_kernel_gradient),
  "columns": Form(
    conv_as_columns, _columns_input_gradient, _columns_kernel_gradient
  ),
  "winograd": dataclasses.replace(_TAPS, forward=conv_winograd),
}
