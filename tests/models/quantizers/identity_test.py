"""Tests of models/quantizers/identity.py."""

from flax import nnx
import jax
import numpy as np

from models.quantizers import build as quantizer_build


def test_latents_stand_for_themselves_and_every_loss_is_zero():
  quantizer = quantizer_build.build("none", embedding_dim=8, rngs=nnx.Rngs(0))
  z = jax.random.normal(jax.random.key(0), (2, 3, 4, 4, 8))
  quantized = quantizer(z)
  assert quantized.ids is None
  np.testing.assert_array_equal(quantized.z, z)
  np.testing.assert_array_equal(quantizer.codes(quantized.coded), z)
  scalars = jax.tree.leaves(quantized.replace(z=None))
  assert len(scalars) == 5 and not np.any(scalars)
  assert (quantizer.latent_channels, quantizer.vocabulary) == (8, 0)
