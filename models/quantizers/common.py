"""What all quantizers share: their results, and checks of their settings."""

from flax import struct
import jax
from jax import lax
import jax.numpy as jnp

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


def straight_through(codes: jax.Array, z: jax.Array) -> jax.Array:
  """Exactly the codes, with the gradient of z."""
  return lax.stop_gradient(codes) + (z - lax.stop_gradient(z))


def unit_vectors(x: jax.Array) -> jax.Array:
  """x / |x| along the last axis; zero stays zero, with a finite gradient."""
  squares = jnp.square(x).sum(-1, keepdims=True)
  return x * lax.rsqrt(jnp.maximum(squares, 1e-12))


def require(good: bool, field: str, value, expected: str) -> None:
  if not good:
    raise ValueError(f"quantizer.{field}={value!r} must be {expected}")


def require_temperature(temperature: float) -> None:
  require(temperature > 0, "entropy_temperature", temperature, "positive")
