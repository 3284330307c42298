"""No quantizer: latents of a tokenizer for models of real numbers.

W.A.L.T (arXiv 2312.06662, section 4.1) takes the final tokenizer without its
quantizer: a deterministic autoencoder, whose latents nothing bounds.
"""

from collections.abc import Mapping
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from models.quantizers import common


class NoQuantizer(common.Quantizer):
  """The identity: what stands for latents are the latents themselves.

  There are no codes, so that there are no ids: `vocabulary`, the entropies and
  `commitment` are 0.
  """

  id_convention = "no ids: latents are real numbers"
  has_ids = False

  def __init__(self, channels: int):
    """Raises ValueError for latents without a channel."""
    common.require(channels >= 1, "embedding_dim", channels, "at least 1")
    self.latent_channels = channels
    self.vocabulary = 0

  @classmethod
  def from_config(cls, settings: Mapping[str, Any], *, rngs: nnx.Rngs):
    del rngs  # there is nothing to draw
    return cls(settings["embedding_dim"])

  def __call__(self, z_BTHWK: jax.Array) -> common.Quantized:
    nothing = jnp.zeros(())
    return common.Quantized(
      z=z_BTHWK,
      ids=None,
      commitment=nothing,
      codebook=nothing,
      sample_entropy=nothing,
      batch_entropy=nothing,
      codebook_entropy=nothing,
    )

  def codes(self, coded: jax.Array) -> jax.Array:
    """Latents (B, t, h, w, K) as they are, in float32."""
    return coded.astype(jnp.float32)
