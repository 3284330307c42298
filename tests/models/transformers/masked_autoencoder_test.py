"""Tests of models/transformers/masked_autoencoder.py: MAR's trunk."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import masked_diffusion as rows
from magvit.generators import masked_diffusion
from models import network
from models.transformers import attention
from models.transformers import diffusion_head
from models.transformers import masked_autoencoder
from tests import tiny


@pytest.mark.parametrize(
  ("row", "millions"),
  [
    ("imagenet256_b", 207.9),
    ("imagenet256_l", 478.3),
    ("imagenet256_h", 942.4),
  ],
)
def test_rows_have_mars_sizes(row, millions):
  config = rows.get_config(row)
  latents = types.SimpleNamespace(num=256, channels=16)
  net = masked_diffusion.define_denoiser(config, latents)
  shapes = jax.eval_shape(net.init, jax.random.key(0))
  # MAR has 1,000 classes and a latent for none, as ours has 1,001 rows.
  assert round(network.count(shapes) / 1e6, 1) == millions


@pytest.fixture(scope="module")
def conditions():
  """The function (z, masked, room) -> features, of drawn weights."""
  size = attention.TransformerSize(2, 16, 32, 2)
  head = diffusion_head.HeadSize(1, 8)
  net = network.define(
    lambda rngs: masked_autoencoder.MaskedAutoencoder(
      6, 3, 10, head, size, rngs=rngs
    )
  )
  params = tiny.trained_like(net)
  class_B = jnp.array([1, 10])

  def run(z_BNC, masked_BN, room=None):
    return net(
      params, z_BNC, masked_BN, class_B, class_B, room=room, method="conditions"
    )

  return jax.jit(run, static_argnums=2)


_MASKED_BN = jnp.array([[0, 1, 1, 0, 1, 1], [1, 1, 1, 1, 0, 0]], bool)


def test_masked_latents_are_not_read_and_the_others_are(conditions):
  z_BNC = jax.random.normal(jax.random.key(0), (2, 6, 3))
  total = lambda z: conditions(z, _MASKED_BN).sum()
  gradient = jax.jit(jax.grad(total))(z_BNC)
  np.testing.assert_array_equal((gradient != 0).any(-1), ~_MASKED_BN)


def test_room_for_more_latents_than_are_known_changes_nothing(conditions):
  z_BNC = jax.random.normal(jax.random.key(0), (2, 6, 3))
  whole = conditions(z_BNC, _MASKED_BN)
  for room in (2, 3):
    np.testing.assert_allclose(
      conditions(z_BNC, _MASKED_BN, room), whole, atol=1e-5
    )
