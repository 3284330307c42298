"""Dropout, and the random bits that it draws.

A mask is a hash of a seed and of the position, so that it is never stored, can
be recomputed in any block of any loop, and is the same on any mesh. The
hash is that of Wellons ("lowbias32", nullprogram.com/blog/2018/07/31), with a
second word of the seed mixed in between its two multiplications.
"""

import functools

from flax import nnx
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

# "threefry" draws what runs of before drew; a config of theirs lacks the field.
BITS = ("hash", "threefry")

# A word of 32 bits serves two columns that lie this far apart: 16 bits each.
HALF = 64
_LEVELS = 2**16  # values of those 16 bits


def check(bits: str) -> None:
  """Raises ValueError unless `bits` is a kind of random bits."""
  if bits not in BITS:
    raise ValueError(
      f"transformer.dropout_bits={bits!r} must be one of {BITS}; a run keeps"
      " the kind that it began with"
    )


def dropout(
  x: jax.Array, rate: float, key: jax.Array | None, bits: str = "hash"
) -> jax.Array:
  """Drops elements of (..., M, N) at a rate, scaling the rest.

  Without a key nothing is dropped. M times N is below 2^32.
  """
  if key is None or rate == 0.0:
    return x
  if bits == "threefry":
    # Stateless: a Dropout that holds rngs would draw one mask for every step.
    return nnx.Dropout(rate, deterministic=False)(x, rngs=key)
  check(bits)
  return _hashed_dropout(x, draw_seeds(key, x.shape[:-2]), rate)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _hashed_dropout(x, seeds, rate):
  rows, columns = x.shape[-2:]
  row = lax.broadcasted_iota(jnp.int32, (rows, 1), 0)
  column = lax.broadcasted_iota(jnp.int32, (1, columns), 1)
  kept = keep(seeds, row, column, columns, rate)
  scaled = (x.astype(jnp.float32) * scale(rate)).astype(x.dtype)
  return jnp.where(kept, scaled, 0)


# The backward pass draws the mask again, which is cheaper than to keep it.
_hashed_dropout.defvjp(
  lambda x, seeds, rate: (_hashed_dropout(x, seeds, rate), seeds),
  lambda rate, seeds, g: (_hashed_dropout(g, seeds, rate), None),
)


def draw_seeds(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  """Seeds of independent masks: int32 (*shape, 2)."""
  words = jax.random.bits(key, (*shape, 2), jnp.uint32)
  return lax.bitcast_convert_type(words, jnp.int32)


def threshold(rate: float) -> int:
  """Number of the 2^16 values of the bits for which an element is dropped."""
  return round(rate * _LEVELS)


def scale(rate: float) -> float:
  """Factor of what is kept: one over the share that is kept exactly."""
  return 1.0 / (1.0 - threshold(rate) / _LEVELS)


def words_of_row(columns: int) -> int:
  """Number of words that a row of a mask takes."""
  return -(-columns // (2 * HALF)) * HALF


def hash_words(first, second, position):
  """Hashes int32 positions with two words of a seed: int32, 32 random bits.

  Masks are independent for seeds that `draw_seeds` draws, not for any two: of
  seeds whose first words are equal and whose second ones differ in the highest
  bit alone, no element is dropped by both masks. Of two drawn seeds that hash
  the same positions, one pair in eight million differs in at most two bits of
  the second word; a stronger hash would not change that share, for two of its
  words lie as near as often. A change of this function changes the masks of
  runs that go on.
  """
  as_int = lambda n: np.uint32(n).astype(np.int32)
  shift = lambda h, n: lax.shift_right_logical(h, jnp.full_like(h, n))
  h = position + first
  h = (h ^ shift(h, 16)) * as_int(0x7FEB352D)
  h = (h ^ shift(h, 15) ^ second) * as_int(0x846CA68B)
  return h ^ shift(h, 16)


def keep(seeds, row, column, columns: int, rate: float) -> jax.Array:
  """Whether elements of masks are kept: bool (..., M, N).

  Args:
    seeds: int32 (..., 2), a mask each.
    row: int32 (M, 1), numbers of rows.
    column: int32 (1, N), numbers of columns.
    columns: number of columns of the whole mask.
    rate: share that is dropped.
  """
  lane = (column // (2 * HALF)) * HALF + column % HALF
  position = lax.expand_dims(
    row * words_of_row(columns) + lane, range(seeds.ndim - 1)
  )
  first, second = (seeds[..., n, None, None] for n in range(2))
  word = hash_words(first, second, position)
  upper = lax.expand_dims(column // HALF % 2 == 1, range(seeds.ndim - 1))
  bits = jnp.where(upper, lax.shift_right_logical(word, 16), word & 0xFFFF)
  return bits >= threshold(rate)
