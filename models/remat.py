"""What a backward pass keeps of a layer, and what it computes again.

off   nothing is computed again
dots  products of activations and weights are kept; of a CNN there are none
all   only the layer's input is kept
"""

from collections.abc import Callable

import jax

_POLICIES = {
  "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
  "all": jax.checkpoint_policies.nothing_saveable,
}


def apply(layer: Callable, remat: str, *, in_scan: bool = False) -> Callable:
  """The layer, a function of arrays, with that way backwards.

  Raises:
    ValueError: an unknown choice.
  """
  if remat == "off":
    return layer
  if remat not in _POLICIES:
    raise ValueError(
      f"remat={remat!r} must be one of {['off', *_POLICIES]}: of a layer, what"
      " is computed again on the way backwards"
    )
  # A scan needs no fence around its body, and is faster without.
  return jax.checkpoint(layer, policy=_POLICIES[remat], prevent_cse=not in_scan)
