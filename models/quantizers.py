"""Quantizers behind one interface: LFQ, VQ, FSQ and BSQ.

Each takes latents (B, t, h, w, K) of any float dtype, computes in float32, and
has `latent_channels` (K, of latents and codes alike), `vocabulary` (number of
codes, a Python int), `quantizer(z) -> Quantized`, `codes(ids)`, and
`ids(codes)`, its inverse. Ids are int32 and count channel 0 fastest: of binary
codes channel 0 is the least significant bit, id = sum_k 2^k [z_k >= 0].

Entropies are of softmax(-squared distance / temperature) over the codes.
"""

from collections.abc import Sequence
import math

from flax import nnx
from flax import struct
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from models import code_entropy

MAX_BITS = 31  # ids are int32


@struct.dataclass
class Quantized:
  """What a quantizer returns; entropies in nats, scalars in float32."""

  z: jax.Array  # (B, t, h, w, K) codes, gradient straight through
  ids: jax.Array  # (B, t, h, w) int32
  commitment: jax.Array  # mean squared distance of the input to its code
  codebook: jax.Array  # the same, moving the code; 0 without a codebook
  sample_entropy: jax.Array  # mean over tokens of H(p(code | z))
  batch_entropy: jax.Array  # H(mean over tokens of p(code | z)), as trained on
  codebook_entropy: jax.Array  # the same without epsilon, for reading


class LookupFreeQuantizer(nnx.Module):
  """LFQ (arXiv 2310.05737, section 3.1): codes are {-1, +1}^bits.

  There is no codebook to look up. Up to 18 bits the entropies are exact over
  all 2^bits codes; above, `code_entropy.of_bits` says what they are.
  """

  def __init__(
    self,
    bits: int,
    temperature: float = 0.01,
    epsilon: float = 1e-5,
    entropy_groups: int = 0,
  ):
    """`temperature` and `epsilon` (inside the log of the mean) as in praxis.

    At 18 bits a uniform code has probability 3.8e-6 < epsilon, so
    `batch_entropy` cannot exceed 11.19 nats there, against 12.48 for
    `codebook_entropy`. `entropy_groups`: 0 takes one group up to 18 bits, and
    ceil(bits / 8) above, as praxis.

    Raises:
      ValueError: bits outside 1..31, or groups of more than 18 or of no bits.
    """
    _require(1 <= bits <= MAX_BITS, "bits", bits, f"in 1..{MAX_BITS} (int32)")
    _require_temperature(temperature)
    exact = code_entropy.MAX_EXACT_BITS
    fewest = -(-bits // exact)
    _require(
      entropy_groups == 0 or fewest <= entropy_groups <= bits,
      "entropy_groups",
      entropy_groups,
      f"in {fewest}..{bits}, so that each of the groups of bits={bits} has"
      f" 1..{exact} bits, or 0 to choose by the number of bits",
    )
    self.latent_channels = bits
    self.vocabulary = 2**bits
    self.scale = 1.0  # magnitude of each entry of a code
    self.temperature = temperature
    self.epsilon = epsilon
    automatic = 1 if bits <= exact else -(-bits // 8)
    self.entropy_groups = entropy_groups or automatic

  def __call__(self, z_BTHWK: jax.Array) -> Quantized:
    z = z_BTHWK.astype(jnp.float32)
    codes = self.scale * jnp.where(z >= 0, 1.0, -1.0)
    # logit(code) = 2 <z, code> / temperature; between the values of one bit:
    logits = (4.0 * self.scale / self.temperature) * z
    logits_NK = logits.reshape(-1, self.latent_channels)
    entropies = code_entropy.of_bits(
      logits_NK, self.entropy_groups, self.epsilon
    )
    return Quantized(
      z=_straight_through(codes, z).astype(z_BTHWK.dtype),
      ids=codes_to_ids(codes),
      commitment=jnp.square(lax.stop_gradient(codes) - z).mean(),
      codebook=jnp.zeros(()),
      sample_entropy=entropies.sample,
      batch_entropy=entropies.batch,
      codebook_entropy=entropies.codebook,
    )

  def codes(self, ids_Bthw: jax.Array) -> jax.Array:
    """int32 (B, t, h, w) to float32 ±scale (B, t, h, w, K)."""
    return self.scale * ids_to_codes(ids_Bthw, self.latent_channels)

  def ids(self, codes_BthwK: jax.Array) -> jax.Array:
    """Inverse of `codes`."""
    return codes_to_ids(codes_BthwK)


class BinarySphericalQuantizer(LookupFreeQuantizer):
  """BSQ (arXiv 2406.07548): LFQ on the unit sphere, codes {±1/sqrt(bits)}^bits.

  Latents u = z / |z| are normalised here, and the gradient passes through that.
  The paper's p(code | u) = softmax(tau <u, code>) has tau = 2 / temperature: a
  bit is set with probability sigmoid(4 u_k / (sqrt(bits) temperature)). The
  authors' code calls 1 / temperature its inverse temperature, and divides the
  entropies' weight by it. `commitment` is that of u, hence below 2 / bits;
  the paper does without.
  """

  def __init__(self, bits: int, *args, **kwargs):
    """Arguments and errors of `LookupFreeQuantizer`."""
    super().__init__(bits, *args, **kwargs)
    self.scale = bits**-0.5

  def __call__(self, z_BTHWK: jax.Array) -> Quantized:
    u_BTHWK = _unit_vectors(z_BTHWK.astype(jnp.float32))
    quantized = super().__call__(u_BTHWK)
    return quantized.replace(z=quantized.z.astype(z_BTHWK.dtype))


class VectorQuantizer(nnx.Module):
  """VQ of MAGVIT (arXiv 2212.05199; its code, `models/vqvae.py`).

  Its entropies, as there, need logits of tokens x vocabulary, and move both the
  latents and the codebook. `z` leaves the codebook to the codebook loss.
  """

  def __init__(
    self,
    codebook_size: int,
    embedding_dim: int,
    temperature: float = 0.01,
    epsilon: float = 1e-5,
    normalize: bool = False,
    *,
    rngs: nnx.Rngs,
  ):
    """With `normalize`, latents and codes, the returned too, are unit vectors.

    Raises:
      ValueError: fewer than 2 codes, or codes without a channel.
    """
    _require(codebook_size >= 2, "codebook_size", codebook_size, "at least 2")
    _require(embedding_dim >= 1, "embedding_dim", embedding_dim, "at least 1")
    _require_temperature(temperature)
    self.latent_channels = embedding_dim
    self.vocabulary = codebook_size
    self.temperature = temperature
    self.epsilon = epsilon
    self.normalize = normalize
    # fan_in is the vocabulary here: entries within ±sqrt(3 / vocabulary).
    init = jax.nn.initializers.variance_scaling(1.0, "fan_in", "uniform")
    shape = (codebook_size, embedding_dim)
    self.codebook = nnx.Param(init(rngs.params(), shape, jnp.float32))

  def __call__(self, z_BTHWK: jax.Array) -> Quantized:
    z = self._on_sphere(z_BTHWK.astype(jnp.float32))
    affinity_NV = self._affinity(z.reshape(-1, self.latent_channels))
    ids = jnp.argmax(affinity_NV, axis=-1).reshape(z.shape[:-1])
    codes = self.codes(ids)
    entropies = code_entropy.of_softmax(
      affinity_NV / self.temperature, self.epsilon
    )
    return Quantized(
      z=_straight_through(codes, z).astype(z_BTHWK.dtype),
      ids=ids,
      commitment=jnp.square(lax.stop_gradient(codes) - z).mean(),
      codebook=jnp.square(codes - lax.stop_gradient(z)).mean(),
      sample_entropy=entropies.sample,
      batch_entropy=entropies.batch,
      codebook_entropy=entropies.codebook,
    )

  def codes(self, ids_Bthw: jax.Array) -> jax.Array:
    """int32 (B, t, h, w) to the rows of the codebook, (B, t, h, w, K)."""
    return self._on_sphere(self.codebook[...])[ids_Bthw]

  def ids(self, codes_BthwK: jax.Array) -> jax.Array:
    """Inverse of `codes`, if no two rows of the codebook are equal."""
    affinity_NV = self._affinity(codes_BthwK.reshape(-1, self.latent_channels))
    ids = jnp.argmax(affinity_NV, axis=-1)
    return ids.reshape(codes_BthwK.shape[:-1])

  def _affinity(self, z_NK: jax.Array) -> jax.Array:
    """2 <z, code> - |code|^2, that is |z|^2 - squared distance.

    |z|^2 is the same for all codes, so it changes neither argmax nor softmax,
    and would only cost digits.
    """
    codebook_VK = self._on_sphere(self.codebook[...])
    inner_NV = jnp.matmul(z_NK, codebook_VK.T, precision=lax.Precision.HIGHEST)
    return 2.0 * inner_NV - jnp.square(codebook_VK).sum(-1)

  def _on_sphere(self, x: jax.Array) -> jax.Array:
    return _unit_vectors(x) if self.normalize else x


class FiniteScalarQuantizer(nnx.Module):
  """FSQ (arXiv 2309.15505): each channel is bounded, then rounded to a level.

  Channel k takes `levels[k]` values: (-h, ..., h) / h with h = levels[k] // 2,
  without the last of them if the number is even: an even number of levels is
  centred on -1/2 before the division, so that zero is a level in any case. Ids
  are numbers of mixed radix, channel 0 the fastest.

  There is nothing to learn: `commitment` and `sample_entropy` are 0.
  `batch_entropy` and `codebook_entropy` are both the entropy of the histogram
  of ids, and have no gradient.
  """

  def __init__(self, levels: Sequence[int]):
    """Raises ValueError: a level below 2, or more codes than int32 counts."""
    levels = tuple(levels)
    _require(
      levels and all(isinstance(n, int) and n >= 2 for n in levels),
      "levels",
      levels,
      "one integer of at least 2 per channel, (8, 5, 5, 5) for 1000 codes",
    )
    self.levels = levels
    self.latent_channels = len(levels)
    self.vocabulary = math.prod(levels)
    _require(
      self.vocabulary <= 2**MAX_BITS,
      "levels",
      levels,
      f"levels of product at most 2^{MAX_BITS} (int32), not {self.vocabulary}",
    )

  def __call__(self, z_BTHWK: jax.Array) -> Quantized:
    bounded = self.bound(z_BTHWK.astype(jnp.float32))
    half_width = self._half_width()
    codes = jnp.round(bounded) / half_width
    ids = self.ids(codes)
    entropy = code_entropy.of_ids(ids)
    return Quantized(
      z=_straight_through(codes, bounded / half_width).astype(z_BTHWK.dtype),
      ids=ids,
      commitment=jnp.zeros(()),
      codebook=jnp.zeros(()),
      sample_entropy=jnp.zeros(()),
      batch_entropy=entropy,
      codebook_entropy=entropy,
    )

  def bound(self, z: jax.Array) -> jax.Array:
    """Squeezes (..., K) into the range that rounds to the levels.

    As the authors' code, tan included; arctanh would map zero to exactly zero,
    agrees from 4 levels on to 1e-3, and has no value at 2 levels.
    """
    levels = np.array(self.levels, np.float32)
    half_range = (levels - 1) * (1 - 1e-3) / 2
    offset = np.where(levels % 2 == 0, np.float32(0.5), np.float32(0.0))
    shift = np.tan(offset / half_range)
    return jnp.tanh(z + shift) * half_range - offset

  def codes(self, ids_Bthw: jax.Array) -> jax.Array:
    """int32 (B, t, h, w) to float32 in [-1, 1], (B, t, h, w, K)."""
    levels = np.array(self.levels, np.int32)
    digits = ids_Bthw[..., None] // self._radix() % levels
    half_width = self._half_width()
    return (digits.astype(jnp.float32) - half_width) / half_width

  def ids(self, codes_BthwK: jax.Array) -> jax.Array:
    """Inverse of `codes`. Codes are no latents: `bound` would move them."""
    half_width = self._half_width()
    digits = jnp.round(codes_BthwK * half_width + half_width)
    return jnp.sum(digits.astype(jnp.int32) * self._radix(), axis=-1)

  def _half_width(self) -> np.ndarray:
    return (np.array(self.levels) // 2).astype(np.float32)

  def _radix(self) -> np.ndarray:
    """Value of one step of each channel."""
    return np.cumprod((1, *self.levels[:-1])).astype(np.int32)


def build(
  name: str,
  bits: int,
  entropy_temperature: float,
  entropy_groups: int,
  codebook_size: int,
  embedding_dim: int,
  normalize: bool,
  levels: Sequence[int],
  *,
  rngs: nnx.Rngs,
) -> nnx.Module:
  """The quantizer of config section `quantizer`; each reads its own fields.

  Raises:
    ValueError: an unknown name, or a value that this quantizer cannot take.
  """
  makers = {
    "lfq": lambda: LookupFreeQuantizer(
      bits, entropy_temperature, entropy_groups=entropy_groups
    ),
    "bsq": lambda: BinarySphericalQuantizer(
      bits, entropy_temperature, entropy_groups=entropy_groups
    ),
    "vq": lambda: VectorQuantizer(
      codebook_size,
      embedding_dim,
      entropy_temperature,
      normalize=normalize,
      rngs=rngs,
    ),
    "fsq": lambda: FiniteScalarQuantizer(levels),
  }
  _require(name in makers, "name", name, f"one of {', '.join(makers)}")
  return makers[name]()


def initialize_codebook(
  latents_NK: jax.Array, key: jax.Array, vocabulary: int
) -> jax.Array:
  """Draws a codebook (vocabulary, K), float32, from distinct latents.

  Equal latents count once: of two equal codes one would never be used. For
  start-up, outside jit, since their number depends on the data.

  Raises:
    ValueError: fewer distinct latents than codes.
  """
  distinct_NK = np.unique(np.asarray(latents_NK, np.float32), axis=0)
  if len(distinct_NK) < vocabulary:
    raise ValueError(
      f"a codebook of {vocabulary} codes needs as many distinct latents, not"
      f" {len(distinct_NK)} (of {len(latents_NK)}): encode more clips, or lower"
      " quantizer.codebook_size"
    )
  rows = jax.random.choice(key, len(distinct_NK), (vocabulary,), replace=False)
  return jnp.asarray(distinct_NK)[rows]


def codes_to_ids(codes: jax.Array) -> jax.Array:
  """(..., K) of signs to int32 (...), channel 0 least significant."""
  weights = 2 ** jnp.arange(codes.shape[-1], dtype=jnp.int32)
  return jnp.sum((codes > 0).astype(jnp.int32) * weights, axis=-1)


def ids_to_codes(ids: jax.Array, bits: int) -> jax.Array:
  """int32 (...) to float32 ±1 (..., bits), channel 0 least significant."""
  bit = (ids[..., None] >> jnp.arange(bits, dtype=jnp.int32)) & 1
  return 2.0 * bit.astype(jnp.float32) - 1.0


def factorize(ids: jax.Array, factor_bits: Sequence[int]) -> jax.Array:
  """Splits ids (...) into sub-tokens (..., F), sub-token 0 the lowest bits.

  With factor_bits [9, 9] an 18-bit id becomes two of 512 (section 3.3), the
  ids of two codebooks: what praxis calls token groups.
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


def _straight_through(codes: jax.Array, z: jax.Array) -> jax.Array:
  """Exactly the codes, with the gradient of z."""
  return lax.stop_gradient(codes) + (z - lax.stop_gradient(z))


def _unit_vectors(x: jax.Array) -> jax.Array:
  """x / |x| along the last axis; zero stays zero, with a finite gradient."""
  squares = jnp.square(x).sum(-1, keepdims=True)
  return x * lax.rsqrt(jnp.maximum(squares, 1e-12))


def _require(good: bool, field: str, value, expected: str) -> None:
  if not good:
    raise ValueError(f"quantizer.{field}={value!r} must be {expected}")


def _require_temperature(temperature: float) -> None:
  _require(temperature > 0, "entropy_temperature", temperature, "positive")
