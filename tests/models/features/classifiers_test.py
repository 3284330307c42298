"""Tests of EfficientNet-Lite0 and SqueezeNet, with weights drawn by name.

With the trained weights they are checked by `python -m benchmarks.photographs`.
"""

import functools

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models import network
from models.features import efficientnet_lite0
from models.features import networks as feature_networks
from models.features import perceptual
from models.features import squeezenet
from models.features import taps
from models.weights import feature_networks as feature_weights
from models.weights import safetensors_file
from tests.models.features import classifiers_reference as reference
from tests.models.features import networks_reference

_NETWORKS = ("efficientnet_lite0", "squeezenet")
_SIZE = (37, 30)  # odd and even sides, so that padding differs


@functools.cache
def _drawn(name):
  """(published tensors, params) of weights that depend on names alone."""
  (kind,) = feature_networks.NETWORKS[name].sources
  tensors = {}
  for published, shape in feature_weights.their_shapes(name, kind).items():
    if published.endswith((".0", ".1")):  # SqueezeNet's, (h, w, in, out)
      drawn = networks_reference.draw(published, shape[::-1])
      tensors[published] = np.ascontiguousarray(drawn.T)
    else:
      tensors[published] = networks_reference.draw(published, shape)
  ours, _ = feature_weights.to_ours(name, tensors, "drawn")
  _, abstract = feature_networks.define(name)
  return tensors, safetensors_file.as_tree(ours, abstract)


def _images(seed):
  return networks_reference.pixels((2, *_SIZE, 3), seed) / np.float32(255.0)


@pytest.mark.parametrize("kernel, stride", [(3, 1), (3, 2), (5, 1), (5, 2)])
def test_channels_alone_are_convolved_on_cpus_as_elsewhere(kernel, stride):
  unit = efficientnet_lite0._Unit(6, 6, kernel, stride, groups=6)
  x_BHWC, kernel_hw1C = (
    jax.random.normal(jax.random.key(len(shape) + shape[0]), shape)
    for shape in ((2, *_SIZE, 6), (kernel, kernel, 1, 6))
  )
  results = []
  for form in (unit._convolved, unit._added_taps):
    output, gradients = jax.vjp(form, x_BHWC, kernel_hw1C)
    results.append((output, *gradients(jnp.cos(output))))
  for native, ours in zip(*results, strict=True):
    np.testing.assert_allclose(ours, native, rtol=1e-5, atol=1e-4)


@functools.cache
def _compiled(name):
  """Function to (activations by layer, distance, gradient by the second)."""
  net, _ = feature_networks.define(name)
  distance, _ = perceptual.describe(name)

  @jax.jit
  def run(params, target, output):
    layers = net(params, 255.0 * target, method="taps")
    total = lambda x: distance(params, target, x).sum()
    return layers, distance(params, target, output), jax.grad(total)(output)

  return run


@pytest.mark.parametrize(
  ("name", "scalars"),
  # The published 4.65 million weights, and two statistics of each batch norm.
  [("efficientnet_lite0", 4_652_008 + 42_016), ("squeezenet", 1_235_496)],
)
def test_sizes_of_the_networks(name, scalars):
  _, abstract = feature_networks.define(name)
  assert network.count(abstract) == scalars


@pytest.mark.slow
@pytest.mark.parametrize("name", _NETWORKS)
def test_activations_and_distances_are_those_of_the_tables(name):
  tensors, params = _drawn(name)
  target, output = _images(0), _images(1)
  layers, distances, gradient = _compiled(name)(params, target, output)
  run = getattr(reference, name)
  expected, other = (
    run(tensors, 255.0 * x.astype(np.float64)) for x in (target, output)
  )
  assert [x.shape for x in layers] == [x.shape for x in expected]
  for got, wanted in zip(layers, expected, strict=True):
    error = np.abs(got - wanted).max() / np.abs(wanted).max()
    assert error < 2e-5, error
  by_hand = []
  for x, y in zip(expected, other, strict=True):
    x, y = (
      z / (np.linalg.norm(z, axis=-1, keepdims=True) + 1e-10) for z in (x, y)
    )
    by_hand.append(np.square(x - y).sum(-1).mean((1, 2)))
  np.testing.assert_allclose(distances, np.mean(by_hand, axis=0), rtol=1e-4)
  assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", _NETWORKS)
def test_equal_images_have_no_distance(name):
  _, params = _drawn(name)
  images = _images(0)
  _, distances, gradient = _compiled(name)(params, images, images)
  assert (distances < 1e-9).all() and np.isfinite(gradient).all()


@pytest.mark.parametrize(
  ("name", "width"), [("efficientnet_lite0", 1280), ("squeezenet", 512)]
)
def test_features_are_pooled_for_images_of_any_size(name, width):
  net, params = feature_networks.define(name)
  for size, dtype in (((16, 16), jnp.uint8), ((300, 512), jnp.float32)):
    batch = jax.ShapeDtypeStruct((3, *size, 3), dtype)
    features = jax.eval_shape(net, params, batch)
    assert features["pool"].shape == (3, width)
    assert features["logits"].shape == (3, 1000)
  assert feature_networks.NETWORKS[name].dims == {"pool": width}


def test_squeezenet_refuses_images_that_its_pools_would_empty():
  distance, params = perceptual.describe("squeezenet")
  small = jax.ShapeDtypeStruct((1, 29, 28, 3), jnp.float32)
  with pytest.raises(ValueError, match=r"\(29, 28\) .*SqueezeNet.* 29 x 29"):
    jax.eval_shape(distance, params, small, small)
  least = jax.ShapeDtypeStruct((1, 29, 29, 3), jnp.float32)
  assert jax.eval_shape(distance, params, least, least).shape == (1,)


@pytest.mark.parametrize(("size", "stride"), [(6, 2), (7, 2), (6, 1), (7, 3)])
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_the_reference_pads_as_tensorflow_does(size, stride, kernel):
  """Against the definition, pixel by pixel."""
  rng = np.random.default_rng(0)
  x = rng.normal(size=(1, size, size, 2))
  weight = rng.normal(size=(3, 2, kernel, kernel))
  got = reference.same_convolution(x, weight, stride)
  count = -(-size // stride)
  before = max((count - 1) * stride + kernel - size, 0) // 2
  for i in range(count):
    for j in range(count):
      expected = np.zeros(3)
      for a in range(kernel):
        for b in range(kernel):
          row, column = i * stride + a - before, j * stride + b - before
          if 0 <= row < size and 0 <= column < size:
            expected += weight[:, :, a, b] @ x[0, row, column]
      np.testing.assert_allclose(got[0, i, j], expected)


def test_layers_count_alike_and_lengths_do_not():
  """Two layers, one of them orthogonal: half of a squared distance of 2."""
  first = jnp.array([[[[3.0, 0.0]]]])
  layers = [first, first]
  turned = [10.0 * first, jnp.array([[[[0.0, 0.1]]]])]
  np.testing.assert_allclose(taps.distance(layers, turned), [1.0], rtol=1e-6)


@pytest.mark.parametrize("name", _NETWORKS)
def test_absent_weights_are_an_error_that_says_what_to_do(name):
  with pytest.raises(ValueError) as error:
    perceptual.load(name, "")
  message = str(error.value)
  assert f"python -m models.weights.fetch --network={name}" in message
  assert "loss.perceptual_network=off" in message


@pytest.mark.parametrize("size", [31, 32, 7])
def test_pools_of_squeezenet_and_their_gradients_are_those_of_flax(size):
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.standard_normal((2, size, size + 1, 3)), jnp.float32)

  flax_pool = lambda x: nnx.max_pool(x, (3, 3), (2, 2), "VALID")
  np.testing.assert_array_equal(squeezenet.max_pool(x), flax_pool(x))
  gradients = [
    jax.grad(lambda x, pool=pool: (pool(x) ** 2).sum())(x)
    for pool in (squeezenet.max_pool, flax_pool)
  ]
  np.testing.assert_allclose(*gradients, rtol=1e-5)
