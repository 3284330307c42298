"""A network that knows how often each token stands at each place."""

from flax import nnx
import jax
import jax.numpy as jnp


class Histogram(nnx.Module):
  """Logits of the token at each place, for each class and for no class."""

  def __init__(
    self, num_tokens: int, vocabulary: int, num_classes: int, *, rngs: nnx.Rngs
  ):
    shape = (num_classes + 1, num_tokens, vocabulary)
    self.table = nnx.Param(0.01 * jax.random.normal(rngs.params(), shape))

  def __call__(self, class_B: jax.Array) -> jax.Array:
    """(B, N, V), float32; class `num_classes` is "no class"."""
    return self.table[...][class_B].astype(jnp.float32)
