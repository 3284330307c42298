"""Tests of evaluation/protocols/networks.py, with a network of one product.

The real networks are in tests/models/features/networks_test.py.
"""

import dataclasses

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evaluation.protocols import networks
from models.features import networks as feature_networks
from models.weights import readers
from models.weights import safetensors_file
from tests.models.features import networks_reference

_DIMS = {"pool3": 2048, "spatial": 2023, "logits": 1008}
_TRACES = []


class _Tiny(nnx.Module):
  """Each feature is the weighted mean of the pixels."""

  def __init__(self, *, rngs):
    del rngs
    self.weight = nnx.Param(jnp.zeros(3))

  def __call__(self, images_BHWC):
    _TRACES.append(images_BHWC.shape)
    mean_BC = images_BHWC.astype(jnp.float32).mean((1, 2))
    mean_B = (mean_BC * self.weight[None]).sum(-1)
    unused = {"logits_with_bias": jnp.zeros((len(mean_B), 1))}
    return unused | {
      k: jnp.broadcast_to(mean_B[:, None], (len(mean_B), dim))
      for k, dim in _DIMS.items()
    }

  def distance(self, target_BHWC, output_BHWC):
    return (target_BHWC - output_BHWC).mean((1, 2, 3)) * self.weight[0]

  def doubled(self, images_BHWC):
    return {k: 2 * x for k, x in self(images_BHWC).items()}


@pytest.fixture
def path(tmp_path, monkeypatch):
  """A file of weights for the tiny network, in Inception's place."""
  tiny = dataclasses.replace(
    feature_networks.NETWORKS["inception"],
    make=_Tiny,
    variants={"doubled": "twice the usual"},
  )
  monkeypatch.setitem(feature_networks.NETWORKS, "inception", tiny)
  feature_networks.define.cache_clear()
  file = str(tmp_path / "inception.safetensors")
  weight = np.array([1.0, 10.0, 100.0], np.float32)
  safetensors_file.save(file, "inception", {"weight": weight}, {})
  _TRACES.clear()
  yield file
  feature_networks.define.cache_clear()


def _expected(images):
  return images.mean((1, 2)) @ np.array([1.0, 10.0, 100.0])


def test_features_are_named_and_the_weights_are_on_record(path):
  extractor = networks.load("inception", path)
  assert extractor.name == "inception"
  assert extractor.dims == _DIMS
  assert extractor.weights_sha256 == readers.sha256(path)
  images = networks_reference.images()
  got = extractor(images)
  assert {k: x.shape for k, x in got.items()} == {
    k: (2, dim) for k, dim in _DIMS.items()
  }
  for x in got.values():
    assert x.dtype == np.float32
    np.testing.assert_allclose(x[:, -1], _expected(images), rtol=1e-5)


@pytest.mark.parametrize("num_devices", [1, 4])
def test_a_short_batch_is_padded_and_cropped_back(path, num_devices):
  """Any number of examples, on any number of devices, one compilation."""
  extractor = networks.load("inception", path, jax.devices()[:num_devices])
  images = networks_reference.pixels((11, 8, 8, 3), seed=4)
  for start, end in ((0, 6), (6, 9), (9, 10), (10, 11)):
    got = extractor(images[start:end])["pool3"]
    assert got.shape == (end - start, 2048)
    np.testing.assert_allclose(
      got[:, 0], _expected(images[start:end]), rtol=1e-5
    )
  assert len(_TRACES) == 1


def test_the_batch_is_divided_among_the_devices(path):
  extractor = networks.load("inception", path, jax.devices()[:4])
  text = extractor._compute.lower(
    extractor._params, jax.ShapeDtypeStruct((8, 6, 5, 3), jnp.uint8)
  )
  # Each of the 4 devices holds 2 of the 8 images.
  assert "u8[2,6,5,3]" in text.compile().as_text()


@pytest.mark.parametrize(
  ("batch", "message"),
  [
    (np.zeros((2, 8, 8, 3), np.float32), "uint8 in .0, 255., not float32"),
    (np.zeros((2, 8, 8, 4), np.uint8), r"batches \(B, H, W, 3\), got \(2, 8"),
    (np.zeros((8, 8, 3), np.uint8), r"batches \(B, H, W, 3\), got \(8, 8, 3"),
    (np.zeros((0, 8, 8, 3), np.uint8), r"got \(0, 8, 8, 3\)"),
  ],
)
def test_wrong_pixels_are_refused(path, batch, message):
  extractor = networks.load("inception", path)
  with pytest.raises(ValueError, match=message):
    extractor(batch)


@pytest.mark.parametrize(
  ("name", "file"),
  [
    ("inception", "weights-inception-2015-12-05-6726825d.pth"),
    ("i3d", "i3d_pretrained_400.pt"),
    ("c3d", "c3d_ucf101.flax"),
  ],
)
def test_absent_weights_are_an_error_that_says_what_to_do(name, file, tmp_path):
  for path in ("", str(tmp_path / "nothing.safetensors")):
    with pytest.raises(ValueError) as error:
      networks.load(name, path)
    message = str(error.value)
    assert repr(path) in message and file in message
    assert f"python -m models.weights.convert --network={name}" in message


def test_an_unknown_name_and_another_networks_weights_are_refused(path):
  with pytest.raises(ValueError, match="'vgg' .*'inception'"):
    networks.load("vgg", path)
  with pytest.raises(ValueError, match="'inception'.*'i3d'"):
    networks.load("i3d", path)


def test_a_variant_of_a_network_is_called_by_its_name(path):
  images = networks_reference.images()
  usual = networks.load("inception", path)(images)["pool3"]
  doubled = networks.load("inception", path, variant="doubled")(images)["pool3"]
  np.testing.assert_array_equal(doubled, 2 * usual)
  with pytest.raises(ValueError, match="variant='halved' .*'doubled'"):
    networks.load("inception", path, variant="halved")


def test_weights_that_give_no_numbers_are_refused(path):
  weight = np.full(3, 3e38, np.float32)  # its products overflow
  path = path.replace("inception", "broken")
  safetensors_file.save(path, "inception", {"weight": weight}, {})
  with pytest.raises(ValueError, match=r"inception's \w+\[0, 0\] is inf"):
    networks.load("inception", path)(networks_reference.images())


def test_distances_are_of_pixels_in_0_to_1_and_padded_like_features(path):
  network = networks.load("inception", path, jax.devices()[:2])
  images = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 3), np.uint8)
  distances = network.distance(images, images[::-1])
  expected = (images / 255.0 - images[::-1] / 255.0).mean((1, 2, 3))
  np.testing.assert_allclose(distances, expected, atol=1e-6)
  for other in (images[:2], images / 255.0):
    with pytest.raises(ValueError, match="compares uint8 images of one shape"):
      network.distance(images, other)
