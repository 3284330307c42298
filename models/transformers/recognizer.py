"""A factorised transformer that says what a clip shows (ViViT).

ViViT (arXiv 2103.15691): attention within each latent frame, then over the
frames. Here the second is at each position, as in this project's tokenizer
(models/tokenizer/vivit.py), and goes both ways; the mean of all outputs leads
to the classes. Each token keeps an output of its own, from which masked tokens
are predicted (BEVT, arXiv 2112.01529).
"""

from collections.abc import Sequence

from flax import nnx
import jax
import jax.numpy as jnp

from models.tokenizer import vivit
from models.transformers import attention

DEPTHS = ("input", "within frames", "over frames")  # depths of `features`


class Recognizer(nnx.Module):
  """Logits of the classes of clips, or of the targets of masked tokens.

  Its input, (B, T, H, W, C), are pixels or latents. The first frame becomes a
  latent frame by itself, with weights of its own, as a causal tokenizer's.
  """

  def __init__(
    self,
    channels: int,
    patch: Sequence[int],
    latent_shape: Sequence[int],
    space: attention.TransformerSize,
    time: attention.TransformerSize,
    num_classes: int,
    targets: Sequence[int],
    *,
    rngs: nnx.Rngs,
  ):
    """Sizes the patches, and two transformers of equal width.

    Args:
      channels: C of the input.
      patch: (frames, height, width) of the input that become a token, of the
        first latent frame one frame; (1, 1, 1) for latents.
      latent_shape: (t, h, w), the grid of tokens.
      space: the transformer within a latent frame.
      time: the transformer over latent frames.
      num_classes: number of classes; 0 leaves the head of classes out.
      targets: number of logits of each target of a masked token.
      rngs: draws the parameters.
    """
    width = space.width
    embed = lambda frames: vivit.PatchEmbedding(
      (frames, *patch[1:]), width, channels, rngs=rngs
    )
    self.embed_first, self.embed_later = embed(1), embed(patch[0])
    init = jax.nn.initializers.normal(stddev=0.02)
    self.mask = nnx.Param(init(rngs.params(), (width,), jnp.float32))
    self.space = vivit.SpatialTransformer(latent_shape[1:], space, rngs=rngs)
    self.time = vivit.TemporalTransformer(
      latent_shape[0], time, causal=False, rngs=rngs
    )
    head = lambda size: nnx.Linear(width, size, rngs=rngs)
    self.classes = head(num_classes) if num_classes else None
    self.targets = nnx.List([head(n) for n in targets]) if targets else None

  def classify(
    self,
    x_BTHWC: jax.Array,
    hidden_Bthw: jax.Array,
    dropout_key: jax.Array | None = None,
  ) -> jax.Array:
    """Logits of the classes, float32 (B, classes).

    Args:
      x_BTHWC: pixels or latents.
      hidden_Bthw: bool, tokens that the network does not see.
      dropout_key: draws the dropout of training; None for inference.

    Raises:
      ValueError: a network without classes.
    """
    if self.classes is None:
      raise ValueError("the network was built without classes (num_classes=0)")
    y_BthwD = self._run(x_BTHWC, hidden_Bthw, dropout_key)[-1]
    logits = self.classes(y_BthwD.mean((1, 2, 3)))
    return logits.astype(jnp.float32)

  def complete(
    self,
    x_BTHWC: jax.Array,
    hidden_Bthw: jax.Array,
    dropout_key: jax.Array | None = None,
  ) -> list[jax.Array]:
    """Logits of each target of each token, float32 (B, N, V).

    Raises:
      ValueError: a network without targets.
    """
    if self.targets is None:
      raise ValueError("the network was built without targets (targets=())")
    y_BthwD = self._run(x_BTHWC, hidden_Bthw, dropout_key)[-1]
    y_BND = y_BthwD.reshape(y_BthwD.shape[0], -1, y_BthwD.shape[-1])
    return [head(y_BND).astype(jnp.float32) for head in self.targets]

  def features(self, x_BTHWC: jax.Array, hidden_Bthw: jax.Array) -> jax.Array:
    """Means over the tokens at each of DEPTHS, float32 (B, 3, D)."""
    outputs = self._run(x_BTHWC, hidden_Bthw, None)
    means = [y_BthwD.astype(jnp.float32).mean((1, 2, 3)) for y_BthwD in outputs]
    return jnp.stack(means, axis=1)

  def _run(self, x_BTHWC, hidden_Bthw, dropout_key) -> tuple[jax.Array, ...]:
    """Tokens (B, t, h, w, D) at each of DEPTHS."""
    keys = [None] * 2
    if dropout_key is not None:
      keys = jax.random.split(dropout_key)
    dtype = self.mask.dtype
    x_BTHWC = x_BTHWC.astype(dtype)
    # An image has no later frames: they are then an array of length 0.
    x_BthwD = jnp.concatenate(
      [self.embed_first(x_BTHWC[:, :1]), self.embed_later(x_BTHWC[:, 1:])],
      axis=1,
    )
    mask_1111D = self.mask[...][None, None, None, None]
    x_BthwD = jnp.where(hidden_Bthw[..., None], mask_1111D, x_BthwD)
    y_BthwD = self.space(x_BthwD, keys[0])
    return x_BthwD, y_BthwD, self.time(y_BthwD, keys[1])
