"""Tests of models/tokenizer/layers.py: brute force on tiny sizes."""

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.tokenizer import layers

_TWO_GROUPS = layers.Convention(norm_groups=2)


def _random(seed, *shape):
  return jax.random.normal(jax.random.key(seed), shape)


def _brute_force_causal_conv(x, kernel, strides):
  """Computes the definition, loop by loop, in float64."""
  x, kernel = np.asarray(x, np.float64), np.asarray(kernel, np.float64)
  kt, kh, kw = kernel.shape[:3]
  pad = [(0, 0), (kt - 1, 0)]
  pad += [((k - 1) // 2, k // 2) for k in (kh, kw)] + [(0, 0)]
  x = np.pad(x, pad, mode="edge")
  sizes = [
    (n - k) // s + 1
    for n, k, s in zip(x.shape[1:4], (kt, kh, kw), strides, strict=True)
  ]
  y = np.zeros((x.shape[0], *sizes, kernel.shape[-1]))
  for t, i, j in np.ndindex(*sizes):
    a, b, c = t * strides[0], i * strides[1], j * strides[2]
    y[:, t, i, j] = np.einsum(
      "bthwi,thwio->bo", x[:, a : a + kt, b : b + kh, c : c + kw], kernel
    )
  return y


@pytest.mark.parametrize(
  "kernel_size, strides",
  [
    ((3, 3, 3), (1, 1, 1)),
    ((4, 4, 4), (2, 2, 2)),
    ((4, 4, 4), (1, 2, 2)),
    ((1, 4, 4), (1, 2, 2)),
    ((1, 1, 1), (1, 1, 1)),
  ],
)
def test_causal_conv_is_its_definition(kernel_size, strides):
  x, kernel = _random(0, 2, 5, 6, 6, 3), _random(1, *kernel_size, 3, 4)
  y = layers.conv(x, kernel, strides)
  # The outputs are float32 sums of up to 192 products of size 1.
  np.testing.assert_allclose(
    y, _brute_force_causal_conv(x, kernel, strides), atol=1e-4
  )


def test_zero_padding_on_both_sides_in_time_is_that_of_xla():
  """MAGVIT v1's convolution; for odd kernels XLA's SAME is the same."""
  x, kernel = _random(0, 2, 5, 6, 6, 3), _random(1, 3, 3, 3, 3, 4)
  convention = layers.Convention(causal=False, padding="zero")
  expected = jax.lax.conv_general_dilated(
    x,
    kernel,
    (1, 1, 1),
    "SAME",
    dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
  )
  y = layers.conv(x, kernel, (1, 1, 1), convention)
  np.testing.assert_allclose(y, expected, atol=1e-4)  # sums of 81 products


@pytest.mark.parametrize("frames, latents", [(1, 1), (5, 3), (9, 5), (17, 9)])
def test_a_temporal_stride_of_two_takes_1_plus_2n_frames_to_1_plus_n(
  frames, latents
):
  x, kernel = jnp.ones((1, frames, 4, 4, 1)), jnp.ones((4, 4, 4, 1, 1))
  y = layers.conv(x, kernel, (2, 2, 2))
  assert y.shape == (1, latents, 2, 2, 1)


def test_a_still_clip_has_a_constant_response():
  still = jnp.repeat(_random(0, 1, 1, 6, 6, 2), 5, axis=1)
  y = layers.conv(still, _random(1, 3, 3, 3, 2, 2), (1, 1, 1))
  np.testing.assert_array_equal(y, jnp.repeat(y[:, :1], 5, axis=1))


def test_normalization_is_per_frame_and_group():
  x = 3.0 + 2.0 * _random(0, 2, 3, 8, 8, 4)
  y = layers.normalize(x, 2).reshape(2, 3, 8, 8, 2, 2)
  np.testing.assert_allclose(y.mean((2, 3, 5)), 0.0, atol=1e-5)
  np.testing.assert_allclose(y.var((2, 3, 5)), 1.0, atol=1e-4)
  changed = layers.normalize(x.at[:, 1].set(100.0), 2)
  kept = changed.reshape(y.shape)[:, ::2]
  np.testing.assert_array_equal(kept, y[:, ::2])


def test_adaptive_norm_scales_and_shifts_each_position_by_its_latent():
  norm = layers.AdaptiveGroupNorm(
    4, 3, "position", _TWO_GROUPS, rngs=nnx.Rngs(0)
  )
  x, z = _random(0, 1, 2, 4, 4, 4), _random(1, 1, 2, 4, 4, 3)
  linear = lambda layer: (
    z @ layer.kernel[...] + layer.bias[None, None, None, None]
  )
  scale, bias = linear(norm.scale), linear(norm.bias)
  expected = layers.normalize(x, 2) * (1.0 + scale) + bias
  np.testing.assert_allclose(norm(x, z), expected, rtol=1e-5, atol=1e-5)


def test_statistics_over_the_clip_are_those_of_all_its_frames():
  x = 3.0 + 2.0 * _random(0, 2, 3, 8, 8, 4)
  y = layers.normalize(x, 2, "clip").reshape(2, 3 * 64, 2, 2)
  np.testing.assert_allclose(y.mean((1, 3)), 0.0, atol=1e-5)
  np.testing.assert_allclose(y.std((1, 3)), 1.0, atol=1e-4)


def test_global_adaptive_norm_reads_the_moments_of_the_latent():
  """Open-MAGVIT2: any order of the positions gives the same output."""
  convention = layers.Convention(norm_groups=2, norm_statistics="clip")
  norm = layers.AdaptiveGroupNorm(4, 3, "global", convention, rngs=nnx.Rngs(0))
  x, z = _random(0, 1, 2, 4, 4, 4), _random(1, 1, 2, 2, 2, 3)
  std = np.asarray(z).reshape(8, 3).std(0, ddof=1)
  scale = std @ norm.scale.kernel[...] + norm.scale.bias[...]
  mean = np.asarray(z).reshape(8, 3).mean(0)
  bias = mean @ norm.bias.kernel[...] + norm.bias.bias[...]
  scale, bias = (v[None, None, None, None] for v in (scale, bias))
  expected = layers.normalize(x, 2, "clip") * (1.0 + scale) + bias
  np.testing.assert_allclose(norm(x, z), expected, rtol=1e-5, atol=1e-5)


def test_the_shortcut_acts_on_the_input_of_a_block():
  block = layers.ResidualBlock(2, 4, _TWO_GROUPS, rngs=nnx.Rngs(0))
  block.conv2.kernel[...] = jnp.zeros_like(block.conv2.kernel[...])
  x = _random(0, 1, 2, 4, 4, 2)
  expected = jnp.einsum(
    "bthwi,io->bthwo", x, block.shortcut.kernel[...][0, 0, 0]
  )
  np.testing.assert_allclose(block(x), expected, rtol=1e-5, atol=1e-6)


def test_depth_to_space_has_time_slowest_and_channels_fastest():
  x = jnp.arange(16.0).reshape(1, 1, 1, 1, 16)  # (ft, fh, fw, C') = 2, 2, 2, 2
  y = layers.depth_to_space(x, (2, 2, 2))
  assert y.shape == (1, 2, 2, 2, 2)
  np.testing.assert_array_equal(y[0, 0, 0, 0], [0, 1])
  np.testing.assert_array_equal(y[0, 0, 0, 1], [2, 3])
  np.testing.assert_array_equal(y[0, 0, 1, 0], [4, 5])
  np.testing.assert_array_equal(y[0, 1, 0, 0], [8, 9])


def test_enlarging_time_keeps_the_second_half_of_the_first_latent():
  x = jnp.arange(3.0).reshape(1, 3, 1, 1, 1)
  y = layers.drop_frames(layers.repeat(x, (2, 1, 1)), 2, "last")
  np.testing.assert_array_equal(y[0, :, 0, 0, 0], [0, 1, 1, 2, 2])


def test_the_other_first_frame_rule_keeps_the_first_half():
  x = jnp.arange(6.0).reshape(1, 6, 1, 1, 1)
  y = layers.drop_frames(x, 2, "first")
  np.testing.assert_array_equal(y[0, :, 0, 0, 0], [0, 2, 3, 4, 5])


def test_average_pool_is_the_mean_of_blocks():
  x = jnp.arange(16.0).reshape(1, 2, 2, 4, 1)
  y = layers.average_pool(x, (2, 2, 2))
  # The blocks are 0 1 4 5 and 8 9 12 13; 2 3 6 7 and 10 11 14 15.
  np.testing.assert_array_equal(y[0, 0, 0, :, 0], [6.5, 8.5])


def test_mean_pool_averages_the_points_it_has():
  x = jnp.arange(3.0).reshape(1, 3, 1, 1, 1)
  np.testing.assert_array_equal(layers.mean_pool(x)[0, :, 0, 0, 0], [0.5, 2.0])
  assert layers.mean_pool(jnp.ones((1, 1, 4, 4, 1))).shape == (1, 1, 2, 2, 1)


def _brute_force_blur(x, axis):
  n = x.shape[axis]
  out = -(-n // 2)
  total = max((out - 1) * 2 + 3 - n, 0)
  pad = [(0, 0)] * x.ndim
  pad[axis] = (total // 2, total - total // 2)
  x = np.pad(x, pad)
  take = lambda i: np.take(x, i, axis=axis)
  rows = [
    take(2 * i) / 4 + take(2 * i + 1) / 2 + take(2 * i + 2) / 4
    for i in range(out)
  ]
  return np.stack(rows, axis=axis)


def test_blur_pool_is_separable_121_with_zero_same_padding():
  x = np.asarray(_random(0, 2, 5, 6, 7, 2))
  expected = x
  for axis in (1, 2, 3):
    expected = _brute_force_blur(expected, axis)
  np.testing.assert_allclose(layers.blur_pool(x), expected, atol=1e-6)


def test_blur_pool_takes_17_frames_to_1_and_leaves_one_frame_alone():
  x, lengths = jnp.ones((1, 17, 32, 32, 1)), []
  for _ in range(5):
    x = layers.blur_pool(x)
    lengths.append(x.shape[1])
  assert lengths == [9, 5, 3, 2, 1]
  assert layers.blur_pool(jnp.ones((1, 1, 4, 4, 1))).shape == (1, 1, 2, 2, 1)


def test_groups_that_do_not_divide_the_width_are_refused():
  with pytest.raises(ValueError, match="norm_groups=3 .* 4 .*base_channels"):
    convention = layers.Convention(norm_groups=3)
    layers.GroupNorm(4, convention, rngs=nnx.Rngs(0))
