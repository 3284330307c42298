"""Choice of what a layer keeps for its backward pass; the rest is recomputed.

off   keeps all that the gradient needs: nothing is recomputed
dots  keeps products of activations and weights, convolutions included, and
      what a kernel of attention gave; no product of these is recomputed
all   keeps only the layer's input
auto  for a generator: off on CPUs, dots elsewhere; for a tokenizer: the least
      recomputation that fits the device (magvit/tokenizer/kept.py)

A tokenizer's levels may have a choice each, fine to coarse: "all,dots,off,off".
"""

from collections.abc import Callable

import jax

from configs import fields

AUTO = fields.AUTO
KEPT = "kept with dots"  # name (checkpoint_name) of what "dots" keeps as well

_POLICIES = {
  "dots": jax.checkpoint_policies.save_from_both_policies(
    jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    jax.checkpoint_policies.save_only_these_names(KEPT),
  ),
  "all": jax.checkpoint_policies.nothing_saveable,
}


def by_level(remat: str, levels: int) -> tuple[str, ...]:
  """What each level of a tokenizer keeps, fine to coarse.

  A network alone knows no device, so that it takes "auto" as "off".

  Raises:
    ValueError: neither one choice nor one for each level.
  """
  if remat == AUTO:
    return ("off",) * levels
  return fields.split_remat(remat, levels)


def choose(remat: str, platform: str) -> str:
  """What "auto" stands for on a platform, like "cpu" or "tpu".

  On an accelerator it is cheaper to recompute what lies between products than
  to write it to memory and read it.
  """
  if remat != AUTO:
    return remat
  return "off" if platform == "cpu" else "dots"


def apply(layer: Callable, remat: str, *, in_scan: bool = False) -> Callable:
  """Wraps a layer, a function of arrays, to keep what `remat` says.

  Raises:
    ValueError: the choice is unknown.
  """
  if remat == "off":
    return layer
  if remat not in _POLICIES:
    raise ValueError(
      f"remat={remat!r} must be one of {['off', *_POLICIES]}; it says how much"
      " of each layer the backward pass recomputes"
    )
  # XLA cannot merge the recomputation in a scan's body with the first one, so
  # the barrier against that would only cost time.
  return jax.checkpoint(layer, policy=_POLICIES[remat], prevent_cse=not in_scan)
