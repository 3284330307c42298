"""Tests of models/tokenizer/discriminators.py."""

import jax
import numpy as np
import pytest

from models import network
from models.tokenizer import discriminators


@pytest.mark.parametrize("shape", [(5, 16, 16), (1, 16, 16)])
def test_one_logit_per_clip_that_sees_every_frame_and_no_other_clip(shape):
  net = network.define(
    lambda rngs: discriminators.Discriminator(shape, 4, (2, 2), rngs=rngs)
  )
  params = jax.jit(net.init)(jax.random.key(0))
  video = jax.random.uniform(jax.random.key(1), (2, *shape, 3))
  logits = jax.jit(net)(params, video)
  assert logits.shape == (2,)
  gradient = jax.jit(jax.grad(lambda v: net(params, v)[0]))(video)
  reach_BT = np.abs(gradient).max((2, 3, 4))
  assert (reach_BT[0] > 0).all()
  assert (reach_BT[1] == 0).all()
