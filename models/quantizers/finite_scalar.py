"""FSQ: each channel is bounded, then rounded to one of a few levels."""

from collections.abc import Mapping
from collections.abc import Sequence
import math
from typing import Any

from flax import nnx
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from models.quantizers import common
from models.quantizers import entropy as entropy_lib


class FiniteScalarQuantizer(common.Quantizer):
  """FSQ (arXiv 2309.15505): each channel is bounded, then rounded to a level.

  Channel k takes `levels[k]` values: (-h, ..., h) / h with h = levels[k] // 2,
  without the last of them if the number is even: an even number of levels is
  centred on -1/2 before the division, so that zero is always a level. Ids are
  numbers of mixed radix; channel 0 counts fastest.

  The quantizer has nothing to learn: `commitment` and `sample_entropy` are 0.
  `batch_entropy` and `codebook_entropy` are both the entropy of the histogram
  of ids, and have no gradient.
  """

  id_convention = "mixed radix of the levels, channel 0 counts fastest"

  def __init__(self, levels: Sequence[int]):
    """Raises ValueError for levels below 2, or more codes than int32 counts."""
    levels = tuple(levels)
    common.require(
      len(levels) > 0 and all(isinstance(n, int) and n >= 2 for n in levels),
      "levels",
      levels,
      "one integer of at least 2 per channel, (8, 5, 5, 5) for 1000 codes",
    )
    self.levels = levels
    self.latent_channels = len(levels)
    self.vocabulary = math.prod(levels)
    common.require(
      self.vocabulary <= 2**common.MAX_BITS,
      "levels",
      levels,
      f"levels with a product of at most 2^{common.MAX_BITS} (int32), and it is"
      f" {self.vocabulary}",
    )

  @classmethod
  def from_config(cls, settings: Mapping[str, Any], *, rngs: nnx.Rngs):
    del rngs  # there is nothing to draw
    return cls(settings["levels"])

  def __call__(self, z_BTHWK: jax.Array) -> common.Quantized:
    bounded = self.bound(z_BTHWK.astype(jnp.float32))
    half_width = self._half_width(z_BTHWK.ndim)
    codes = jnp.round(bounded) / half_width
    ids = self.ids(codes)
    entropy = entropy_lib.histogram_entropy(ids)
    return common.Quantized(
      z=common.straight_through(codes, bounded / half_width).astype(
        z_BTHWK.dtype
      ),
      ids=ids,
      commitment=jnp.zeros(()),
      codebook=jnp.zeros(()),
      sample_entropy=jnp.zeros(()),
      batch_entropy=entropy,
      codebook_entropy=entropy,
    )

  def bound(self, z: jax.Array) -> jax.Array:
    """Squeezes (..., K) into the range that rounds to the levels.

    It follows the authors' code, tan included. arctanh in its place would map
    zero to exactly zero; the two agree to 1e-3 from 4 levels on, and arctanh
    has no value at 2 levels.
    """
    levels = np.array(self.levels, np.float32)
    half_range = (levels - 1) * (1 - 1e-3) / 2
    offset = np.where(levels % 2 == 0, np.float32(0.5), np.float32(0.0))
    shift = np.tan(offset / half_range)
    half_range, offset, shift = (
      lax.broadcast_to_rank(x_K, z.ndim) for x_K in (half_range, offset, shift)
    )
    return jnp.tanh(z + shift) * half_range - offset

  def codes(self, coded: jax.Array) -> jax.Array:
    """Ids int32 (B, t, h, w) to codes float32 in [-1, 1], (B, t, h, w, K)."""
    ndim = coded.ndim + 1
    levels = lax.broadcast_to_rank(np.array(self.levels, np.int32), ndim)
    digits = coded[..., None] // self._radix(ndim) % levels
    half_width = self._half_width(ndim)
    return (digits.astype(jnp.float32) - half_width) / half_width

  def ids(self, codes_BthwK: jax.Array) -> jax.Array:
    """Inverse of `codes`, which must not pass `bound`: it would move them."""
    half_width = self._half_width(codes_BthwK.ndim)
    digits = jnp.round(codes_BthwK * half_width + half_width)
    radix = self._radix(codes_BthwK.ndim)
    return jnp.sum(digits.astype(jnp.int32) * radix, axis=-1)

  def _half_width(self, ndim: int) -> jax.Array:
    """Half the levels of each channel, along the last of `ndim` axes."""
    half_width_K = (np.array(self.levels) // 2).astype(np.float32)
    return lax.broadcast_to_rank(half_width_K, ndim)

  def _radix(self, ndim: int) -> jax.Array:
    """Step of the id per level of a channel, on the last of `ndim` axes."""
    radix_K = np.cumprod((1, *self.levels[:-1])).astype(np.int32)
    return lax.broadcast_to_rank(radix_K, ndim)
