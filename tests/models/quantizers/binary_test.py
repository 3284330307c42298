"""Tests of LFQ, and of the properties that all of models/quantizers share."""

import itertools

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models import network
from models.quantizers import binary
from models.quantizers import bits as bits_lib
from models.quantizers import build as quantizer_build
from models.quantizers import entropy as entropy_lib


def _quantize(quantizer, z):
  """Runs as one program: compiled one by one, the operations take seconds."""
  return jax.jit(lambda z: quantizer(z))(z)


@pytest.mark.parametrize(
  "bits, commitment, entropy, total",
  [
    (8, 0.10211816, -0.43410715, -0.331989),
    (16, 0.1005669, -0.46808478, -0.3675179),
  ],
)
def test_golden_values_of_googles_code(bits, commitment, entropy, total):
  """Values and weights are those of google/praxis quantizer_test.py."""
  with jax.threefry_partitionable(False):  # the default when they were made
    z = jax.random.normal(jax.random.PRNGKey(123), (1, 3, 6, 6, bits))
  q = _quantize(binary.LookupFreeQuantizer(bits), z)
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


@pytest.mark.parametrize(
  "bits", [1, 2, 5, 8, pytest.param(12, marks=pytest.mark.rows)]
)
def test_entropies_and_gradients_equal_brute_force(bits):
  # A large temperature keeps the softmax soft, so that gradients are not 0.
  settings = dict(temperature=2.0, epsilon=1e-5)
  quantizer = binary.LookupFreeQuantizer(bits, **settings)
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
  q = _quantize(binary.LookupFreeQuantizer(10, 2.0), z)
  with_tiny = _quantize(binary.LookupFreeQuantizer(10, 2.0, 1e-20), z)
  np.testing.assert_allclose(
    q.codebook_entropy, with_tiny.batch_entropy, rtol=1e-6
  )


def test_uniform_use_of_all_codes_has_the_largest_entropy():
  codes = bits_lib.ids_to_codes(jnp.arange(2**10), 10)
  z = codes.reshape(1, 4, 16, 16, 10)
  q = _quantize(binary.LookupFreeQuantizer(10), z)
  # XLA's float32 log on CPU is good to about 1e-5.
  np.testing.assert_allclose(q.codebook_entropy, 10 * np.log(2), rtol=2e-5)
  np.testing.assert_allclose(q.sample_entropy, 0.0, atol=1e-6)


def test_eighteen_bits_saturate_only_the_entropy_with_epsilon():
  """Epsilon 1e-5 limits the entropy to 11.19 nats; without it it is 12.48."""
  z = jnp.zeros((1, 1, 2, 2, 18))  # every bit undecided: uniform
  q = _quantize(binary.LookupFreeQuantizer(18), z)
  np.testing.assert_allclose(q.codebook_entropy, 12.48, atol=0.01)
  np.testing.assert_allclose(q.batch_entropy, 11.19, atol=0.01)


def test_entropies_are_finite_for_latents_of_any_size():
  z = jnp.array([0.0, 1e-6, 1.0, 1e3, -1e6, 3e30]).reshape(1, 1, 1, 1, 6)

  def loss(z):
    q = binary.LookupFreeQuantizer(6)(z)
    return q.sample_entropy - q.batch_entropy

  value, gradient = jax.jit(jax.value_and_grad(loss))(z)
  assert np.isfinite(value) and np.isfinite(gradient).all()


def test_channel_0_is_the_least_significant_bit():
  z = jnp.array([[3.0, -1.0, -2.0], [-1.0, -1.0, 0.5], [0.0, 0.1, -0.0]])
  q = _quantize(binary.LookupFreeQuantizer(3), z.reshape(1, 3, 1, 1, 3))
  # Zero counts as positive, of either sign: 1, 4, and 1 + 2 + 4.
  np.testing.assert_array_equal(q.ids.ravel(), [1, 4, 7])
  assert q.ids.dtype == jnp.int32


def test_commitment_is_a_mean_over_all_elements_and_moves_only_the_input():
  z = jnp.array([0.5, -2.0]).reshape(1, 1, 1, 1, 2)
  quantizer = binary.LookupFreeQuantizer(2)
  commitment = jax.jit(jax.value_and_grad(lambda z: quantizer(z).commitment))
  value, gradient = commitment(z)
  np.testing.assert_allclose(value, (0.25 + 1.0) / 2)
  np.testing.assert_allclose(gradient.ravel(), [-0.5, -1.0])


def test_factors_split_low_bits_first_and_join_again():
  ids = jnp.array([0, 1, 512, 2**18 - 1])
  parts = bits_lib.factorize(ids, (9, 9))
  np.testing.assert_array_equal(parts, [[0, 0], [1, 0], [0, 1], [511, 511]])
  for factor_bits in ((9, 9), (6, 12), (5, 6, 7)):
    ids = jax.random.randint(jax.random.key(0), (50,), 0, 2**18)
    parts = bits_lib.factorize(ids, factor_bits)
    joined = bits_lib.defactorize(parts, factor_bits)
    np.testing.assert_array_equal(joined, ids)


@pytest.mark.parametrize(
  "bits, groups", [(1, 1), (18, 1), (19, 3), (24, 3), (25, 4), (31, 4)]
)
def test_entropy_is_exact_up_to_18_bits_and_of_groups_of_8_above(bits, groups):
  assert binary.LookupFreeQuantizer(bits).entropy_groups == groups


def test_more_than_18_bits_train_on_grouped_entropies():
  z = jax.random.normal(jax.random.key(0), (1, 2, 3, 1, 20))
  quantizer = binary.LookupFreeQuantizer(20, 2.0, entropy_groups=4)

  @jax.jit
  def both(z):
    logits_NK = 2.0 * z.reshape(6, 20)  # 4 z / temperature
    return quantizer(z), entropy_lib.bit_entropies(logits_NK, 4, 1e-5)

  q, grouped = both(z)
  np.testing.assert_allclose(q.sample_entropy, grouped.sample, rtol=1e-5)
  np.testing.assert_allclose(q.batch_entropy, grouped.batch, rtol=1e-5)
  np.testing.assert_allclose(q.codebook_entropy, grouped.codebook, rtol=1e-5)


def test_factors_are_the_token_groups_of_praxis():
  """praxis documents that bits 0, 1, 0, 1, 0 in groups of 3 are [2, 1]."""
  codes = jnp.array([-1.0, 1.0, -1.0, 1.0, -1.0])
  ids = bits_lib.codes_to_ids(codes)
  np.testing.assert_array_equal(bits_lib.factorize(ids, (3, 2)), [2, 1])
  # num_token_groups = 2 of 18 bits: weights restart at channel 9.
  codes = -jnp.ones(18).at[jnp.array([1, 9, 17])].set(-1.0)
  ids = bits_lib.codes_to_ids(codes)
  np.testing.assert_array_equal(bits_lib.factorize(ids, (9, 9)), [2, 257])


# Settings small enough to go through all codes.
SETTINGS = dict(
  bits=5,
  entropy_temperature=0.5,
  entropy_groups=0,
  codebook_size=24,
  embedding_dim=6,
  normalize=False,
  levels=(4, 3, 2),
)
CHANNELS = {"lfq": 5, "bsq": 5, "vq": 6, "fsq": 3, "none": 6}
CODES = {"lfq": 32, "bsq": 32, "vq": 24, "fsq": 24, "none": 0}


def _build(name, **settings):
  return quantizer_build.build(name, **SETTINGS | settings, rngs=nnx.Rngs(0))


def _last_of_5(values):
  """One value of each channel, against arrays (B, t, h, w, K)."""
  return jnp.array(values)[None, None, None, None]


def _latents(name, scale=1.0):
  shape = (2, 3, 2, 2, CHANNELS[name])
  return scale * jax.random.normal(jax.random.key(1), shape)


each_quantizer = pytest.mark.parametrize("name", ["lfq", "bsq", "vq", "fsq"])
also_none = pytest.mark.parametrize("name", list(CODES))


@also_none
def test_sizes_are_known_before_running(name):
  quantizer = _build(name)
  assert quantizer.latent_channels == CHANNELS[name]
  assert quantizer.vocabulary == CODES[name]
  assert type(quantizer.vocabulary) is int


@each_quantizer
def test_ids_to_codes_to_ids_is_the_identity_for_every_code(name):
  quantizer = _build(name)
  ids = jnp.arange(CODES[name]).reshape(2, 1, 2, -1)
  codes, again = jax.jit(
    lambda ids: (quantizer.codes(ids), quantizer.ids(quantizer.codes(ids)))
  )(ids)
  assert codes.shape == (*ids.shape, CHANNELS[name])
  assert codes.dtype == jnp.float32
  assert len(np.unique(codes.reshape(-1, CHANNELS[name]), axis=0)) == ids.size
  np.testing.assert_array_equal(again, ids)
  assert again.dtype == jnp.int32


@pytest.mark.parametrize(
  "name, settings",
  [
    ("lfq", dict(bits=18)),
    ("lfq", dict(bits=31)),
    ("bsq", dict(bits=31)),
    ("vq", dict(codebook_size=1024, embedding_dim=16)),
    ("vq", dict(codebook_size=1024, embedding_dim=16, normalize=True)),
    ("fsq", dict(levels=(8, 8, 8, 5, 5, 5))),
    ("fsq", dict(levels=(2,) * 31)),
  ],
)
def test_ids_to_codes_to_ids_is_the_identity_in_large_vocabularies(
  name, settings
):
  quantizer = _build(name, **settings)
  last = quantizer.vocabulary - 1
  ids = jax.random.randint(jax.random.key(0), (2, 3, 4, 4), 0, last)
  ids = ids.at[0, 0, 0, 0].set(last)
  again = jax.jit(lambda ids: quantizer.ids(quantizer.codes(ids)))(ids)
  np.testing.assert_array_equal(again, ids)


@pytest.mark.parametrize("name", ["lfq", "bsq", "vq"])
def test_quantizing_codes_changes_nothing(name):
  """FSQ is left out: it bounds latents, so only `ids` inverts its codes."""
  quantizer = _build(name)
  ids = jnp.arange(CODES[name]).reshape(2, 1, 2, -1)
  q = _quantize(quantizer, quantizer.codes(ids))
  np.testing.assert_array_equal(q.ids, ids)
  np.testing.assert_allclose(q.commitment, 0.0, atol=1e-12)


@each_quantizer
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e6])
def test_the_decoder_sees_exactly_the_codes_of_the_ids(name, scale):
  """`z` trains the decoder and `codes(ids)` feeds it afterwards."""
  quantizer = _build(name)
  q = _quantize(quantizer, _latents(name, scale))
  np.testing.assert_array_equal(q.z, jax.jit(quantizer.codes)(q.ids))
  assert q.ids.dtype == jnp.int32


@also_none
def test_bfloat16_latents_are_quantized_in_float32(name):
  quantizer = _build(name)
  z = _latents(name).astype(jnp.bfloat16)
  low, full = _quantize(quantizer, z), _quantize(quantizer, z.astype("float32"))
  assert low.z.dtype == jnp.bfloat16
  np.testing.assert_array_equal(low.z, full.z.astype(jnp.bfloat16))
  np.testing.assert_array_equal(low.ids, full.ids)
  losses = lambda q: jax.tree.leaves(q.replace(z=None, ids=None))
  for got, wanted in zip(losses(low), losses(full), strict=True):
    assert got.dtype == jnp.float32 and got.shape == ()
    np.testing.assert_allclose(got, wanted, rtol=1e-6)


@also_none
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e6])
def test_gradients_are_finite_for_latents_of_any_size(name, scale):
  quantizer = network.define(
    lambda rngs: quantizer_build.build(name, **SETTINGS, rngs=rngs)
  )

  def loss(params, z):
    q = quantizer(params, z)
    # The sum is over all fields, also those that are only reported.
    return sum(field.sum() for field in jax.tree.leaves(q.replace(ids=None)))

  params = quantizer.init(jax.random.key(0))
  gradients = jax.jit(jax.grad(loss, (0, 1)))(params, _latents(name, scale))
  for gradient in jax.tree.leaves(gradients):
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize(
  "name, before_rounding",
  [
    ("lfq", lambda z: z),
    ("vq", lambda z: z),
    ("none", lambda z: z),
    ("bsq", lambda z: z / jnp.linalg.norm(z, axis=-1, keepdims=True)),
    # Levels (4, 3, 2) have half ranges 1.5, 1 and 0.5, less 0.1 %, and half
    # widths 2, 1 and 1.
    (
      "fsq",
      lambda z: (
        0.999
        * jnp.tanh(z + jnp.tan(_last_of_5([1 / 2.997, 0.0, 1 / 0.999])))
        * _last_of_5([1.5 / 2, 1.0, 0.5])
      ),
    ),
  ],
)
def test_the_gradient_passes_straight_through_the_rounding(
  name, before_rounding
):
  quantizer = _build(name)
  z = _latents(name)
  weights = jax.random.normal(jax.random.key(2), z.shape)
  gradient = lambda fn: jax.jit(jax.grad(lambda z: (weights * fn(z)).sum()))(z)
  np.testing.assert_allclose(
    gradient(lambda z: quantizer(z).z), gradient(before_rounding), atol=1e-6
  )


@pytest.mark.parametrize(
  "name, settings, message",
  [
    ("rvq", {}, "quantizer.name='rvq' must be one of lfq, bsq, vq, fsq"),
    ("lfq", dict(bits=0), "quantizer.bits=0 must be in 1..31"),
    ("bsq", dict(bits=32), "quantizer.bits=32 must be in 1..31"),
    (
      "lfq",
      dict(bits=20, entropy_groups=1),
      "entropy_groups=1 must be in 2..20",
    ),
    ("lfq", dict(entropy_groups=6), "entropy_groups=6 must be in 1..5"),
    ("bsq", dict(entropy_groups=-1), "entropy_groups=-1 must be in 1..5"),
    ("lfq", dict(entropy_temperature=0.0), "entropy_temperature=0.0 must be"),
    ("vq", dict(entropy_temperature=-1.0), "entropy_temperature=-1.0 must be"),
    ("vq", dict(codebook_size=1), "quantizer.codebook_size=1 must be at least"),
    ("vq", dict(embedding_dim=0), "quantizer.embedding_dim=0 must be at least"),
    ("none", dict(embedding_dim=0), "quantizer.embedding_dim=0 must be at"),
    ("fsq", dict(levels=(8, 1)), r"quantizer.levels=\(8, 1\) .*\(8, 5, 5, 5\)"),
    (
      "fsq",
      dict(levels=(8, 5.0)),
      r"quantizer.levels=\(8, 5.0\) .*\(8, 5, 5, 5\)",
    ),
    ("fsq", dict(levels=()), r"quantizer.levels=\(\) .*\(8, 5, 5, 5\)"),
    (
      "fsq",
      dict(levels=(2,) * 32),
      r"quantizer.levels=\(2, .*2\^31 .*4294967296",
    ),
  ],
)
def test_settings_out_of_range_are_refused(name, settings, message):
  with pytest.raises(ValueError, match=message):
    _build(name, **settings)
