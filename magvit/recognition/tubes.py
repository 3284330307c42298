"""Masks of pretraining: blocks of positions, hidden for a part of the clip.

BEVT (arXiv 2112.01529, section 3.2) hides blocks of positions until half of
them are, in as many frames as a random share of the clip, one after another.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

_BLOCK = 4  # height and width of a block of 16 positions, BEVT's smallest
_FEWEST = 4  # blocks along a side, so that small grids have several


def draw(
  key: jax.Array,
  batch_size: int,
  shape: Sequence[int],
  share: float,
  least_span: float,
) -> jax.Array:
  """Tokens to hide, bool (B, t, h, w), for each clip anew.

  Args:
    key: PRNG key.
    batch_size: B.
    shape: (t, h, w).
    share: share of the positions of a frame that are hidden, at least one.
    least_span: smallest share of the frames; it is uniform from there to 1.
  """
  frames, height, width = shape
  place_key, span_key, start_key = jax.random.split(key, 3)
  hidden_Bhw = _blocks(place_key, batch_size, (height, width), share)
  shape_B1 = (batch_size, 1)
  span = jax.random.uniform(span_key, shape_B1, minval=least_span)
  count_B1 = jnp.ceil(span * frames).astype(jnp.int32).clip(1, frames)
  place = jax.random.uniform(start_key, shape_B1)
  start_B1 = (place * (frames - count_B1 + 1)).astype(jnp.int32)
  frame_1t = jnp.arange(frames)[None]
  within_Bt = (frame_1t >= start_B1) & (frame_1t < start_B1 + count_B1)
  return within_Bt[:, :, None, None] & hidden_Bhw[:, None]


def _blocks(key, batch_size: int, grid: Sequence[int], share: float):
  """Positions (B, h, w) in random blocks, the same number in each clip.

  All positions of a block have the same random number, but for a small one of
  their own, and the lowest are taken: one block at the most is cut.
  """
  block_key, shift_key, own_key = jax.random.split(key, 3)
  size = [min(_BLOCK, -(-side // _FEWEST)) for side in grid]
  blocks = [-(-side // s) + 1 for side, s in zip(grid, size, strict=True)]
  coarse = jax.random.uniform(block_key, (batch_size, *blocks))
  fine = coarse.repeat(size[0], axis=1).repeat(size[1], axis=2)
  shifts = [
    jax.random.randint(k, (batch_size,), 0, s)
    for k, s in zip(jax.random.split(shift_key), size, strict=True)
  ]
  cut = lambda x_HW, y, x: jax.lax.dynamic_slice(x_HW, (y, x), tuple(grid))
  rank_Bhw = jax.vmap(cut)(fine, *shifts)
  rank_Bhw += 1e-3 * jax.random.uniform(own_key, rank_Bhw.shape)
  rank_BN = rank_Bhw.reshape(batch_size, -1)
  count = max(1, round(share * rank_BN.shape[1]))
  order_BN = rank_BN.argsort(axis=-1).argsort(axis=-1)
  return (order_BN < count).reshape(rank_Bhw.shape)
