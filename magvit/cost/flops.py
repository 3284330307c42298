"""Floating-point operations of a program, counted in its text (jaxpr).

Only products of matrices and convolutions count, each multiply-add as two: the
rest is not the matrix units' work. A compiler's own count takes the body of a
loop once; this one multiplies by the loop's length.
"""

from collections.abc import Iterator
import math
from typing import Any

import jax


def count(function, *args: Any) -> int:
  """Counts the operations of one call, over all devices.

  Arguments may be `jax.ShapeDtypeStruct`s. Loops of unknown length count once,
  a branch as the costliest side. Where each platform has a form the default
  counts, so an operation that a CPU takes apart counts as it is defined.
  """
  return _count(jax.make_jaxpr(function)(*args).jaxpr)


def _count(jaxpr) -> int:
  return sum(_count_equation(equation) for equation in jaxpr.eqns)


def _count_equation(equation) -> int:
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
  inner = [_count(jaxpr) for jaxpr in _jaxprs(equation)]
  if name == "cond":
    platforms = equation.params.get("branches_platforms")
    return inner[platforms.index(None)] if platforms else max(inner)
  return sum(inner) * (equation.params["length"] if name == "scan" else 1)


def _jaxprs(equation) -> Iterator[Any]:
  for value in equation.params.values():
    for item in value if isinstance(value, (tuple, list)) else (value,):
      item = getattr(item, "jaxpr", item)
      if hasattr(item, "eqns"):
        yield item
