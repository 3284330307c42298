"""Ids, the signs they stand for, and the sub-tokens they split into."""

from collections.abc import Sequence

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np


def codes_to_ids(codes: jax.Array) -> jax.Array:
  """Signs (..., K) to ids int32 (...), channel 0 least significant."""
  weights_K = 2 ** jnp.arange(codes.shape[-1], dtype=jnp.int32)
  weights = lax.broadcast_to_rank(weights_K, codes.ndim)
  return jnp.sum((codes > 0).astype(jnp.int32) * weights, axis=-1)


def ids_to_codes(ids: jax.Array, bits: int) -> jax.Array:
  """Ids int32 (...) to signs float32 ±1 (..., bits); inverts `codes_to_ids`."""
  places_K = jnp.arange(bits, dtype=jnp.int32)
  bit = (ids[..., None] >> lax.broadcast_to_rank(places_K, ids.ndim + 1)) & 1
  return 2.0 * bit.astype(jnp.float32) - 1.0


def factorize(
  ids: jax.Array | np.ndarray, factor_bits: Sequence[int]
) -> jax.Array:
  """Splits ids (...) into sub-tokens (..., F), sub-token 0 the lowest bits.

  With factor_bits [9, 9] an 18-bit id becomes two ids of codebooks of 512
  (section 3.3), which praxis calls token groups.
  """
  parts, shift = [], 0
  for bits in factor_bits:
    parts.append((ids >> shift) & (2**bits - 1))
    shift += bits
  return jnp.stack(parts, axis=-1)


def defactorize(
  parts: jax.Array | np.ndarray, factor_bits: Sequence[int]
) -> jax.Array:
  """Inverse of `factorize`: (..., F) to int32 (...)."""
  shifts_F = jnp.asarray(
    [sum(factor_bits[:k]) for k in range(len(factor_bits))], jnp.int32
  )
  shifts = lax.broadcast_to_rank(shifts_F, parts.ndim)
  return jnp.sum(parts.astype(jnp.int32) << shifts, axis=-1)
