"""Floating-point operations of a program, counted in its text (jaxpr).

Only products of matrices and convolutions count, each multiply-add as two: the
rest is not the matrix units' work. A compiler's own count takes the body of a
loop once; this one multiplies by the loop's length.
"""

from collections.abc import Callable
import math
from typing import Any

import jax
from jax.interpreters import partial_eval

from magvit.cost import jaxprs


def count(
  function,
  *args: Any,
  platform: str | None = None,
  branch: Callable[[list[int]], int] = max,
) -> int:
  """Counts the operations of one call, over all devices.

  Arguments may be `jax.ShapeDtypeStruct`s. What no result reads is not counted,
  as compilers leave it out. A loop that counts up to a constant counts as often
  as it runs at the most, another loop of unknown length once, a kernel of
  Pallas as often as its grid says.

  Args:
    function: the function to trace.
    *args: its arguments.
    platform: platform whose forms count where platforms differ, like "tpu";
      None counts the default, so that an operation that a platform takes apart
      counts as it is defined.
    branch: which side of a branch counts, the costliest (max) or the cheapest.
  """
  return count_in(jax.make_jaxpr(function)(*args).jaxpr, platform, branch)


def count_in(
  jaxpr,
  platform: str | None = None,
  branch: Callable[[list[int]], int] = max,
) -> int:
  """Counts the operations of a program's text, as `count` does."""
  # A backward pass as traced has products that no gradient reads: those of
  # arguments that are not differentiated, and forward passes of a custom one.
  read, _ = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
  return _count(read, platform, branch)


def _count(jaxpr, platform, branch) -> int:
  known = jaxprs.known_numbers(jaxpr)
  return sum(_count_equation(e, platform, branch, known) for e in jaxpr.eqns)


def _count_equation(equation, platform, branch, known) -> int:
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
    times * _count(jaxpr, platform, branch)
    for jaxpr, times in jaxprs.inside(equation, platform, known)
  ]
  return branch(counts) if name == "cond" else sum(counts)
