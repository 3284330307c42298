"""Tests of magvit/scoring/linear_probe.py: what the layers know."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from magvit import mesh as mesh_lib
from magvit import trained as trained_lib
from models import network
from models.transformers import attention
from models.transformers import autoregressive
from models.transformers import masked
from tests import tiny

_SIZE = attention.TransformerSize(3, 8, 16, 2)
_NETWORKS = {
  "masked": (
    lambda rngs: masked.MaskedTransformer(6, 16, 4, (3, 3), _SIZE, rngs=rngs),
    "depths",
  ),
  "autoregressive": (
    lambda rngs: autoregressive.ArTransformer(
      6, 4, (3, 3), False, "causal", _SIZE, rngs=rngs
    ),
    "depths",
  ),
}


def _inputs(name):
  parts = jax.random.randint(jax.random.key(0), (2, 6, 2), 0, 8)
  class_B = jnp.full(2, 4)
  return (parts, class_B, *([class_B * 0] if name == "masked" else []))


@pytest.mark.parametrize("name", _NETWORKS)
def test_features_have_each_depth_and_the_last_is_that_of_the_layers(name):
  make, method = _NETWORKS[name]
  net = network.define(make)
  params = tiny.trained_like(net)
  inputs = _inputs(name)
  depths = jax.jit(functools.partial(net, method=method))(params, *inputs)
  assert depths.shape == (2, 4, 8)
  assert jnp.abs(jnp.diff(depths, axis=1)).max((0, 2)).min() > 1e-5
  # A network of the first two layers has the same features until there.
  size = attention.TransformerSize(2, 8, 16, 2)
  cut = dict(params)
  stack = cut["layers"] if name == "masked" else cut["stack"]["layers"]
  less = jax.tree.map(lambda x: x[:2], stack)
  if name == "masked":
    cut["layers"] = less
    small = network.define(
      lambda rngs: masked.MaskedTransformer(6, 16, 4, (3, 3), size, rngs=rngs)
    )
  else:
    cut["stack"] = {**cut["stack"], "layers": less}
    small = network.define(
      lambda rngs: autoregressive.ArTransformer(
        6, 4, (3, 3), False, "causal", size, rngs=rngs
      )
    )
  fewer = jax.jit(functools.partial(small, method=method))(cut, *inputs)
  np.testing.assert_allclose(fewer, depths[:, :3], rtol=1e-5, atol=1e-6)


def test_a_masked_generator_sees_the_clip_and_no_class(
  tiny_generator_workdir,
):
  config = tiny.masked("")
  config.tokenizer_workdir = f"{tiny_generator_workdir}/tokenizer"
  mesh = mesh_lib.data_mesh(jax.devices()[:1])
  algorithm = trained_lib.build(config, mesh)
  params = tiny.drawn_state(algorithm).predict_params()
  video = np.random.default_rng(0).integers(0, 256, (2, 5, 16, 16, 3))
  batch = {"video": video.astype(np.uint8), "label": np.array([1, 2])}
  features = jax.jit(algorithm.predict["features"])
  first = features(params, batch, jax.random.key(0))
  assert first.shape == (2, 3, 16)
  other = {**batch, "label": np.array([3, 4])}
  np.testing.assert_array_equal(
    first, features(params, other, jax.random.key(1))
  )
  assert jnp.abs(first[0] - first[1]).max() > 1e-6
