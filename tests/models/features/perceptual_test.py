"""Tests of perceptual.py, resnet.py and lpips.py in models/features."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from models import network
from models.features import perceptual
from models.weights import convert
from tests.models.features import perceptual_reference as reference

# The error of float32 against the recorded float64, through some 50 layers,
# measured 1e-6 to 5e-6; a wrong epsilon or resize makes 1e-3.
_RTOL = 1e-4


def _relative_error(got, expected):
  expected = np.asarray(expected)
  return np.abs(np.asarray(got) - expected).max() / np.abs(expected).max()


@pytest.fixture(scope="module")
def resnet50(tmp_path_factory):
  """(distance, params), converted from .npz."""
  folder = tmp_path_factory.mktemp("resnet50")
  np.savez(folder / "source.npz", **reference.resnet50())
  path = str(folder / "resnet50.safetensors")
  convert.convert("resnet50", str(folder / "source.npz"), path)
  loaded = perceptual.load("resnet50", path)
  for file in folder.iterdir():
    file.unlink()  # 100 MB each
  return loaded


@pytest.fixture(scope="module")
def lpips_vgg(tmp_path_factory):
  """(distance, params), converted from two .safetensors files."""
  folder = tmp_path_factory.mktemp("lpips_vgg")
  trunk, heads = folder / "vgg16.safetensors", folder / "lin.safetensors"
  safetensors.numpy.save_file(reference.vgg16_features(), trunk)
  safetensors.numpy.save_file(reference.lpips_heads(), heads)
  path = str(folder / "lpips_vgg.safetensors")
  convert.convert("lpips_vgg", str(trunk), path, str(heads))
  loaded = perceptual.load("lpips_vgg", path)
  for file in folder.iterdir():
    file.unlink()
  return loaded


def test_sizes_of_the_networks():
  """Counts are the published ones plus the statistics of batch norms."""
  _, resnet = perceptual.define("resnet50")
  assert network.count(resnet) == 25_557_032 + 2 * 26_560
  _, lpips = perceptual.define("lpips_vgg")
  assert network.count(lpips) == 14_714_688 + 1_472


def test_resnet50_computes_what_torchvision_does(resnet50):
  distance, params = resnet50
  net, _ = perceptual.define("resnet50")
  frames = reference.resnet50_frames()

  @jax.jit
  def logits_and_distance(params, target, output):
    logits = [net(params, target)[0], net(params, output)[0]]
    return jnp.stack(logits), distance(params, target, output)

  logits, got = logits_and_distance(params, *frames)
  assert logits.shape == (2, 1000)
  assert _relative_error(logits[:, :6], reference.RESNET50_LOGITS) < _RTOL
  assert got.shape == (1,)
  assert _relative_error(got, reference.RESNET50_DISTANCE) < _RTOL


@pytest.fixture(scope="module")
def compiled_lpips(lpips_vgg):
  distance, params = lpips_vgg
  return functools.partial(jax.jit(distance), params)


def test_lpips_is_the_packages(compiled_lpips):
  value = compiled_lpips(*reference.lpips_frames())
  assert value.shape == (2,)
  assert _relative_error(value[0], reference.LPIPS_DISTANCES[0]) < _RTOL
  assert _relative_error(value[1], reference.LPIPS_DISTANCES[1]) < _RTOL


def test_lpips_of_equal_images_is_zero(compiled_lpips):
  """Squared rounding remains: XLA may fuse the two sides differently."""
  target, _ = reference.lpips_frames()
  assert (compiled_lpips(target, target) < 1e-11).all()


@pytest.fixture(scope="module")
def lpips_gradient(lpips_vgg):
  """Gradient of the summed distances by the output, in the arguments' dtype."""
  distance, _ = lpips_vgg
  return jax.jit(jax.grad(lambda *x: distance(*x).sum(), argnums=2))


def test_lpips_has_the_gradient_of_the_packages(lpips_vgg, lpips_gradient):
  """Computes in float64: float32 may change the sign of an activation."""
  _, params = lpips_vgg
  with jax.enable_x64(True):
    arguments = jax.tree.map(
      lambda x: jnp.asarray(x, jnp.float64),
      (params, *reference.small_frames()),
    )
    gradient = np.asarray(lpips_gradient(*arguments))
  norm = np.sqrt(np.square(gradient).sum())
  # The package's constants are float32.
  assert _relative_error(norm, reference.LPIPS_GRADIENT_NORM) < 1e-6
  assert _relative_error(gradient[0, 8, 8], reference.LPIPS_GRADIENT) < 1e-6


def test_lpips_has_a_gradient_where_squares_underflow(
  lpips_vgg, lpips_gradient
):
  """A plain norm of the channels would give nan: it has no slope at 0."""
  _, params = lpips_vgg
  faint = {  # every activation is 1e-30
    "heads": params["heads"],
    "stages": jax.tree_util.tree_map_with_path(
      lambda path, x: jnp.full_like(x, 1e-30 * (path[-1].key == "bias")),
      params["stages"],
    ),
  }
  gradient = lpips_gradient(faint, *reference.small_frames())
  np.testing.assert_array_equal(gradient, jnp.zeros_like(gradient))


def test_lpips_refuses_images_that_its_pools_would_empty(lpips_vgg):
  distance, params = lpips_vgg
  image = reference.frames(1, 16, 15, seed=0)
  with pytest.raises(ValueError, match=r"\(16, 15\) .*LPIPS.* 16 x 16"):
    distance(params, image, image)


@pytest.mark.parametrize(
  ("name", "files"),
  [
    ("resnet50", ("resnet50-0676ba61.pth",)),
    ("lpips_vgg", ("vgg16-397923af.pth", "lpips/weights/v0.1")),
  ],
)
def test_absent_weights_are_an_error_that_says_what_to_do(
  name, files, tmp_path
):
  for path in ("", str(tmp_path / "nothing.safetensors")):
    with pytest.raises(ValueError) as error:
      perceptual.load(name, path)
    message = str(error.value)
    assert f"loss.perceptual_weights={path!r}" in message
    assert f"python -m models.weights.convert --network={name}" in message
    assert "loss.perceptual_network=off" in message
    assert all(file in message for file in files)


def test_an_unknown_network_is_refused():
  with pytest.raises(ValueError, match="perceptual_network='vgg' .*'off'"):
    perceptual.load("vgg", "")
