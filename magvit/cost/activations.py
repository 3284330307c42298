"""Memory of a program's intermediate arrays, estimated from its text (jaxpr).

A compiler fuses much of it away: the number says how programs compare, and how
much a choice of what to keep for the backward pass is worth.
"""

import math

from jax.extend import core

from magvit.cost import jaxprs


def peak(jaxpr, platform: str) -> int:
  """Most bytes of intermediate arrays that are needed at one time.

  They are of all devices together. Inputs are not counted.

  Args:
    jaxpr: the program's text.
    platform: platform whose forms count where platforms differ.
  """
  last = {  # place of the last equation that reads a variable
    x: place
    for place, equation in enumerate(jaxpr.eqns)
    for x in equation.invars
    if not isinstance(x, core.Literal)
  }
  kept = {x for x in jaxpr.outvars if not isinstance(x, core.Literal)}
  held: dict = {}
  now = most = 0
  for place, equation in enumerate(jaxpr.eqns):
    made = {x: _bytes(x) for x in equation.outvars}
    most = max(most, now + sum(made.values()) + _inside(equation, platform))
    held |= {x: size for x, size in made.items() if x in last or x in kept}
    for x in [x for x in held if last.get(x, -1) <= place and x not in kept]:
      del held[x]
    now = sum(held.values())
  return most


def _inside(equation, platform: str) -> int:
  name = equation.primitive.name
  if name == "pallas_call":
    return 0  # on the chip
  inner = jaxprs.inside(equation, platform, {})
  # Bodies of loops and branches run in turn, those of a shard_map at once.
  at_once = lambda times: times if name == "shard_map" else 1
  return max(
    (at_once(times) * peak(jaxpr, platform) for jaxpr, times in inner),
    default=0,
  )


def _bytes(variable) -> int:
  aval = variable.aval
  if not hasattr(aval, "shape") or not hasattr(aval.dtype, "itemsize"):
    return 0
  return math.prod(aval.shape) * aval.dtype.itemsize
