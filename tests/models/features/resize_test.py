"""Tests of models/features/resize.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.features import resize
from tests.models.features import networks_reference

_ALL = [
  resize.tf1_bilinear,
  resize.half_pixel_bilinear,
  resize.corner_aligned_bilinear,
]
_TOLERANCE = 1e-6  # a few float32 roundings of values below 1


@pytest.mark.parametrize("name", networks_reference.RESIZES)
def test_tf1_bilinear_is_tensorflows(name):
  _, size = networks_reference.RESIZES[name]
  got = resize.tf1_bilinear(networks_reference.grid(name), *size)
  expected = networks_reference.load()[f"resize_{name}"]
  np.testing.assert_allclose(got, expected, atol=_TOLERANCE)


def test_tf1_bilinear_samples_without_half_a_pixel():
  """Twice the width takes each pixel and its mean with the next, or itself."""
  x = jnp.array([[0.0, 10.0, 40.0]])[..., None]
  got = resize.tf1_bilinear(x, 1, 6)[0, :, 0]
  np.testing.assert_allclose(got, [0, 5, 10, 25, 40, 40], atol=1e-5)
  got = resize.tf1_bilinear(x, 1, 1)[0, :, 0]  # no average when it shrinks
  np.testing.assert_array_equal(got, [0])


def test_half_pixel_bilinear_samples_at_the_centres_of_pixels():
  """Outside the centres of the first and the last pixel these go on."""
  x = jnp.array([[0.0, 10.0, 40.0]])[..., None]
  got = resize.half_pixel_bilinear(x, 1, 6)[0, :, 0]
  np.testing.assert_allclose(got, [0, 2.5, 7.5, 17.5, 32.5, 40], atol=1e-5)
  x = jnp.array([[0.0, 10.0, 40.0, 80.0, 80.0]])[..., None]
  got = resize.half_pixel_bilinear(x, 1, 2)[0, :, 0]  # at 0.75 and 3.25
  np.testing.assert_allclose(got, [7.5, 80], atol=1e-5)


@pytest.mark.parametrize("size", [(20, 31), (7, 3), (1, 1)])
def test_half_pixel_bilinear_is_jaxs_without_antialiasing(size):
  x = networks_reference.pixels((2, 11, 13, 3), seed=0).astype(np.float32)
  expected = jax.image.resize(x, (2, *size, 3), "bilinear", antialias=False)
  got = resize.half_pixel_bilinear(x, *size)
  np.testing.assert_allclose(got, expected, atol=255 * _TOLERANCE)


def test_corner_aligned_bilinear_keeps_the_corners():
  x = jnp.array([[0.0, 10.0, 40.0]])[..., None]
  got = resize.corner_aligned_bilinear(x, 1, 5)[0, :, 0]
  np.testing.assert_allclose(got, [0, 5, 10, 25, 40], atol=1e-5)
  got = resize.corner_aligned_bilinear(x, 1, 2)[0, :, 0]
  np.testing.assert_allclose(got, [0, 40], atol=1e-5)


@pytest.mark.parametrize("function", _ALL)
def test_the_same_size_changes_no_pixel(function):
  x = networks_reference.pixels((2, 3, 9, 5, 3), seed=0)
  got = function(x, 9, 5)
  assert got.dtype == jnp.float32
  np.testing.assert_array_equal(got, x)


@pytest.mark.parametrize("function", _ALL)
def test_frames_are_resized_as_images_are(function):
  video_BTHWC = networks_reference.pixels((2, 3, 9, 5, 3), seed=0)
  got = jax.jit(lambda x: function(x, 4, 11))(video_BTHWC)
  assert got.shape == (2, 3, 4, 11, 3)
  np.testing.assert_array_equal(got[1, 2], function(video_BTHWC[1, 2], 4, 11))
