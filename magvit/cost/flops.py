"""Floating-point operations of a program, counted in its text (jaxpr).

Only products of matrices and convolutions count, each multiply-add as two: the
rest is not the matrix units' work. A compiler's own count takes the body of a
loop once; this one multiplies by the loop's length.
"""

import math
from typing import Any

import jax

from magvit.cost import jaxprs


def count(function, *args: Any, platform: str | None = None) -> int:
  """Counts the operations of one call, over all devices.

  Arguments may be `jax.ShapeDtypeStruct`s. A loop that counts up to a constant
  counts as often as it runs at the most, another loop of unknown length once, a
  branch as the costliest side, a kernel of Pallas as often as its grid says.

  Args:
    function: the function to trace.
    *args: its arguments.
    platform: platform whose forms count where platforms differ, like "tpu";
      None counts the default, so that an operation that a platform takes apart
      counts as it is defined.
  """
  return count_in(jax.make_jaxpr(function)(*args).jaxpr, platform)


def count_in(jaxpr, platform: str | None = None) -> int:
  """Counts the operations of a program's text, as `count` does."""
  known = jaxprs.known_numbers(jaxpr)
  return sum(_count_equation(e, platform, known) for e in jaxpr.eqns)


def _count_equation(equation, platform, known) -> int:
  name = equation.primitive.name
  if name == "dot_general":
    (contracted, _), _ = equation.params["dimension_numbers"]
    shape = equation.invars[0].aval.shape
    depth = math.prod(shape[d] for d in contracted)
    return 2 * math.prod(equation.outvars[0].aval.shape) * depth
  if name == "conv_general_dilated":
    kernel = equation.invars[1].aval.shape
    # The sum goes over all of (O, I, *space) but the output channels O.
    summed = equation.params["dimension_numbers"].rhs_spec[1:]
    depth = math.prod(kernel[d] for d in summed)
    # Most products in the gradient of a strided convolution are with a zero
    # that only stands for the stride.
    zeros = math.prod(equation.params["lhs_dilation"])
    output = math.prod(equation.outvars[0].aval.shape)
    return 2 * output * depth // zeros
  counts = [
    times * count_in(jaxpr, platform)
    for jaxpr, times in jaxprs.inside(equation, platform, known)
  ]
  return max(counts, default=0) if name == "cond" else sum(counts)
