"""Tests of models/perceptual.py."""

import jax
import numpy as np
import pytest
import safetensors.numpy

from models import network
from models import perceptual


@pytest.fixture(scope="module")
def abstract():
  resnet = network.define(lambda rngs: perceptual.ResNet50(rngs=rngs))
  return jax.eval_shape(resnet.init, jax.random.key(0))


@pytest.fixture(scope="module")
def tensors(abstract):
  leaves, _ = jax.tree_util.tree_flatten_with_path(abstract)
  rng = np.random.default_rng(0)
  return {
    ".".join(str(k.key) for k in path): rng.random(leaf.shape, np.float32)
    for path, leaf in leaves
  }


def test_size_of_resnet50(abstract):
  """25,557,032 parameters (He et al.) and the statistics of its batch norms."""
  assert network.count(abstract) == 25_557_032 + 2 * 26_560


def test_weights_are_read_by_name(tensors, tmp_path):
  path = str(tmp_path / "resnet50.safetensors")
  safetensors.numpy.save_file(tensors, path)
  _, params = perceptual.load("resnet50", path)
  np.testing.assert_array_equal(
    params["stages"][3][0]["shortcut"]["kernel"],
    tensors["stages.3.0.shortcut.kernel"],
  )


def test_missing_extra_and_misshapen_tensors_are_named(
  tensors, abstract, tmp_path
):
  path = str(tmp_path / "weights.safetensors")

  def message(changed):
    safetensors.numpy.save_file(changed, path)
    with pytest.raises(ValueError) as error:
      perceptual.read_weights(path, abstract)
    return str(error.value)

  without = {k: v for k, v in tensors.items() if k != "head.bias"}
  assert "lacks tensor 'head.bias'" in message(without)
  extra = {**tensors, "fc.bias": np.zeros(3, np.float32)}
  assert "unknown tensor 'fc.bias'" in message(extra)
  wrong = {**tensors, "head.bias": np.zeros(3, np.float32)}
  assert "'head.bias' has shape (3,), expected (1000,)" in message(wrong)


def test_absent_weights_are_an_error_that_says_what_to_do(tmp_path):
  with pytest.raises(ValueError, match="perceptual_network=off"):
    perceptual.load("resnet50", "")
  with pytest.raises(ValueError, match="must be 'resnet50' or 'off'"):
    perceptual.load("vgg", "")
  path = tmp_path / "broken.safetensors"
  path.write_bytes(b"not a file of tensors")
  with pytest.raises(ValueError, match="is not a .safetensors file"):
    perceptual.load("resnet50", str(path))
