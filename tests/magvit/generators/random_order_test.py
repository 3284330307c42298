"""Tests of magvit/generators/random_order.py: which tokens are decided when."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from magvit.generators import random_order


def _decode(fixed_BN, steps, key=0):
  """Latents (B, N) that say in which step, from 1, each token was decided."""

  def draw(key, z_BNC, decided_BN, chosen_BM, share):
    del key, share
    # Steps done so far are the largest number that was written.
    step_B1 = jnp.where(decided_BN, z_BNC[..., 0], 0).max(-1, keepdims=True) + 1
    return jnp.broadcast_to(step_B1, chosen_BM.shape)[..., None]

  z_BN1 = random_order.decode(
    jax.random.key(key),
    draw,
    jnp.zeros((*fixed_BN.shape, 1)),
    jnp.asarray(fixed_BN),
    steps,
    "cosine",
  )
  return np.asarray(z_BN1[..., 0])


@pytest.mark.parametrize(("tokens", "steps"), [(20, 6), (5, 8), (7, 1)])
def test_every_token_is_decided_once_and_as_many_as_the_schedule_says(
  tokens, steps
):
  step_BN = _decode(np.zeros((2, tokens), bool), steps)
  left = tokens
  for number, after in enumerate(
    random_order.remaining(tokens, steps, "cosine"), 1
  ):
    after = min(after, max(left - 1, 0))
    assert ((step_BN == number).sum(-1) == left - after).all()
    left = after
  assert left == 0 and (step_BN > 0).all()


def test_fixed_tokens_keep_the_condition_and_the_others_are_decided():
  fixed_BN = np.zeros((2, 12), bool)
  fixed_BN[:, 3:10] = True
  step_BN = _decode(fixed_BN, 4)
  np.testing.assert_array_equal(step_BN > 0, ~fixed_BN)


def test_the_order_follows_the_key_and_the_clip():
  nothing = np.zeros((2, 12), bool)
  step_BN = _decode(nothing, 4)
  np.testing.assert_array_equal(step_BN, _decode(nothing, 4))
  assert (step_BN != _decode(nothing, 4, key=1)).any()
  assert (step_BN[0] != step_BN[1]).any()


def test_shares_of_decided_tokens_rise_to_one_at_the_last_step():
  shares = []

  def draw(key, z_BNC, decided_BN, chosen_BM, share):
    del key, z_BNC
    shares.append((float(share), float(decided_BN.mean())))
    return jnp.ones((*chosen_BM.shape, 1))

  with jax.disable_jit():
    random_order.decode(
      jax.random.key(0),
      draw,
      jnp.zeros((1, 10, 1)),
      jnp.zeros((1, 10), bool),
      4,
      "cosine",
    )
  with_step, before = zip(*shares, strict=True)
  assert with_step == pytest.approx((0.1, 0.3, 0.7, 1.0))
  assert before == pytest.approx((0.0, 0.1, 0.3, 0.7))
