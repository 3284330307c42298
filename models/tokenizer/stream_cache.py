"""Frames that a causal network remembers between the chunks of a clip.

Every convolution over time needs the last frames of its own input. A network
that is called with a `Past` for each chunk in turn computes the same as for the
whole clip, in memory that does not grow with the clip.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Frames = tuple[jax.Array, ...]  # one (B, kept, H, W, C) per convolution


class Past:
  """Frames from the chunk before a chunk, and those for the chunk after it.

  Layers read and write them in the order in which they run. A `Past` lives
  while one chunk is traced; `Frames` go from chunk to chunk.
  """

  def __init__(self, before: Frames | None):
    """Starts from `after` of the chunk before; None at the start of a clip."""
    self.at_start = before is None
    self.after: Frames = ()
    self._before = before

  def extend(
    self,
    x_BTHWC: jax.Array,
    pad: Callable[[jax.Array], jax.Array],
    keep: int,
  ) -> jax.Array:
    """Puts the frames kept from the chunk before in front of a chunk.

    At the start of a clip `pad` adds frames instead, as for a whole clip. The
    last `keep` frames of the result are kept for the next chunk.
    """
    if self._before is None:
      x_BTHWC = pad(x_BTHWC)
    else:
      before_BTHWC = self._before[len(self.after)]
      x_BTHWC = jnp.concatenate([before_BTHWC, x_BTHWC], axis=1)
    self.after += (x_BTHWC[:, x_BTHWC.shape[1] - keep :],)
    return x_BTHWC
