"""What a causal network remembers between the chunks of a clip.

Every convolution over time needs the last frames of its own input. A network
called with a `Past`, chunk after chunk, computes what it computes of the whole
clip, in memory that does not grow with the clip.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Frames = tuple[jax.Array, ...]  # one (B, kept, H, W, C) per convolution


class Past:
  """Read and written in the order in which the layers run.

  It lives while one chunk is traced; `Frames` go from chunk to chunk.
  """

  def __init__(self, before: Frames | None):
    """`before` is `after` of the chunk before; None at the start of a clip."""
    self.at_start = before is None
    self.after: Frames = ()
    self._before = before

  def extend(
    self,
    x_BTHWC: jax.Array,
    pad: Callable[[jax.Array], jax.Array],
    keep: int,
  ) -> jax.Array:
    """The chunk behind the frames kept of the one before.

    At the start of a clip `pad` makes them, as for a whole clip. The last
    `keep` frames of the result are kept for the next chunk.
    """
    if self._before is None:
      x_BTHWC = pad(x_BTHWC)
    else:
      before_BTHWC = self._before[len(self.after)]
      x_BTHWC = jnp.concatenate([before_BTHWC, x_BTHWC], axis=1)
    self.after += (x_BTHWC[:, x_BTHWC.shape[1] - keep :],)
    return x_BTHWC
