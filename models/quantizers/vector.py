"""VQ: the nearest row of a codebook."""

from collections.abc import Mapping
from typing import Any

from flax import nnx
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from models.quantizers import common
from models.quantizers import entropy as entropy_lib


class VectorQuantizer(common.Quantizer):
  """VQ of MAGVIT (arXiv 2212.05199; its code, `models/vqvae.py`).

  As in that code, the entropies need logits (tokens, vocabulary) and train both
  the latents and the codebook. `z` has no gradient by the codebook, which the
  `codebook` loss trains.
  """

  id_convention = "row of the codebook"
  has_codebook = True

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
    """Makes a codebook; with `normalize`, latents and codes are unit vectors.

    Raises:
      ValueError: there are fewer than 2 codes, they have no channel, or the
        temperature is not positive.
    """
    common.require(
      codebook_size >= 2, "codebook_size", codebook_size, "at least 2"
    )
    common.require(
      embedding_dim >= 1, "embedding_dim", embedding_dim, "at least 1"
    )
    common.require_temperature(temperature)
    self.latent_channels = embedding_dim
    self.vocabulary = codebook_size
    self.temperature = temperature
    self.epsilon = epsilon
    self.normalize = normalize
    # fan_in is the vocabulary here: entries lie in ±sqrt(3 / vocabulary).
    init = jax.nn.initializers.variance_scaling(1.0, "fan_in", "uniform")
    shape = (codebook_size, embedding_dim)
    self.codebook = nnx.Param(init(rngs.params(), shape, jnp.float32))

  @classmethod
  def from_config(cls, settings: Mapping[str, Any], *, rngs: nnx.Rngs):
    return cls(
      settings["codebook_size"],
      settings["embedding_dim"],
      settings["entropy_temperature"],
      normalize=settings["normalize"],
      rngs=rngs,
    )

  def __call__(self, z_BTHWK: jax.Array) -> common.Quantized:
    z = self._on_sphere(z_BTHWK.astype(jnp.float32))
    affinity_NV = self._affinity(z.reshape(-1, self.latent_channels))
    ids = jnp.argmax(affinity_NV, axis=-1).reshape(z.shape[:-1])
    codes = self.codes(ids)
    entropies = entropy_lib.softmax_entropies(
      affinity_NV / self.temperature, self.epsilon
    )
    return common.Quantized(
      z=common.straight_through(codes, z).astype(z_BTHWK.dtype),
      ids=ids,
      commitment=jnp.square(lax.stop_gradient(codes) - z).mean(),
      codebook=jnp.square(codes - lax.stop_gradient(z)).mean(),
      sample_entropy=entropies.sample,
      batch_entropy=entropies.batch,
      codebook_entropy=entropies.codebook,
    )

  def codes(self, coded: jax.Array) -> jax.Array:
    """Ids int32 (B, t, h, w) to rows of the codebook, (B, t, h, w, K)."""
    return self._on_sphere(self.codebook[...])[coded]

  def ids(self, codes_BthwK: jax.Array) -> jax.Array:
    """Inverse of `codes`, if no two rows of the codebook are equal."""
    affinity_NV = self._affinity(codes_BthwK.reshape(-1, self.latent_channels))
    ids = jnp.argmax(affinity_NV, axis=-1)
    return ids.reshape(codes_BthwK.shape[:-1])

  def _affinity(self, z_NK: jax.Array) -> jax.Array:
    """2 <z, code> - |code|^2, that is |z|^2 - squared distance.

    |z|^2 is the same for all codes, so it changes neither argmax nor softmax,
    and would only cost precision.
    """
    codebook_VK = self._on_sphere(self.codebook[...])
    inner_NV = jnp.matmul(z_NK, codebook_VK.T, precision=lax.Precision.HIGHEST)
    return 2.0 * inner_NV - jnp.square(codebook_VK).sum(-1)[None]

  def _on_sphere(self, x: jax.Array) -> jax.Array:
    return common.unit_vectors(x) if self.normalize else x


def initialize_codebook(
  latents_NK: jax.Array | np.ndarray, key: jax.Array, vocabulary: int
) -> jax.Array:
  """Draws a codebook (vocabulary, K), float32, from distinct latents.

  Equal latents count once, because one of two equal codes would never be used.
  It runs at start-up, outside jit: the number of distinct latents depends on
  the data.

  Raises:
    ValueError: there are fewer distinct latents than codes.
  """
  distinct_NK = np.unique(np.asarray(latents_NK, np.float32), axis=0)
  if len(distinct_NK) < vocabulary:
    raise ValueError(
      f"quantizer.codebook_size={vocabulary} needs as many distinct latents,"
      f" and {len(distinct_NK)} of {len(latents_NK)} are distinct: encode more"
      " clips, or lower quantizer.codebook_size"
    )
  rows = jax.random.choice(key, len(distinct_NK), (vocabulary,), replace=False)
  return jnp.asarray(distinct_NK)[rows]
