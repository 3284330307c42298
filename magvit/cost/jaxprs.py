"""Walks a program's text (jaxpr): what each equation holds, and how often."""

from collections.abc import Iterator
import math
from typing import Any

from jax.extend import core


def inside(
  equation: Any, platform: str | None, known: dict[Any, int]
) -> list[tuple[Any, int]]:
  """Programs inside an equation that a platform runs, and how often each.

  A program that runs on every device of a `shard_map` counts for each.

  Args:
    equation: an equation of a jaxpr.
    platform: as in `flops.count`.
    known: numbers that are known before the program runs, by variable.
  """
  name, params = equation.primitive.name, equation.params
  if name == "cond":
    branches, platforms = params["branches"], params.get("branches_platforms")
    if platforms:
      branches = [branches[_place(platforms, platform)]]
    return [(branch.jaxpr, 1) for branch in branches]
  if name == "scan":
    return [(params["jaxpr"].jaxpr, params["length"])]
  if name == "while":
    trips = _trips(equation, known)
    return [
      (params[part].jaxpr, trips) for part in ("cond_jaxpr", "body_jaxpr")
    ]
  if name == "pallas_call":
    steps = math.prod(
      n for n in params["grid_mapping"].grid if isinstance(n, int)
    )
    return [(params["jaxpr"], steps)]
  devices = _devices(params) if name == "shard_map" else 1
  return [(jaxpr, devices) for jaxpr in _jaxprs(params)]


def known_numbers(jaxpr) -> dict[Any, int]:
  """Variables of a program that hold a number which its text says."""
  known = {}
  for equation in jaxpr.eqns:
    if equation.primitive.name in ("convert_element_type", "copy"):
      number = _number(equation.invars[0], known)
      if number is not None:
        known[equation.outvars[0]] = number
  return known


def _number(atom: Any, known: dict[Any, int]) -> int | None:
  if isinstance(atom, core.Literal):
    scalar = getattr(atom.aval, "shape", None) == ()
    return int(atom.val) if scalar else None
  return known.get(atom)


def _place(platforms: Any, platform: str | None) -> int:
  """Number of the branch for a platform; the default's for others."""
  for place, names in enumerate(platforms):
    if names is not None and platform in names:
      return place
  return platforms.index(None)


def _trips(equation: Any, known: dict[Any, int]) -> int:
  """Most runs of a loop while `i < n`, for i from 0 if it is not known.

  A loop whose n is not known runs once.
  """
  params = equation.params
  condition = params["cond_jaxpr"].jaxpr
  compare = condition.eqns[-1] if condition.eqns else None
  if compare is None or compare.primitive.name != "lt":
    return 1
  consts = params["cond_nconsts"]
  # The equation has the constants of the condition, then of the body, then
  # what the loop carries; the condition sees the first and the last.
  given = equation.invars[:consts]
  given += equation.invars[consts + params["body_nconsts"] :]
  outer = dict(zip(condition.invars, given, strict=True))
  start, end = (
    _number(x if isinstance(x, core.Literal) else outer.get(x), known)
    for x in compare.invars
  )
  return 1 if end is None else max(0, int(end) - int(start or 0))


def _devices(params: dict[str, Any]) -> int:
  """Number of devices that each run the body of a shard_map."""
  axes = params.get("newly_manual_axes") or params["mesh"].shape
  return math.prod(params["mesh"].shape[axis] for axis in axes)


def _jaxprs(params: dict[str, Any]) -> Iterator[Any]:
  for value in params.values():
    for item in value if isinstance(value, (tuple, list)) else (value,):
      item = getattr(item, "jaxpr", item)
      if hasattr(item, "eqns"):
        yield item
