"""Tests of the functions that the steps of algorithms share."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from magvit import algorithm as algorithm_lib


def _loss(params, batch, key):
  """A loss that is a mean over examples, and couples them by nothing."""
  del key
  error = jnp.tanh(batch["x"] @ params["w"]) - batch["y"]
  loss = jnp.square(error).mean()
  return loss, {"loss": loss, "error": jnp.abs(error).mean()}


def _problem():
  keys = jax.random.split(jax.random.key(0), 3)
  params = {"w": jax.random.normal(keys[0], (5,))}
  batch = {
    "x": jax.random.normal(keys[1], (12, 5)),
    "y": jax.random.normal(keys[2], (12,)),
  }
  return params, batch


@pytest.mark.parametrize("microbatches", [2, 3, 12])
def test_microbatches_give_the_gradient_of_the_whole_batch(microbatches):
  params, batch = _problem()
  run = lambda k: algorithm_lib.mean_gradient(
    _loss, params, batch, jax.random.key(1), k
  )
  gradient, metrics = run(1)
  in_parts, metrics_in_parts = run(microbatches)
  # The tolerance is for sums of 12 float32 numbers in another order.
  np.testing.assert_allclose(in_parts["w"], gradient["w"], rtol=1e-5)
  for name in metrics:
    np.testing.assert_allclose(metrics_in_parts[name], metrics[name], rtol=1e-5)


def test_each_microbatch_draws_its_own_dropout():
  params, batch = _problem()
  noise = lambda params, batch, key: (
    params["w"].sum() * 0.0,
    {"square": jnp.square(jax.random.normal(key, batch["y"].shape)).mean()},
  )
  run = lambda key, k: algorithm_lib.mean_gradient(
    noise, params, batch, key, k
  )[1]
  key = jax.random.key(1)
  expected = [
    noise(params, {"y": batch["y"][:6]}, jax.random.fold_in(key, i))[1][
      "square"
    ]
    for i in range(2)
  ]
  assert expected[0] != expected[1]
  np.testing.assert_allclose(
    run(key, 2)["square"], np.mean(expected), rtol=1e-6
  )


def test_each_device_keeps_its_examples():
  """Parts are every k-th example, so no example changes its device."""
  params, batch = _problem()
  seen = []

  def loss(params, batch, key):
    del key
    jax.debug.callback(lambda y: seen.append(np.asarray(y)), batch["y"])
    return params["w"].sum() * batch["y"].sum(), {}

  jax.block_until_ready(
    algorithm_lib.mean_gradient(loss, params, batch, jax.random.key(0), 3)
  )
  jax.effects_barrier()
  parts = sorted(tuple(y) for y in seen)
  assert parts == sorted(tuple(np.asarray(batch["y"][i::3])) for i in range(3))
