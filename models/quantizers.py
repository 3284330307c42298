"""Quantizers. Lookup-free quantization (LFQ): arXiv 2310.05737, section 3.1.

A token is the sign pattern of K latent channels. Channel 0 is the least
significant bit: id = sum_k 2^k [z_k >= 0], int32.
"""

from collections.abc import Sequence

from flax import nnx
from flax import struct
import jax
from jax import lax
import jax.numpy as jnp

MAX_EXACT_BITS = 18


@struct.dataclass
class Quantized:
  """What a quantizer returns; entropies in nats, scalars in float32."""

  z: jax.Array  # (B, t, h, w, K) codes, gradient straight through
  ids: jax.Array  # (B, t, h, w) int32
  commitment: jax.Array  # mean squared distance of the input to its code
  sample_entropy: jax.Array  # mean over tokens of H(p(code | z))
  batch_entropy: jax.Array  # H(mean over tokens of p(code | z)), as trained on
  codebook_entropy: jax.Array  # the same without epsilon, for reading


class LookupFreeQuantizer(nnx.Module):
  """LFQ: codes are {-1, +1}^bits, and there is no codebook to look up.

  Entropies are exact over all 2^bits codes and over the whole (global) batch:
  p(code | z) is a product over bits, so the mean over N tokens of the
  distribution over 2^K codes is one matrix product A^T B / N of the
  distributions over the two halves of the bits (512 x 512 at K = 18). Under
  data parallelism XLA turns that product into one small all-reduce.
  """

  def __init__(
    self,
    bits: int,
    temperature: float = 0.01,
    epsilon: float = 1e-5,
    *,
    rngs: nnx.Rngs | None = None,
  ):
    """`temperature` and `epsilon` (inside the log of the mean) as in praxis.

    At 18 bits a uniform code has probability 3.8e-6 < epsilon, so
    `batch_entropy` cannot exceed 11.19 nats there, against 12.48 for
    `codebook_entropy`.

    Raises:
      ValueError: bits outside 1..18.
    """
    del rngs  # LFQ has no parameters
    if not 1 <= bits <= MAX_EXACT_BITS:
      raise ValueError(
        f"bits={bits} must be in 1..{MAX_EXACT_BITS}: the exact entropy of"
        " more bits needs a matrix of 2^bits entries"
      )
    self.bits = bits
    self.temperature = temperature
    self.epsilon = epsilon

  def __call__(self, z_BTHWK: jax.Array) -> Quantized:
    """Quantizes latents (B, t, h, w, bits) of any float dtype, in float32."""
    z = z_BTHWK.astype(jnp.float32)
    codes = jnp.where(z >= 0, 1.0, -1.0)
    commitment = jnp.square(lax.stop_gradient(codes) - z).mean()
    # logit(code) = 2 <z, code> / temperature, so of one bit 4 z / temperature.
    logits_NK = (4.0 / self.temperature) * z.reshape(-1, self.bits)
    mean = mean_code_probabilities(logits_NK)
    return Quantized(
      z=(z + lax.stop_gradient(codes - z)).astype(z_BTHWK.dtype),
      ids=codes_to_ids(codes),
      commitment=commitment,
      sample_entropy=bernoulli_entropy(logits_NK).sum(-1).mean(),
      batch_entropy=-jnp.sum(mean * jnp.log(mean + self.epsilon)),
      codebook_entropy=-jnp.sum(jax.scipy.special.xlogy(mean, mean)),
    )

  def codes(self, ids_Bthw: jax.Array) -> jax.Array:
    """Inverse of `Quantized.ids`: int32 (B, t, h, w) to ±1 (B, t, h, w, K)."""
    return ids_to_codes(ids_Bthw, self.bits)


def codes_to_ids(codes: jax.Array) -> jax.Array:
  """(..., K) of signs to int32 (...), channel 0 least significant."""
  weights = 2 ** jnp.arange(codes.shape[-1], dtype=jnp.int32)
  return jnp.sum((codes > 0).astype(jnp.int32) * weights, axis=-1)


def ids_to_codes(ids: jax.Array, bits: int) -> jax.Array:
  """int32 (...) to float32 ±1 (..., bits), channel 0 least significant."""
  bit = (ids[..., None] >> jnp.arange(bits, dtype=jnp.int32)) & 1
  return 2.0 * bit.astype(jnp.float32) - 1.0


def bernoulli_entropy(logits: jax.Array) -> jax.Array:
  """Entropy in nats of a bit with these logits, elementwise and stable."""
  magnitude = jnp.abs(logits)  # H is even; avoids inf - inf at large logits
  return jax.nn.softplus(-magnitude) + magnitude * jax.nn.sigmoid(-magnitude)


def mean_code_probabilities(logits_NK: jax.Array) -> jax.Array:
  """Mean over N tokens of p(code | token): (2^high, 2^low), high bits slower.

  Flattened, entry i is the code with id i.
  """
  low = logits_NK.shape[-1] // 2
  low_NV = code_probabilities(logits_NK[:, :low])
  high_NV = code_probabilities(logits_NK[:, low:])
  # Full precision: TPUs and GPUs would otherwise multiply in bfloat16 or TF32.
  total = jnp.matmul(high_NV.T, low_NV, precision=lax.Precision.HIGHEST)
  return total / logits_NK.shape[0]


def code_probabilities(logits_NK: jax.Array) -> jax.Array:
  """p(code | token) of independent bits: (N, K) logits to (N, 2^K).

  Products of the two halves of the bits, halved again down to single bits:
  the gradient then keeps fewer and smaller intermediates than bit by bit.
  """
  tokens, bits = logits_NK.shape
  if bits == 0:
    return jnp.ones((tokens, 1), logits_NK.dtype)
  if bits == 1:
    pair = [jax.nn.sigmoid(-logits_NK), jax.nn.sigmoid(logits_NK)]
    return jnp.concatenate(pair, axis=-1)
  low_NV = code_probabilities(logits_NK[:, : bits // 2])
  high_NV = code_probabilities(logits_NK[:, bits // 2 :])
  return (high_NV[:, :, None] * low_NV[:, None, :]).reshape(tokens, 2**bits)


def factorize(ids: jax.Array, factor_bits: Sequence[int]) -> jax.Array:
  """Splits ids (...) into sub-tokens (..., F), sub-token 0 the lowest bits.

  With factor_bits [9, 9] an 18-bit id becomes two of 512 (section 3.3).
  """
  parts, shift = [], 0
  for bits in factor_bits:
    parts.append((ids >> shift) & (2**bits - 1))
    shift += bits
  return jnp.stack(parts, axis=-1)


def defactorize(parts: jax.Array, factor_bits: Sequence[int]) -> jax.Array:
  """Inverse of `factorize`: (..., F) to int32 (...)."""
  shifts = jnp.asarray(
    [sum(factor_bits[:k]) for k in range(len(factor_bits))], jnp.int32
  )
  return jnp.sum(parts.astype(jnp.int32) << shifts, axis=-1)
