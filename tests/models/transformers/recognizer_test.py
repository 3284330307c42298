"""Tests of models/transformers/recognizer.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models import network
from models.transformers import attention
from models.transformers import recognizer
from tests import tiny

_SHAPE = (3, 4, 4)


def _define(channels=6, patch=(1, 1, 1), classes=5, targets=()):
  size = attention.TransformerSize(1, 8, 16, 2)
  return network.define(
    lambda rngs: recognizer.Recognizer(
      *(channels, patch, _SHAPE, size, size, classes, targets), rngs=rngs
    )
  )


def _inputs(*shape):
  x = jax.random.normal(jax.random.key(0), shape)
  return x, jnp.zeros((shape[0], *_SHAPE), bool)


@pytest.fixture(scope="module")
def tokens():
  net = _define()
  return net, tiny.trained_like(net)


def test_a_hidden_token_is_not_seen(tokens):
  """The gradient of the logits is exactly 0 there, and nowhere else."""
  net, params = tokens
  x, hidden = _inputs(2, *_SHAPE, 6)
  hidden = hidden.at[:, 1, 2, 3].set(True)

  def total(x):
    return jnp.square(net(params, x, hidden, method="classify")).sum()

  seen = (jax.jit(jax.grad(total))(x) != 0).any(-1)
  np.testing.assert_array_equal(seen, ~hidden)


def test_tokens_know_their_place_in_space_and_time(tokens):
  net, params = tokens
  x, hidden = _inputs(1, *_SHAPE, 6)
  run = jax.jit(lambda x: net(params, x, hidden, method="classify"))
  logits = run(x)
  for axis in (1, 2, 3):
    other = run(jnp.flip(x, axis))
    assert jnp.abs(logits - other).max() > 1e-5


def test_later_frames_reach_earlier_ones_and_the_first_has_its_own_weights():
  net = _define(classes=0, targets=(7, 3))
  params = tiny.trained_like(net)
  x, hidden = _inputs(1, *_SHAPE, 6)
  run = jax.jit(lambda p, x: net(p, x, hidden, method="complete"))
  first = lambda x: jnp.square(run(params, x)[1][:, 0]).sum()
  assert (jax.jit(jax.grad(first))(x)[:, 2] != 0).any()
  shapes = [y.shape for y in run(params, x)]
  assert shapes == [(1, 48, 7), (1, 48, 3)]
  linear = params["embed_later"]["linear"]
  linear["kernel"] = jnp.zeros_like(linear["kernel"])
  moved = x.at[:, 0].add(1.0)
  a, b = (run(params, y)[0] for y in (x, moved))
  assert jnp.abs(a - b).max() > 1e-5


def test_pixels_and_tokens_have_the_same_transformers():
  trees = [
    jax.eval_shape(_define(*sizes).init, jax.random.key(0))
    for sizes in ((6, (1, 1, 1)), (3, (2, 4, 4)))
  ]
  for name in ("space", "time", "mask", "classes"):
    assert trees[0][name] == trees[1][name]
  kernels = [t["embed_later"]["linear"]["kernel"].shape for t in trees]
  assert kernels == [(6, 8), (3 * 2 * 4 * 4, 8)]


def test_features_are_means_at_each_depth(tokens):
  net, params = tokens
  x, hidden = _inputs(2, *_SHAPE, 6)
  run = lambda method: jax.jit(lambda x: net(params, x, hidden, method=method))(
    x
  )
  features = run("features")
  assert features.shape == (2, len(recognizer.DEPTHS), 8)
  head = params["classes"]
  logits = features[:, -1] @ head["kernel"] + head["bias"][None]
  expected = run("classify")
  np.testing.assert_allclose(logits, expected, atol=1e-5)
