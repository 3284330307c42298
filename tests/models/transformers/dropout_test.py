"""Tests of models/transformers/dropout.py."""

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.transformers import dropout as dropout_lib

_ROWS, _COLUMNS, _MASKS, _RATE = 300, 330, 8, 0.1


@pytest.fixture(scope="module")
def masks():
  """Dropped minus the share that is, of independent masks (8, 300, 330)."""
  seeds = dropout_lib.draw_seeds(jax.random.key(3), (_MASKS,))
  row = jnp.arange(_ROWS, dtype=jnp.int32)[:, None]
  column = jnp.arange(_COLUMNS, dtype=jnp.int32)[None]
  kept = dropout_lib.keep(seeds, row, column, _COLUMNS, _RATE)
  share = dropout_lib.threshold(_RATE) / 2**16
  return ~np.asarray(kept) - share


def _deviations(x):
  """Standard deviations of the mean of products from 0."""
  return x.mean() / (_RATE * (1 - _RATE)) * np.sqrt(x.size)


def test_the_share_dropped_is_the_rate(masks):
  """Chance alone exceeds five standard deviations once in a million."""
  spread = np.sqrt(_RATE * (1 - _RATE) / masks.size)
  assert np.abs(masks.mean()) < 5 * spread


@pytest.mark.parametrize(
  "lag",
  [
    *((0, 1), (0, 2), (0, 63), (0, 64), (0, 65), (0, 128)),
    *((1, 0), (2, 0), (64, 0), (128, 0), (1, 1), (3, 64)),
  ],
)
def test_elements_do_not_follow_one_another(masks, lag):
  """Column 64 places on has the other half of the same word."""
  down, right = lag
  there = masks[:, down:, right:]
  here = masks[:, : _ROWS - down, : _COLUMNS - right]
  assert np.abs(_deviations(here * there)) < 5


def test_masks_of_other_seeds_are_independent(masks):
  for i in range(_MASKS):
    for j in range(i):
      assert np.abs(_deviations(masks[i] * masks[j])) < 5


def test_masks_that_hash_the_same_positions_are_independent():
  """There are so many masks that some have nearly the same first word."""
  row = jnp.arange(_ROWS, dtype=jnp.int32)[:, None]
  column = jnp.arange(_COLUMNS, dtype=jnp.int32)[None]
  seeds = dropout_lib.draw_seeds(jax.random.key(8), (_MASKS,))
  seeds = seeds.at[:, 0].set(7)
  kept = dropout_lib.keep(seeds, row, column, _COLUMNS, _RATE)
  x = np.asarray(kept) - (1 - dropout_lib.threshold(_RATE) / 2**16)
  for i in range(_MASKS):
    for j in range(i):
      assert np.abs(_deviations(x[i] * x[j])) < 5


def test_only_seeds_that_are_not_drawn_have_masks_that_avoid_each_other():
  """What the docstring of `hash_words` says of neighbours."""
  row = jnp.arange(_ROWS, dtype=jnp.int32)[:, None]
  column = jnp.arange(_COLUMNS, dtype=jnp.int32)[None]
  near = jnp.array([[7, 5], [7, 5 - 2**31]], jnp.int32)
  one, other = ~np.asarray(dropout_lib.keep(near, row, column, _COLUMNS, _RATE))
  assert one.any() and other.any() and not (one & other).any()


def test_drawn_seeds_are_not_near():
  """24 layers in 40 steps: no two share positions and nearly a word."""
  keys = jax.vmap(lambda n: jax.random.fold_in(jax.random.key(0), n))
  drawn = jax.vmap(lambda key: dropout_lib.draw_seeds(key, (24,)))
  seeds = np.asarray(drawn(keys(jnp.arange(40)))).reshape(-1, 2)
  first, second = seeds.view(np.uint32).T
  distance = first[:, None] - first[None]  # around the circle of 2^32
  positions = _ROWS * dropout_lib.words_of_row(_COLUMNS)
  share = np.minimum(distance, -distance) < positions
  flipped = np.bitwise_count(second[:, None] ^ second[None])
  others = ~np.eye(len(seeds), dtype=bool)
  assert share[others].any()
  assert flipped[share & others].min() > 2


def test_rows_and_columns_spread_as_chance_has_it(masks):
  """Sums of independent elements: the variance is that of a binomial."""
  for axis, size in ((2, _COLUMNS), (1, _ROWS)):
    sums = masks.sum(axis).reshape(-1)
    ratio = sums.var() / (size * _RATE * (1 - _RATE))
    assert np.abs(ratio - 1) < 5 * np.sqrt(2 / sums.size)


def test_every_byte_of_the_words_is_uniform():
  position = jnp.arange(2**16, dtype=jnp.int32)
  words = dropout_lib.hash_words(jnp.int32(12), jnp.int32(34), position)
  for byte in np.asarray(words).view(np.uint8).reshape(-1, 4).T:
    counts = np.bincount(byte, minlength=256)
    # Chi-squared of 255 degrees of freedom: mean 255, deviation 22.6.
    assert ((counts - 256) ** 2 / 256).sum() < 255 + 5 * 22.6


def test_a_mask_is_the_same_in_any_block():
  seeds = dropout_lib.draw_seeds(jax.random.key(0), (2, 3))
  row = jnp.arange(40, dtype=jnp.int32)[:, None]
  column = jnp.arange(200, dtype=jnp.int32)[None]
  whole = dropout_lib.keep(seeds, row, column, 200, 0.3)
  part = dropout_lib.keep(seeds, row[17:29], column[:, 60:150], 200, 0.3)
  np.testing.assert_array_equal(part, whole[..., 17:29, 60:150])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_what_is_kept_is_scaled_and_so_is_its_gradient(dtype):
  x = jnp.full((4, 256, 256), 3.0, dtype)
  key = jax.random.key(5)
  y, pull = jax.vjp(lambda x: dropout_lib.dropout(x, 0.25, key), x)
  (gradient,) = pull(jnp.ones_like(y))
  np.testing.assert_array_equal(np.unique(y), [0.0, 4.0])
  np.testing.assert_array_equal(np.asarray(gradient) > 0, np.asarray(y) > 0)
  assert y.dtype == gradient.dtype == dtype
  spread = 3 * np.sqrt(0.25 / 0.75 / x.size)
  assert np.abs(np.asarray(y, np.float32).mean() - 3) < 5 * spread


def test_runs_of_before_draw_what_they_drew():
  x = jax.random.normal(jax.random.key(0), (4, 6, 5))
  key = jax.random.key(1)
  np.testing.assert_array_equal(
    dropout_lib.dropout(x, 0.3, key, "threefry"),
    nnx.Dropout(0.3, deterministic=False)(x, rngs=key),
  )


def test_nothing_is_dropped_without_a_key_or_a_rate():
  x = jnp.ones((2, 3))
  assert dropout_lib.dropout(x, 0.5, None) is x
  assert dropout_lib.dropout(x, 0.0, jax.random.key(0)) is x


def test_an_unknown_kind_of_bits_is_refused():
  with pytest.raises(ValueError, match="dropout_bits='rbg' must be one of"):
    dropout_lib.dropout(jnp.ones((2, 3)), 0.5, jax.random.key(0), "rbg")
