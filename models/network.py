"""The NNX boundary: modules describe networks, plain JAX runs them.

A `Network` is a pure pair of functions, parameters in and arrays out, made
once from a function that builds an `nnx.Module`. Parameters cross every `jit`,
`grad`, optimizer and checkpoint as a plain nested dict of arrays, which costs
what Linen costs on the host; `nnx.jit` costs 20 to 50 times as much.
"""

from collections.abc import Callable
import dataclasses
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

Params = dict[str, Any]  # nested; leaves are arrays


@dataclasses.dataclass(frozen=True)
class Network:
  """A network as pure functions of a plain dict of parameters."""

  make: Callable[[nnx.Rngs], nnx.Module]
  graphdef: nnx.GraphDef
  dtype: jnp.dtype | None = None  # parameters are cast to it in a call

  def init(self, key: jax.Array) -> Params:
    """Draws parameters. Pure: jit it, or `jax.eval_shape` it for sizes."""
    _, state = nnx.split(self.make(nnx.Rngs(key)))
    return nnx.to_pure_dict(state)

  def cast(self, params: Params) -> Params:
    """Parameters in the dtype of calls, which they then need not cast again.

    For loops of calls: a cast inside one may run, and read what it casts, in
    every turn.
    """
    if self.dtype is None:
      return params
    return jax.tree.map(lambda leaf: leaf.astype(self.dtype), params)

  def __call__(self, params: Params, *args, method: str = "__call__", **kwargs):
    """Runs one method of the module with these parameters."""
    module = nnx.merge(self.graphdef, self.cast(params))
    return getattr(module, method)(*args, **kwargs)


def define(
  make: Callable[[nnx.Rngs], nnx.Module], dtype: jnp.dtype | None = None
) -> Network:
  """Describes the module that `make` builds, without allocating its arrays.

  With a `dtype`, calls compute in it. Gradients still have the dtype of the
  parameters, and the module decides which operations stay in float32.
  """
  abstract = nnx.eval_shape(lambda: make(nnx.Rngs(0)))
  return Network(make, nnx.graphdef(abstract), dtype)


def count(params: Params) -> int:
  """Number of scalars in a tree of arrays or of `jax.ShapeDtypeStruct`s."""
  return sum(leaf.size for leaf in jax.tree.leaves(params))
