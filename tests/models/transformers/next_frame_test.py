"""Tests of models/transformers/next_frame.py: causality, and the cache."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models import network
from models.transformers import attention
from models.transformers import next_frame
from tests import tiny

_FRAMES = 4


@pytest.fixture(scope="module")
def net():
  size = attention.TransformerSize(2, 16, 24, 2)
  return network.define(
    lambda rngs: next_frame.NextFrame((2, 3), 4, 10, size, rngs=rngs)
  )


@pytest.fixture(scope="module")
def params(net):
  return tiny.trained_like(net)


@pytest.fixture(scope="module")
def inputs():
  """Latents of two clips, a noise level of each frame, classes."""
  x_BthwC = jax.random.normal(jax.random.key(0), (2, _FRAMES, 2, 3, 4))
  time_Bt = 1000 * jax.random.uniform(jax.random.key(1), (2, _FRAMES))
  return x_BthwC, time_Bt, jnp.array([1, 10])


@functools.cache
def _program(net, method="__call__"):
  """A method of the network, compiled as a whole."""
  return jax.jit(functools.partial(net, method=method))


def test_a_new_network_predicts_zero(net, inputs):
  params = jax.jit(net.init)(jax.random.key(0))
  output = _program(net)(params, *inputs)
  assert output.shape == inputs[0].shape and output.dtype == jnp.float32
  np.testing.assert_array_equal(output, 0)


@functools.cache
def _gradient(net):
  """Gradients of the sum of one output frame, whose place is an argument."""

  def total(x_BthwC, time_Bt, class_B, params, frame):
    return net(params, x_BthwC, time_Bt, class_B)[:, frame].sum()

  return jax.jit(jax.grad(total, argnums=(0, 1)))


@pytest.mark.parametrize("frame", range(_FRAMES))
def test_a_frame_depends_on_itself_and_on_those_before_alone(
  net, params, inputs, frame
):
  by_x, by_time = _gradient(net)(*inputs, params, frame)
  np.testing.assert_array_equal(by_x[:, frame + 1 :], 0)
  np.testing.assert_array_equal(by_time[:, frame + 1 :], 0)
  assert (by_x[:, : frame + 1] != 0).all((1, 2, 3, 4)).all()
  assert (by_time[:, : frame + 1] != 0).all()


def _in_turn(net, params, inputs, frames, first=0):
  """Outputs of one frame after the other, through a cache."""
  x_BthwC, time_Bt, class_B = inputs
  cache = net(params, 2, frames, method="empty_cache")
  outputs = []
  for place in range(frames):
    at = slice(place, place + 1)
    output, cache = _program(net, "extend")(
      *(params, x_BthwC[:, at], time_Bt[:, at], class_B),
      *(first + place, place, cache),
    )
    outputs.append(output)
  return jnp.concatenate(outputs, axis=1)


def test_frames_in_turn_through_a_cache_are_those_of_one_call(
  net, params, inputs
):
  cached = _in_turn(net, params, inputs, _FRAMES)
  whole = _program(net)(params, *inputs)
  np.testing.assert_allclose(cached, whole, atol=1e-5)


def test_one_frame_is_an_image(net, params, inputs):
  x_BthwC, time_Bt, class_B = inputs
  image = _program(net)(params, x_BthwC[:, :1], time_Bt[:, :1], class_B)
  clip = _program(net)(params, *inputs)
  np.testing.assert_allclose(image, clip[:, :1], atol=1e-5)


def test_a_frame_drawn_again_takes_the_place_of_the_one_before(
  net, params, inputs
):
  """Steps of one frame leave nothing in the cache but the last."""
  x_BthwC, time_Bt, class_B = inputs
  empty = net(params, 2, 2, method="empty_cache")
  extend = lambda x, cache, frame: _program(net, "extend")(
    params, x, time_Bt[:, :1], class_B, frame, frame, cache
  )
  _, once = extend(x_BthwC[:, :1], empty, 0)
  _, noisy = extend(x_BthwC[:, 1:2], empty, 0)
  _, again = extend(x_BthwC[:, :1], noisy, 0)
  jax.tree.map(np.testing.assert_array_equal, once, again)


def test_distances_between_frames_count_and_their_numbers_do_not(
  net, params, inputs
):
  """All but frame 0, which a causal tokenizer makes from one frame."""
  at = lambda first: _program(net)(params, *inputs, first)
  np.testing.assert_allclose(at(1), at(1000), atol=1e-3)
  assert jnp.abs(at(0) - at(1)).max() > 1e-2
  cached = _in_turn(net, params, inputs, _FRAMES, first=7)
  np.testing.assert_allclose(cached, at(7), atol=1e-4)


def test_rotations_keep_lengths_and_see_distances():
  x = jax.random.normal(jax.random.key(0), (1, 3, 1, 1, 8))
  turned = next_frame.rotate(x, jnp.array([0, 5, 9]))
  np.testing.assert_allclose(
    jnp.linalg.norm(turned, axis=-1), jnp.linalg.norm(x, axis=-1), rtol=1e-5
  )
  np.testing.assert_array_equal(turned[:, 0], x[:, 0])
  product = lambda a, b: (
    next_frame.rotate(x[:, :1], jnp.array([a]))
    * next_frame.rotate(x[:, 1:2], jnp.array([b]))
  ).sum()
  np.testing.assert_allclose(product(3, 5), product(10, 12), rtol=1e-4)
  assert abs(product(3, 5) - product(3, 6)) > 1e-3


def test_heads_without_an_even_width_are_refused():
  size = attention.TransformerSize(1, 6, 8, 2)
  with pytest.raises(ValueError, match="denoiser.width=6 must be a multiple"):
    network.define(
      lambda rngs: next_frame.NextFrame((2, 2), 4, 10, size, rngs=rngs)
    )
