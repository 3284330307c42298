"""Tests of Inception, I3D and C3D against other code with the same weights.

The recorded features are float64; networks_reference.py made them.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models import network
from models.features import c3d
from models.features import i3d
from models.features import inception
from models.features import networks as feature_networks
from models.weights import feature_networks as feature_weights
from models.weights import safetensors_file
from tests.models.features import networks_reference

# The error of float32 through up to 60 layers measured 1e-6 (C3D: 4e-6). With a
# batch norm's epsilon of 1e-5, a resize by half-pixel centres, or an average
# pool in place of the last max pool it is 1e-3 and more.
_RTOL = 2e-5


def _params(name):
  """(network, params): weights drawn by their published names, converted."""
  shapes = feature_weights.their_shapes(name, "torch")
  tensors = {
    k: networks_reference.draw(k, shape) for k, shape in shapes.items()
  }
  if name == "i3d":
    tensors |= {
      re.sub(r"bias$", "weight", k): np.ones_like(v)
      for k, v in tensors.items()
      if k.endswith("bn.bias")
    }
  ours, _ = feature_weights.to_ours(name, tensors, "drawn")
  net, abstract = feature_networks.define(name)
  return jax.jit(net), safetensors_file.as_tree(ours, abstract)


def _check(got, expected):
  assert got.shape == expected.shape and got.dtype == np.float32
  error = np.abs(got - expected).max() / np.abs(expected).max()
  assert error < _RTOL, error


@pytest.mark.parametrize(
  ("name", "scalars"),
  [
    ("inception", 23_885_392),
    # The published file has 57 scales more, 7 280 numbers that are all 1.
    ("i3d", 12_711_824 - 7_280),
    ("c3d", 79_011_685),
  ],
)
def test_sizes_of_the_networks(name, scalars):
  _, abstract = feature_networks.define(name)
  assert network.count(abstract) == scalars


@pytest.mark.slow
def test_inception_is_torch_fidelitys():
  net, params = _params("inception")
  recorded = networks_reference.load()
  features = net(params, networks_reference.images())
  assert {k: x.shape[1] for k, x in features.items()} == inception.DIMS
  for name, x in features.items():
    kept = np.asarray(x)[:, :: networks_reference.KEPT[name]]
    _check(kept, recorded[f"inception_{name}"])


@pytest.mark.slow
def test_i3d_is_tensorflows():
  net, params = _params("i3d")
  logits = np.asarray(net(params, networks_reference.clip_i3d())["logits"])
  _check(logits, networks_reference.load()["i3d_logits"])


@pytest.mark.slow
def test_c3d_is_torchs():
  net, params = _params("c3d")
  x = np.asarray(net(params, networks_reference.clip_c3d())["probabilities"])
  _check(x, networks_reference.load()["c3d_probabilities"])
  np.testing.assert_allclose(x.sum(), 1.0, rtol=1e-6)


def test_average_pools_leave_out_the_padding():
  x_BHWC = jnp.ones((1, 4, 5, 1))
  np.testing.assert_allclose(inception._average_pool(x_BHWC), x_BHWC)


@pytest.mark.parametrize(
  ("sizes", "window", "strides", "expected"),
  [
    ((16, 224, 9), (7, 7, 7), (2, 2, 2), [(2, 3), (2, 3), (3, 3)]),
    ((5, 112, 56), (1, 3, 3), (1, 2, 2), [(0, 0), (0, 1), (0, 1)]),
    ((3, 28, 28), (3, 3, 3), (1, 1, 1), [(1, 1), (1, 1), (1, 1)]),
    ((3, 14, 4), (2, 2, 2), (2, 2, 2), [(0, 1), (0, 0), (0, 0)]),
  ],
)
def test_same_padding_puts_the_odd_point_after(
  sizes, window, strides, expected
):
  assert i3d.same_padding(sizes, window, strides) == expected


@pytest.mark.parametrize(
  ("window", "strides"),
  [
    ((3, 3, 3), (1, 1, 1)),
    ((3, 3, 3), (2, 2, 2)),
    ((2, 2, 2), (2, 2, 2)),
    ((1, 3, 3), (1, 2, 2)),
  ],
)
def test_the_max_pool_is_that_of_the_whole_box(window, strides):
  """Inputs are negative, so that padding with 0 would be the maximum."""
  rng = np.random.default_rng(0)
  x_BTHWC = rng.normal(size=(2, 5, 6, 7, 3)).astype(np.float32) - 5.0
  expected = jax.lax.reduce_window(
    x_BTHWC, -jnp.inf, jax.lax.max, (1, *window, 1), (1, *strides, 1), "SAME"
  )
  got = jax.jit(lambda x: i3d.max_pool(x, window, strides))(x_BTHWC)
  np.testing.assert_array_equal(got, expected)


def _shapes(name, shape, dtype=jnp.uint8):
  net, params = feature_networks.define(name)
  features = jax.eval_shape(net, params, jax.ShapeDtypeStruct(shape, dtype))
  return {k: x.shape for k, x in features.items()}


@pytest.mark.parametrize(
  ("size", "dtype"), [((32, 32), jnp.uint8), ((512, 300), jnp.float32)]
)
def test_images_of_any_size_and_dtype_are_taken(size, dtype):
  shapes = _shapes("inception", (3, *size, 3), dtype)
  assert shapes == {k: (3, dim) for k, dim in inception.DIMS.items()}


def test_i3d_takes_9_frames_or_more():
  assert _shapes("i3d", (2, 9, 64, 48, 3)) == {"logits": (2, 400)}
  with pytest.raises(ValueError, match="8 frames .*I3D.* 9"):
    _shapes("i3d", (2, 8, 64, 64, 3))


def test_c3d_takes_16_frames():
  assert _shapes("c3d", (2, 16, 9, 9, 3)) == {
    "probabilities": (2, c3d.DIMS["probabilities"])
  }
  for frames in (15, 17):
    with pytest.raises(ValueError, match=f"{frames} frames.* C3D .* 16 frames"):
      _shapes("c3d", (2, frames, 64, 64, 3))


def test_i3d_resizes_by_the_rule_of_its_variant(monkeypatch):
  """Both read the same pixels where nothing is left to resize."""
  used = []
  for name in ("tf1_bilinear", "half_pixel_bilinear"):
    rule = getattr(i3d.resize, name)
    monkeypatch.setattr(
      *(i3d.resize, name),
      lambda *args, name=name, rule=rule: used.append(name) or rule(*args),
    )
  assert set(i3d.NETWORK.variants) == {"half_pixel"}
  net, params = feature_networks.define("i3d")
  clip = jax.ShapeDtypeStruct((1, 9, 16, 16, 3), jnp.uint8)
  for method in ("__call__", "half_pixel"):
    call = lambda p, x, method=method: net(p, x, method=method)
    assert jax.eval_shape(call, params, clip)["logits"].shape == (1, 400)
  assert used == ["tf1_bilinear", "half_pixel_bilinear"]
