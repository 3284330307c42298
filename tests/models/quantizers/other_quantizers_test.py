"""Tests of VQ, FSQ and BSQ, each by its definition.

Tests of the properties that they share with LFQ are in binary_test.py.
"""

import itertools

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.quantizers import binary
from models.quantizers import finite_scalar
from models.quantizers import vector


def _vector_quantizer(codebook_VK, **settings):
  """Makes a VectorQuantizer with this codebook."""
  codebook_VK = jnp.asarray(codebook_VK, jnp.float32)
  quantizer = vector.VectorQuantizer(
    *codebook_VK.shape, **settings, rngs=nnx.Rngs(0)
  )
  quantizer.codebook[...] = codebook_VK
  return quantizer


def _quantize(quantizer, z):
  """Runs as one program: compiled one by one, the operations take seconds."""
  return jax.jit(lambda z: quantizer(z))(z)


def _unit(x):
  return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.mark.parametrize("normalize", [False, True])
def test_vq_equals_brute_force(normalize):
  rng = np.random.default_rng(0)
  # An offset makes nearest code and largest inner product different things.
  codebook_VK = rng.normal(1.0, 1.0, (12, 3))
  z_NK = rng.normal(1.0, 1.0, (20, 3))
  quantizer = _vector_quantizer(
    codebook_VK, temperature=0.7, normalize=normalize
  )
  z = jnp.asarray(z_NK, jnp.float32).reshape(1, 5, 2, 2, 3)
  q = _quantize(quantizer, z)

  if normalize:
    codebook_VK, z_NK = _unit(codebook_VK), _unit(z_NK)
  squares_NV = np.square(z_NK[:, None] - codebook_VK).sum(-1)
  ids_N = squares_NV.argmin(-1)
  np.testing.assert_array_equal(q.ids.ravel(), ids_N)
  np.testing.assert_allclose(
    q.z.reshape(20, 3), codebook_VK[ids_N], rtol=1e-6, atol=1e-7
  )
  error = squares_NV.min(-1).mean() / 3  # a mean over channels, too
  np.testing.assert_allclose(q.commitment, error, rtol=1e-5)
  np.testing.assert_allclose(q.codebook, error, rtol=1e-5)

  p_NV = np.exp(-squares_NV / 0.7)
  p_NV /= p_NV.sum(-1, keepdims=True)
  mean_V = p_NV.mean(0)
  sample = -(p_NV * np.log(p_NV)).sum(-1).mean()
  batch = -(mean_V * np.log(mean_V + 1e-5)).sum()
  codebook = -(mean_V * np.log(mean_V)).sum()
  np.testing.assert_allclose(q.sample_entropy, sample, rtol=1e-5)
  np.testing.assert_allclose(q.batch_entropy, batch, rtol=1e-5)
  np.testing.assert_allclose(q.codebook_entropy, codebook, rtol=1e-5)


def test_vq_losses_each_move_one_side():
  codebook_VK = jnp.array([[0.0, 0.0], [4.0, 4.0], [9.0, 9.0]])
  z = jnp.array([1.0, 0.0, 4.0, 6.0]).reshape(1, 2, 1, 1, 2)

  def gradients(field):
    def value(codebook_VK, z):
      quantizer = vector.VectorQuantizer(3, 2, rngs=nnx.Rngs(0))
      quantizer.codebook[...] = codebook_VK
      return getattr(quantizer(z), field).sum()

    by_codebook, by_z = jax.jit(jax.grad(value, (0, 1)))(codebook_VK, z)
    return by_codebook, by_z.reshape(2, 2)

  # d/dx mean((x - y)^2) over 4 elements = (x - y) / 2.
  by_codebook, by_z = gradients("commitment")
  np.testing.assert_allclose(by_codebook, 0.0)
  np.testing.assert_allclose(by_z, [[0.5, 0.0], [0.0, 1.0]])
  by_codebook, by_z = gradients("codebook")
  np.testing.assert_allclose(by_codebook, [[-0.5, 0], [0, -1.0], [0, 0]])
  np.testing.assert_allclose(by_z, 0.0)
  by_codebook, by_z = gradients("z")
  np.testing.assert_allclose(by_codebook, 0.0)
  np.testing.assert_allclose(by_z, 1.0)


def test_vq_distances_keep_their_digits_far_from_the_origin():
  """Subtracting |z|^2, here 2e6, would round the distances to 1/8."""
  codebook_VK = jnp.array([[0.0, 0.0, 0.0], [0.01, 0.0, 0.0]])
  z = jnp.array([[0.004, 1e3, 1e3], [0.006, 1e3, 1e3]])
  q = _quantize(_vector_quantizer(codebook_VK), z.reshape(1, 2, 1, 1, 3))
  np.testing.assert_array_equal(q.ids.ravel(), [0, 1])


def test_vq_codebook_starts_uniform_with_the_vocabulary_as_fan_in():
  quantizer = vector.VectorQuantizer(48, 64, rngs=nnx.Rngs(0))
  limit = (3 / 48) ** 0.5
  codebook_VK = quantizer.codebook[...]
  assert abs(codebook_VK).max() <= limit
  np.testing.assert_allclose(codebook_VK.std(), limit / 3**0.5, rtol=0.05)


def test_codebook_from_data_is_made_of_distinct_latents():
  latents_NK = jnp.array([[1, 2], [3, 4], [1, 2], [5, 6], [5, 6], [1, 7]])
  seen = set()
  for seed in range(4):
    codebook_VK = vector.initialize_codebook(
      latents_NK, jax.random.key(seed), 3
    )
    assert codebook_VK.dtype == jnp.float32
    rows = {tuple(row) for row in codebook_VK.tolist()}
    assert len(rows) == 3 and rows <= {(1, 2), (3, 4), (5, 6), (1, 7)}
    seen.add(tuple(sorted(rows)))
  assert len(seen) > 1
  with pytest.raises(ValueError, match="quantizer.codebook_size=5 .*4 of 6"):
    vector.initialize_codebook(latents_NK, jax.random.key(0), 5)


def test_fsq_literals_of_1000_codes():
  quantizer = finite_scalar.FiniteScalarQuantizer((8, 5, 5, 5))
  assert quantizer.vocabulary == 1000
  ids = jnp.array([0, 1, 8, 40, 200, 500, 999])
  np.testing.assert_array_equal(
    quantizer.codes(ids),
    [
      [-1.0, -1.0, -1.0, -1.0],
      [-0.75, -1.0, -1.0, -1.0],
      [-1.0, -0.5, -1.0, -1.0],
      [-1.0, -1.0, -0.5, -1.0],
      [-1.0, -1.0, -1.0, -0.5],
      [0.0, 0.0, 0.0, 0.0],
      [0.75, 1.0, 1.0, 1.0],
    ],
  )
  z = jnp.array([-100.0, 0.0, 100.0])[:, None] * jnp.ones((1, 4))
  q = _quantize(quantizer, z.reshape(1, 3, 1, 1, 4))
  np.testing.assert_array_equal(q.ids.ravel(), [0, 500, 999])


@pytest.mark.parametrize("count", [2, 3, 4, 5, 8])
def test_fsq_reaches_every_level_in_order(count):
  quantizer = finite_scalar.FiniteScalarQuantizer((count,))
  z = jnp.linspace(-8.0, 8.0, 400).reshape(1, 1, 1, 400, 1)
  ids = _quantize(quantizer, z).ids.ravel()
  np.testing.assert_array_equal(np.unique(ids), range(count))
  assert (np.diff(ids) >= 0).all()


@pytest.mark.parametrize("count", [4, 8])
def test_fsq_even_levels_lie_on_a_half_integer_grid_about_zero(count):
  """Levels before the shift by 1/2 are +-1/2, +-3/2, ..."""
  quantizer = finite_scalar.FiniteScalarQuantizer((count,))
  codes = quantizer.codes(jnp.arange(count)).ravel() * (count // 2)
  grid = np.arange(count) - (count - 1) / 2
  np.testing.assert_array_equal(codes + 0.5, grid)
  # The bound reaches just below the outermost, and sends zero to zero.
  bound = quantizer.bound(jnp.array([[-50.0], [0.0], [50.0]])).ravel()
  reach = 0.999 * grid[-1]
  np.testing.assert_allclose(bound + 0.5, [-reach, 0.5, reach], atol=1e-3)


def test_fsq_entropy_is_read_and_has_no_gradient():
  quantizer = finite_scalar.FiniteScalarQuantizer((3, 3))
  z = 50.0 * jnp.array([[-1.0, 0.0], [1.0, 1.0], [-1.0, 0.0], [1.0, -1.0]])

  def loss(z):
    q = quantizer(z)
    total = q.sample_entropy - q.batch_entropy + q.commitment + q.codebook
    return total, q.codebook_entropy

  z = z.reshape(1, 2, 2, 1, 2)
  (total, entropy), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(
    z
  )
  np.testing.assert_allclose(entropy, 1.5 * np.log(2), rtol=1e-5)
  np.testing.assert_allclose(total, -entropy)
  np.testing.assert_array_equal(gradient, 0.0)


@pytest.mark.parametrize("bits", [1, 3, 8])
def test_bsq_entropies_and_gradients_equal_a_softmax_over_all_codes(bits):
  temperature = 0.5
  quantizer = binary.BinarySphericalQuantizer(bits, temperature)
  z_NK = jax.random.normal(jax.random.key(0), (12, bits))
  codes_VK = jnp.array(list(itertools.product([-1.0, 1.0], repeat=bits)))
  codes_VK = codes_VK / jnp.sqrt(bits)

  @jax.jit
  def exact(z_NK):
    q = quantizer(z_NK.reshape(1, 3, 2, 2, bits))
    return jnp.stack([q.sample_entropy, q.batch_entropy])

  @jax.jit
  def brute(z_NK):
    u_NK = z_NK / jnp.linalg.norm(z_NK, axis=-1, keepdims=True)
    squares_NV = jnp.square(u_NK[:, None] - codes_VK[None]).sum(-1)
    log_p_NV = jax.nn.log_softmax(-squares_NV / temperature)
    p_NV = jnp.exp(log_p_NV)
    mean_V = p_NV.mean(0)
    return jnp.stack(
      [
        -(p_NV * log_p_NV).sum(-1).mean(),
        -(mean_V * jnp.log(mean_V + 1e-5)).sum(),
      ]
    )

  # XLA's float32 log on CPU is good to about 1e-5.
  np.testing.assert_allclose(exact(z_NK), brute(z_NK), rtol=2e-5, atol=1e-5)
  np.testing.assert_allclose(
    jax.jit(jax.jacrev(exact))(z_NK),
    jax.jit(jax.jacrev(brute))(z_NK),
    atol=1e-5,
  )


def test_bsq_depends_on_directions_only():
  quantizer = binary.BinarySphericalQuantizer(4, 0.5)
  z = jax.random.normal(jax.random.key(0), (1, 2, 3, 1, 4))
  near, far = _quantize(quantizer, z), _quantize(quantizer, 1e3 * z)
  for a, b in zip(jax.tree.leaves(near), jax.tree.leaves(far), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_bsq_literals():
  quantizer = binary.BinarySphericalQuantizer(4)
  z = jnp.array([3.0, -1.0, 1.0, -5.0])  # |z| = 6
  q = _quantize(quantizer, z.reshape(1, 1, 1, 1, 4))
  np.testing.assert_array_equal(q.ids.ravel(), [1 + 4])
  np.testing.assert_array_equal(q.z.ravel(), [0.5, -0.5, 0.5, -0.5])
  # u = (3, -1, 1, -5) / 6: squares of 0, 1/3, 1/3, 1/3.
  np.testing.assert_allclose(q.commitment, 1 / 12, rtol=1e-5)
