"""The interface of quantizers, their results, and checks of their settings."""

from collections.abc import Mapping
from typing import Any
from typing import ClassVar

from flax import nnx
from flax import struct
import jax
from jax import lax
import jax.numpy as jnp

MAX_BITS = 31  # ids are int32


class Quantized(struct.PyTreeNode):
  """Result of a quantizer; entropies are in nats, scalars in float32."""

  z: jax.Array  # codes (B, t, h, w, K), gradient straight through
  ids: jax.Array | None  # int32 (B, t, h, w); None without a vocabulary
  commitment: jax.Array  # mean squared distance of the input to its code
  codebook: jax.Array  # same distance, but moves the code; 0 without codebook
  sample_entropy: jax.Array  # mean over tokens of H(p(code | z))
  batch_entropy: jax.Array  # H(mean over tokens of p(code | z)), for training
  codebook_entropy: jax.Array  # batch_entropy without epsilon, for reports

  @property
  def coded(self) -> jax.Array:
    """What stands for the latents: ids, or `z` where there are none."""
    return self.z if self.ids is None else self.ids


class Quantizer(nnx.Module):
  """Turns latents (B, t, h, w, K) into codes, as large, and ids (B, t, h, w).

  Latents are of any float dtype; everything is computed in float32. Ids are
  int32 and count channel 0 fastest. A new quantizer is a subclass in a file of
  its own and a line in build.py.

  Attributes:
    id_convention: words for what the bits or digits of an id mean; they are
      written into exports and beside stored tokens.
    signs: whether codes are signs; bit k of an id is then that of channel k.
    has_codebook: whether the codes are a parameter `codebook` (vocabulary, K).
    has_ids: whether codes have ids; without, latents stand for themselves.
    latent_channels: K.
    vocabulary: number of codes, a Python int; 0 without ids.
  """

  id_convention: ClassVar[str]
  signs: ClassVar[bool] = False
  has_codebook: ClassVar[bool] = False
  has_ids: ClassVar[bool] = True

  latent_channels: int
  vocabulary: int

  @classmethod
  def from_config(
    cls, settings: Mapping[str, Any], *, rngs: nnx.Rngs
  ) -> "Quantizer":
    """Builds the quantizer from a config's section; others' fields are ignored.

    Raises:
      ValueError: the quantizer cannot take a value.
    """
    raise NotImplementedError

  def __call__(self, z_BTHWK: jax.Array) -> Quantized:
    raise NotImplementedError

  def codes(self, coded: jax.Array) -> jax.Array:
    """Ids int32 (B, t, h, w) to codes float32 (B, t, h, w, K).

    Without ids it takes latents (B, t, h, w, K), as `Quantized.coded` has them.
    """
    raise NotImplementedError

  def ids(self, codes_BthwK: jax.Array) -> jax.Array:
    """Inverse of `codes`."""
    raise NotImplementedError


def straight_through(codes: jax.Array, z: jax.Array) -> jax.Array:
  """Returns exactly the codes, but passes the gradient to z."""
  return lax.stop_gradient(codes) + (z - lax.stop_gradient(z))


def unit_vectors(x: jax.Array) -> jax.Array:
  """x / |x| along the last axis; zero stays zero, with a finite gradient."""
  squares = jnp.square(x).sum(-1, keepdims=True)
  return x * lax.rsqrt(jnp.maximum(squares, 1e-12))


def require(good: bool, field: str, value, expected: str) -> None:
  """Raises ValueError, naming the field of section `quantizer`, unless good."""
  if not good:
    raise ValueError(f"quantizer.{field}={value!r} must be {expected}")


def require_temperature(temperature: float) -> None:
  require(temperature > 0, "entropy_temperature", temperature, "positive")
