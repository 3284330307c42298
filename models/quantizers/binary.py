"""LFQ and BSQ: every channel of a code is a sign.

Ids are id = sum_k 2^k [z_k >= 0]. Entropies are those of the distribution
softmax(-squared distance / temperature) over the codes.
"""

from collections.abc import Mapping
from typing import Any

from flax import nnx
import jax
from jax import lax
import jax.numpy as jnp

from models.quantizers import bits as bits_lib
from models.quantizers import common
from models.quantizers import entropy as entropy_lib


class LookupFreeQuantizer(common.Quantizer):
  """LFQ (arXiv 2310.05737, section 3.1): codes are {-1, +1}^bits.

  There is no codebook to look up. Up to 18 bits the entropies are exact over
  all 2^bits codes; above, `entropy.bit_entropies` says how they are estimated.
  """

  id_convention = "channel 0 is the least significant bit"
  signs = True

  def __init__(
    self,
    bits: int,
    temperature: float = 0.01,
    epsilon: float = 1e-5,
    entropy_groups: int = 0,
  ):
    """Takes `temperature` and `epsilon` (in the log of the mean) as in praxis.

    At 18 bits a uniform code has probability 3.8e-6 < epsilon, so
    `batch_entropy` cannot exceed 11.19 nats there, against 12.48 for
    `codebook_entropy`. `entropy_groups=0` takes one group up to 18 bits, and
    ceil(bits / 8) groups above, as praxis.

    Raises:
      ValueError: `bits` is outside 1..31, a group has no bits or more than 18,
        or the temperature is not positive.
    """
    common.require(
      1 <= bits <= common.MAX_BITS,
      "bits",
      bits,
      f"in 1..{common.MAX_BITS} (int32)",
    )
    common.require_temperature(temperature)
    exact = entropy_lib.MAX_EXACT_BITS
    fewest = -(-bits // exact)
    common.require(
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

  @classmethod
  def from_config(cls, settings: Mapping[str, Any], *, rngs: nnx.Rngs):
    del rngs  # there is nothing to draw
    return cls(
      settings["bits"],
      settings["entropy_temperature"],
      entropy_groups=settings["entropy_groups"],
    )

  def __call__(self, z_BTHWK: jax.Array) -> common.Quantized:
    z = z_BTHWK.astype(jnp.float32)
    codes = self.scale * jnp.where(z >= 0, 1.0, -1.0)
    # logit(code) = 2 <z, code> / temperature; a bit's logit is the difference
    # between its two values.
    logits = (4.0 * self.scale / self.temperature) * z
    logits_NK = logits.reshape(-1, self.latent_channels)
    entropies = entropy_lib.bit_entropies(
      logits_NK, self.entropy_groups, self.epsilon
    )
    return common.Quantized(
      z=common.straight_through(codes, z).astype(z_BTHWK.dtype),
      ids=bits_lib.codes_to_ids(codes),
      commitment=jnp.square(lax.stop_gradient(codes) - z).mean(),
      codebook=jnp.zeros(()),
      sample_entropy=entropies.sample,
      batch_entropy=entropies.batch,
      codebook_entropy=entropies.codebook,
    )

  def codes(self, coded: jax.Array) -> jax.Array:
    """Ids int32 (B, t, h, w) to codes float32 ±scale (B, t, h, w, K)."""
    return self.scale * bits_lib.ids_to_codes(coded, self.latent_channels)

  def ids(self, codes_BthwK: jax.Array) -> jax.Array:
    """Inverse of `codes`."""
    return bits_lib.codes_to_ids(codes_BthwK)


class BinarySphericalQuantizer(LookupFreeQuantizer):
  """BSQ (arXiv 2406.07548): LFQ on the unit sphere, codes {±1/sqrt(bits)}^bits.

  Latents z are normalised here to u = z / |z|, and the gradient with them.
  The paper's p(code | u) = softmax(tau <u, code>) has tau = 2 / temperature: a
  bit is set with probability sigmoid(4 u_k / (sqrt(bits) temperature)). The
  authors' code calls 1 / temperature its inverse temperature, and divides the
  entropies' weight by it. `commitment` is measured on u, hence below 2 / bits;
  the paper does without it.
  """

  def __init__(self, bits: int, *args, **kwargs):
    """Takes the arguments of `LookupFreeQuantizer`, and raises its errors."""
    super().__init__(bits, *args, **kwargs)
    self.scale = bits**-0.5

  def __call__(self, z_BTHWK: jax.Array) -> common.Quantized:
    u_BTHWK = common.unit_vectors(z_BTHWK.astype(jnp.float32))
    quantized = super().__call__(u_BTHWK)
    return quantized.replace(z=quantized.z.astype(z_BTHWK.dtype))
