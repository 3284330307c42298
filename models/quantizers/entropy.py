"""Entropies of the code distribution, on which quantizers are trained.

All are means over every token of the global batch, in nats, float32. Under data
parallelism XLA turns the means into small all-reduces.
"""

from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp
from jax.scipy import special

MAX_EXACT_BITS = 18  # most in one joint distribution: 2^18 float32 are 1 MB


class Entropies(NamedTuple):
  """Scalars; see `models.quantizers.common.Quantized` for their meaning."""

  sample: jax.Array
  batch: jax.Array
  codebook: jax.Array


def bit_entropies(
  logits_NK: jax.Array, groups: int, epsilon: float
) -> Entropies:
  """Entropies of codes of K independent bits, given their logits per token.

  p(code | token) is a product over bits, so its entropy is an exact sum. With
  one group the mean distribution is exact too, and so are `batch` and
  `codebook`. With G > 1 groups, as praxis above 18 bits, `batch` is the mean
  (not the sum) over groups of the entropy of the joint distribution of a
  group's bits, averaged over two ways to form groups: neighbouring bits, and
  every G-th bit. `codebook` is then the smaller of the two sums of group
  entropies, an upper bound on the joint entropy. `epsilon` is added in the
  logarithm of `batch` only.
  """
  distributions = [
    [mean_code_probabilities(logits_NK[:, bits]) for bits in grouping]
    for grouping in bit_groupings(logits_NK.shape[-1], groups)
  ]
  batch = [[_entropy(p, epsilon) for p in row] for row in distributions]
  return Entropies(
    sample=bernoulli_entropy(logits_NK).sum(-1).mean(),
    batch=jnp.array(batch).mean(),
    codebook=jnp.array(
      [sum(_entropy_to_read(p) for p in row) for row in distributions]
    ).min(),
  )


def softmax_entropies(logits_NV: jax.Array, epsilon: float) -> Entropies:
  """Entropies of codes with these logits; `epsilon` as in `bit_entropies`."""
  log_p_NV = jax.nn.log_softmax(logits_NV)
  p_NV = jnp.exp(log_p_NV)
  mean_V = p_NV.mean(0)
  return Entropies(
    sample=-(p_NV * log_p_NV).sum(-1).mean(),
    batch=_entropy(mean_V, epsilon),
    codebook=_entropy_to_read(mean_V),
  )


def histogram_entropy(ids: jax.Array) -> jax.Array:
  """Entropy of the histogram of ids of any shape; it has no gradient.

  Sorts the ids and measures the run of each, so that no array is as large as
  the vocabulary.
  """
  sorted_N = jnp.sort(ids.ravel())
  position_N = jnp.arange(sorted_N.size)
  changes = sorted_N[1:] != sorted_N[:-1]
  first_N = jnp.concatenate([jnp.array([True]), changes])
  last_N = jnp.concatenate([changes, jnp.array([True])])
  start_N = lax.cummax(jnp.where(first_N, position_N, 0))
  run_N = (position_N - start_N + 1).astype(jnp.float32)
  total = jnp.sum(jnp.where(last_N, run_N * jnp.log(run_N), 0.0))
  return jnp.log(float(sorted_N.size)) - total / sorted_N.size


def bit_groupings(bits: int, groups: int) -> list[list[slice]]:
  """Ways to split the bits into groups: neighbouring bits, or strided ones.

  Sizes of groups differ by at most one, and are equal for every number of
  groups that praxis accepts. A single group can be formed in one way only.
  """
  contiguous = [
    slice(g * bits // groups, (g + 1) * bits // groups) for g in range(groups)
  ]
  strided = [slice(g, None, groups) for g in range(groups)]
  return [contiguous] if groups == 1 else [contiguous, strided]


def bernoulli_entropy(logits: jax.Array) -> jax.Array:
  """Entropy in nats of a bit with these logits, elementwise and stable."""
  magnitude = jnp.abs(logits)  # entropy is even; avoids inf - inf
  return jax.nn.softplus(-magnitude) + magnitude * jax.nn.sigmoid(-magnitude)


def mean_code_probabilities(logits_NK: jax.Array) -> jax.Array:
  """Mean over N tokens of p(code | token): (2^high, 2^low), high bits slower.

  One matrix product A^T B / N of the distributions over the two halves of the
  bits (512 x 512 at K = 18). Flattened, entry i is the code with id i.
  """
  low = logits_NK.shape[-1] // 2
  low_NV = code_probabilities(logits_NK[:, :low])
  high_NV = code_probabilities(logits_NK[:, low:])
  # Full precision: TPUs and GPUs would otherwise multiply in bfloat16 or TF32.
  total = jnp.matmul(high_NV.T, low_NV, precision=lax.Precision.HIGHEST)
  return total / logits_NK.shape[0]


def code_probabilities(logits_NK: jax.Array) -> jax.Array:
  """p(code | token) of independent bits: (N, K) logits to (N, 2^K).

  The distributions of the two halves of the bits are multiplied, each half
  split again down to single bits: the gradient then keeps fewer and smaller
  intermediates than it would bit by bit.
  """
  tokens, bits = logits_NK.shape
  if bits == 0:
    return jnp.ones((tokens, 1), logits_NK.dtype)
  if bits == 1:
    pair = [jax.nn.sigmoid(-logits_NK), jax.nn.sigmoid(logits_NK)]
    return jnp.concatenate(pair, axis=-1)
  low_NV = code_probabilities(logits_NK[:, : bits // 2])
  high_NV = code_probabilities(logits_NK[:, bits // 2 :])
  return (high_NV[:, :, None] * low_NV[:, None, :]).reshape(tokens, 2**bits)


def _entropy(p: jax.Array, epsilon: float) -> jax.Array:
  return -jnp.sum(p * jnp.log(p + epsilon))


def _entropy_to_read(p: jax.Array) -> jax.Array:
  """Entropy without epsilon, and without gradient: infinite at p = 0."""
  p = lax.stop_gradient(p)
  return -jnp.sum(special.xlogy(p, p))
