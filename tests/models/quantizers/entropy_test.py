"""Tests of models/quantizers/entropy.py, by enumeration and in closed form."""

import collections
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.quantizers import bits as bits_lib
from models.quantizers import entropy as entropy_lib

LOG_2 = np.log(2.0)
# XLA's float32 log and sigmoid on CPU are good to about 1e-5.
RTOL = 2e-5


def _joint_entropy(p_NK, bits, epsilon):
  """Entropy of the mean over tokens, code by code; p_NK = p(bit is set)."""
  entropy = 0.0
  for pattern in itertools.product([0, 1], repeat=len(bits)):
    chosen_NK = np.where(pattern, p_NK[:, bits], 1 - p_NK[:, bits])
    p = chosen_NK.prod(-1).mean()
    entropy -= p * np.log(p + epsilon)
  return entropy


def test_grouped_entropies_equal_their_definition():
  bits, epsilon = 20, 1e-5
  logits_NK = jax.random.normal(jax.random.key(0), (5, bits))
  got = jax.jit(lambda x: entropy_lib.bit_entropies(x, 3, epsilon))(logits_NK)
  p_NK = 1 / (1 + np.exp(-np.asarray(logits_NK, np.float64)))
  neighbours = [[*range(6)], [*range(6, 13)], [*range(13, 20)]]
  every_third = [[*range(g, bits, 3)] for g in range(3)]

  groups = neighbours + every_third
  batch = np.mean([_joint_entropy(p_NK, group, epsilon) for group in groups])
  np.testing.assert_allclose(got.batch, batch, rtol=RTOL)

  sums = [
    sum(_joint_entropy(p_NK, group, 1e-300) for group in grouping)
    for grouping in (neighbours, every_third)
  ]
  np.testing.assert_allclose(got.codebook, min(sums), rtol=RTOL)

  bit_entropies_NK = -(p_NK * np.log(p_NK) + (1 - p_NK) * np.log(1 - p_NK))
  sample = bit_entropies_NK.sum(-1).mean()
  np.testing.assert_allclose(got.sample, sample, rtol=RTOL)


def test_one_group_is_exact():
  logits_NK = jax.random.normal(jax.random.key(0), (5, 7))
  got = jax.jit(lambda x: entropy_lib.bit_entropies(x, 1, 1e-5))(logits_NK)
  p_NK = 1 / (1 + np.exp(-np.asarray(logits_NK, np.float64)))
  exact = _joint_entropy(p_NK, [*range(7)], 1e-5)
  np.testing.assert_allclose(got.batch, exact, rtol=RTOL)
  exact = _joint_entropy(p_NK, [*range(7)], 1e-300)
  np.testing.assert_allclose(got.codebook, exact, rtol=RTOL)


def test_strided_groups_see_a_repeated_bit_that_neighbours_miss():
  patterns = [(a, b, a, c) for a, b, c in itertools.product([-1, 1], repeat=3)]
  logits_NK = 100.0 * jnp.array(patterns, jnp.float32)
  got = jax.jit(lambda x: entropy_lib.bit_entropies(x, 2, 1e-12))(logits_NK)
  # Neighbours (a, b) and (a, c) are uniform over 4; strided (a, a) only over 2
  # and (b, c) over 4.
  np.testing.assert_allclose(got.codebook, 3 * LOG_2, rtol=RTOL)
  np.testing.assert_allclose(got.batch, (2 + 2 + 1 + 2) / 4 * LOG_2, rtol=RTOL)


@pytest.mark.parametrize("bits, groups", [(20, 3), (31, 4), (19, 3), (5, 5)])
def test_groups_part_the_bits_into_sizes_that_differ_by_at_most_one(
  bits, groups
):
  for grouping in entropy_lib.bit_groupings(bits, groups):
    parts = [[*range(bits)][group] for group in grouping]
    assert len(parts) == groups
    assert sorted(sum(parts, [])) == [*range(bits)]
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1


def test_every_group_moves_its_bits():
  logits_NK = jax.random.normal(jax.random.key(0), (5, 9))
  batch = lambda x: entropy_lib.bit_entropies(x, 3, 1e-5).batch
  assert (jnp.abs(jax.jit(jax.grad(batch))(logits_NK)) > 0).all()


def test_softmax_entropies_equal_their_definition_and_stay_finite():
  logits_NV = 3.0 * jax.random.normal(jax.random.key(0), (6, 5))
  # One code far away from every token: its probability underflows to 0.
  logits_NV = logits_NV.at[:, 2].set(-1e5)
  got = jax.jit(lambda x: entropy_lib.softmax_entropies(x, 1e-5))(logits_NV)
  p_NV = np.exp(np.asarray(logits_NV, np.float64))
  p_NV = np.delete(p_NV / p_NV.sum(-1, keepdims=True), 2, axis=-1)
  sample = -(p_NV * np.log(p_NV)).sum(-1).mean()
  mean_V = p_NV.mean(0)
  np.testing.assert_allclose(got.sample, sample, rtol=RTOL)
  np.testing.assert_allclose(
    got.batch, -(mean_V * np.log(mean_V + 1e-5)).sum(), rtol=RTOL
  )
  np.testing.assert_allclose(
    got.codebook, -(mean_V * np.log(mean_V)).sum(), rtol=RTOL
  )
  total = lambda x: sum(entropy_lib.softmax_entropies(x, 1e-5))
  assert np.isfinite(jax.jit(jax.grad(total))(logits_NV)).all()


def test_entropy_of_ids_is_that_of_their_histogram():
  ids = jax.random.randint(jax.random.key(0), (4, 5, 5), 0, 30)
  counts = np.array([*collections.Counter(np.ravel(ids).tolist()).values()])
  p = counts / ids.size
  got = jax.jit(entropy_lib.histogram_entropy)(ids)
  np.testing.assert_allclose(got, -(p * np.log(p)).sum(), rtol=RTOL)


@pytest.mark.parametrize(
  "ids, entropy",
  [
    ([7], 0.0),
    ([5, 5, 5], 0.0),
    ([0, 2**31 - 1], LOG_2),
    ([3, 1, 3, 1], LOG_2),
  ],
)
def test_entropy_of_few_ids(ids, entropy):
  got = jax.jit(entropy_lib.histogram_entropy)(jnp.array(ids, jnp.int32))
  np.testing.assert_allclose(got, entropy, atol=1e-6)


def test_entropies_are_those_of_the_global_batch():
  mesh = jax.make_mesh((8,), ("data",), (jax.sharding.AxisType.Auto,))
  over_data = jax.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))

  @jax.jit
  def entropies(logits_NK, ids_N):
    grouped = entropy_lib.bit_entropies(logits_NK, 2, 1e-5)
    softmax = entropy_lib.softmax_entropies(logits_NK, 1e-5)
    return jnp.array([*grouped, *softmax, entropy_lib.histogram_entropy(ids_N)])

  logits_NK = jax.random.normal(jax.random.key(0), (16, 4))
  # Every device holds one id only, so that a local histogram would give 0.
  ids_N = jnp.repeat(jnp.arange(8), 2)
  here = entropies(logits_NK, ids_N)
  sharded = entropies(*jax.device_put((logits_NK, ids_N), over_data))
  np.testing.assert_allclose(sharded, here, rtol=RTOL)
  np.testing.assert_allclose(here[-1], 3 * LOG_2, rtol=RTOL)


def test_eighteen_undecided_bits_are_uniform():
  mean = jax.jit(entropy_lib.mean_code_probabilities)(jnp.zeros((4, 18)))
  np.testing.assert_allclose(mean, 2.0**-18, rtol=1e-5)


@pytest.mark.parametrize("bits", [1, 2, 9])
def test_code_distribution_is_in_the_order_of_ids(bits):
  def likeliest(id):
    logits_NK = 50.0 * bits_lib.ids_to_codes(id[None], bits)
    return entropy_lib.mean_code_probabilities(logits_NK).argmax()

  ids = jnp.arange(2**bits)
  np.testing.assert_array_equal(jax.jit(jax.vmap(likeliest))(ids), ids)
