"""Tests of models/quantizers.py, mostly against sums over all codes."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models import quantizers


@pytest.mark.parametrize(
  "bits, commitment, entropy, total",
  [
    (8, 0.10211816, -0.43410715, -0.331989),
    (16, 0.1005669, -0.46808478, -0.3675179),
  ],
)
def test_golden_values_of_googles_code(bits, commitment, entropy, total):
  """google/praxis quantizer_test.py, with its weights 0.25 and 0.1."""
  with jax.threefry_partitionable(False):  # the default when they were made
    z = jax.random.normal(jax.random.PRNGKey(123), (1, 3, 6, 6, bits))
  q = quantizers.LookupFreeQuantizer(bits)(z)
  got_entropy = 0.1 * (q.sample_entropy - q.batch_entropy)
  got_commitment = 0.25 * q.commitment
  np.testing.assert_allclose(got_commitment, commitment, atol=1e-5)
  np.testing.assert_allclose(got_entropy, entropy, atol=1e-5)
  np.testing.assert_allclose(got_commitment + got_entropy, total, atol=1e-5)


def _brute_force_entropies(z_NK, temperature, epsilon):
  """(sample, batch) entropy over all 2^K codes, as a plain softmax."""
  bits = z_NK.shape[-1]
  codes_VK = jnp.array(list(itertools.product([-1.0, 1.0], repeat=bits)))
  log_p_NV = jax.nn.log_softmax(2.0 * z_NK @ codes_VK.T / temperature)
  p_NV = jnp.exp(log_p_NV)
  sample = -(p_NV * log_p_NV).sum(-1).mean()
  mean_V = p_NV.mean(0)
  return sample, -(mean_V * jnp.log(mean_V + epsilon)).sum()


@pytest.mark.parametrize("bits", [1, 2, 5, 8, 12])
def test_entropies_and_gradients_equal_brute_force(bits):
  # A large temperature keeps the softmax soft, so that gradients are not 0.
  settings = dict(temperature=2.0, epsilon=1e-5)
  quantizer = quantizers.LookupFreeQuantizer(bits, **settings)
  z_NK = jax.random.normal(jax.random.key(0), (24, bits))

  @jax.jit
  def exact(z_NK):
    q = quantizer(z_NK.reshape(2, 3, 2, 2, bits))
    return jnp.stack([q.sample_entropy, q.batch_entropy])

  @jax.jit
  def brute(z_NK):
    return jnp.stack(_brute_force_entropies(z_NK, **settings))

  with jax.default_matmul_precision("highest"):
    np.testing.assert_allclose(exact(z_NK), brute(z_NK), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
      jax.jit(jax.jacrev(exact))(z_NK),
      jax.jit(jax.jacrev(brute))(z_NK),
      atol=1e-5,
    )


def test_codebook_entropy_is_the_batch_entropy_without_epsilon():
  z = jax.random.normal(jax.random.key(0), (2, 3, 2, 2, 10))
  q = quantizers.LookupFreeQuantizer(10, temperature=2.0)(z)
  with_tiny = quantizers.LookupFreeQuantizer(10, 2.0, epsilon=1e-20)(z)
  np.testing.assert_allclose(
    q.codebook_entropy, with_tiny.batch_entropy, rtol=1e-6
  )


def test_uniform_use_of_all_codes_has_the_largest_entropy():
  codes = quantizers.ids_to_codes(jnp.arange(2**10), 10)
  q = quantizers.LookupFreeQuantizer(10)(codes.reshape(1, 4, 16, 16, 10))
  # XLA's float32 log on CPU is good to about 1e-5.
  np.testing.assert_allclose(q.codebook_entropy, 10 * np.log(2), rtol=2e-5)
  np.testing.assert_allclose(q.sample_entropy, 0.0, atol=1e-6)


def test_eighteen_bits_saturate_only_the_entropy_with_epsilon():
  """spec: 11.19 nats with epsilon 1e-5 against 12.48 without."""
  p = 2.0**-18
  logits_NK = jnp.zeros((4, 18))  # every bit undecided: uniform
  mean = quantizers.mean_code_probabilities(logits_NK)
  np.testing.assert_allclose(mean, p, rtol=1e-5)
  q = quantizers.LookupFreeQuantizer(18)(jnp.zeros((1, 1, 2, 2, 18)))
  np.testing.assert_allclose(q.codebook_entropy, 12.48, atol=0.01)
  np.testing.assert_allclose(q.batch_entropy, 11.19, atol=0.01)


def test_entropies_are_finite_for_latents_of_any_size():
  z = jnp.array([0.0, 1e-6, 1.0, 1e3, -1e6, 3e30]).reshape(1, 1, 1, 1, 6)

  def loss(z):
    q = quantizers.LookupFreeQuantizer(6)(z)
    return q.sample_entropy - q.batch_entropy

  value, gradient = jax.value_and_grad(loss)(z)
  assert np.isfinite(value) and np.isfinite(gradient).all()


def test_channel_0_is_the_least_significant_bit():
  z = jnp.array([[3.0, -1.0, -2.0], [-1.0, -1.0, 0.5], [0.0, 0.1, -0.0]])
  q = quantizers.LookupFreeQuantizer(3)(z.reshape(1, 3, 1, 1, 3))
  # Zero counts as positive, of either sign: 1, 4, and 1 + 2 + 4.
  np.testing.assert_array_equal(q.ids.ravel(), [1, 4, 7])
  assert q.ids.dtype == jnp.int32


@pytest.mark.parametrize("bits", [1, 7, 18])
def test_ids_to_codes_to_ids_is_the_identity(bits):
  ids = jax.random.randint(jax.random.key(0), (2, 3, 4, 4), 0, 2**bits)
  quantizer = quantizers.LookupFreeQuantizer(bits)
  codes = quantizer.codes(ids)
  assert set(np.unique(codes)) <= {-1.0, 1.0}
  np.testing.assert_array_equal(quantizer(codes).ids, ids)
  np.testing.assert_array_equal(quantizer(codes).z, codes)


def test_the_gradient_passes_straight_through_the_signs():
  z = jax.random.normal(jax.random.key(0), (1, 2, 2, 2, 4))
  weights = jax.random.normal(jax.random.key(1), z.shape)
  quantizer = quantizers.LookupFreeQuantizer(4)
  gradient = jax.grad(lambda z: (weights * quantizer(z).z).sum())(z)
  np.testing.assert_array_equal(gradient, weights)


def test_commitment_is_a_mean_over_all_elements_and_moves_only_the_input():
  z = jnp.array([0.5, -2.0]).reshape(1, 1, 1, 1, 2)
  quantizer = quantizers.LookupFreeQuantizer(2)
  np.testing.assert_allclose(quantizer(z).commitment, (0.25 + 1.0) / 2)
  gradient = jax.grad(lambda z: quantizer(z).commitment)(z)
  np.testing.assert_allclose(gradient.ravel(), [-0.5, -1.0])


def test_factors_split_low_bits_first_and_join_again():
  ids = jnp.array([0, 1, 512, 2**18 - 1])
  parts = quantizers.factorize(ids, (9, 9))
  np.testing.assert_array_equal(parts, [[0, 0], [1, 0], [0, 1], [511, 511]])
  for factor_bits in ((9, 9), (6, 12), (5, 6, 7)):
    ids = jax.random.randint(jax.random.key(0), (50,), 0, 2**18)
    parts = quantizers.factorize(ids, factor_bits)
    joined = quantizers.defactorize(parts, factor_bits)
    np.testing.assert_array_equal(joined, ids)


@pytest.mark.parametrize("bits", [0, 19])
def test_bits_without_an_exact_entropy_are_refused(bits):
  with pytest.raises(ValueError, match=f"bits={bits} must be in 1..18"):
    quantizers.LookupFreeQuantizer(bits)
