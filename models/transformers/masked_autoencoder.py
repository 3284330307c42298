"""MAR's own trunk: an encoder of the known latents, a decoder of all.

MAR (arXiv 2406.11838; LTH14/mar `mar.py`), after MAE. The encoder reads buffer
tokens, each the class's embedding, and the latents that are not masked; the
decoder reads the buffer, these, and a mask token at each masked place. Blocks
are those of ViT, and a table of places is added before either and after both.

A program has fixed shapes: the encoder has room for `room` latents, and nothing
attends to what is left free. As many latents are masked in every clip.
"""

import dataclasses

from flax import nnx
import jax
import jax.numpy as jnp

from models.transformers import attend
from models.transformers import attention
from models.transformers import diffusion_head
from models.transformers import modulation

_BUFFER = 64  # buffer tokens


class MaskedAutoencoder(nnx.Module):
  """Features for a diffusion head of every latent of a masked grid."""

  def __init__(
    self,
    num_tokens: int,
    channels: int,
    num_classes: int,
    head: diffusion_head.HeadSize,
    size: attention.TransformerSize,
    *,
    rngs: nnx.Rngs,
  ):
    """Makes a model; half of the layers are the encoder's."""
    width = size.width
    table = lambda rows: nnx.Embed(
      rows,
      width,
      embedding_init=jax.nn.initializers.normal(0.02),
      rngs=rngs,
    )
    half = dataclasses.replace(size, num_layers=size.num_layers // 2)
    self.classes = table(num_classes + 1)
    self.mask = table(1)
    self.latents = modulation.dense(channels, width, rngs)
    self.norm = attention.layer_norm(width, rngs)
    self.encoder_positions = table(_BUFFER + num_tokens)
    self.encoder = attention.Stack(half, rngs=rngs)
    self.decoder_inputs = modulation.dense(width, width, rngs)
    self.decoder_positions = table(_BUFFER + num_tokens)
    self.decoder = attention.Stack(half, rngs=rngs)
    self.head_positions = table(num_tokens)
    self.head = diffusion_head.DiffusionHead(channels, width, head, rngs=rngs)

  def conditions(
    self,
    z_BNC: jax.Array,
    masked_BN: jax.Array,
    class_B: jax.Array,
    task_B: jax.Array,
    dropout_key: jax.Array | None = None,
    room: int | None = None,
  ) -> jax.Array:
    """What the head is told of every token, (B, N, D).

    Args:
      z_BNC: latents; those under the mask are ignored.
      masked_BN: bool, as many in each clip.
      class_B: int32 in 0..num_classes; the last means "no class".
      task_B: ignored: there is one task.
      dropout_key: draws the dropout of training; None for inference.
      room: most latents that are not masked; None: all.
    """
    del task_B
    batch, tokens = masked_BN.shape
    room = tokens if room is None else room
    keys = [None] * 2
    if dropout_key is not None:
      keys = jax.random.split(dropout_key)
    class_BD = attention.look_up(self.classes, class_B)
    shape = (batch, _BUFFER, class_BD.shape[-1])
    buffer_BPD = jnp.broadcast_to(class_BD[:, None], shape)
    z_BND = self.latents(z_BNC.astype(class_BD.dtype))
    x_BSD = jnp.concatenate([buffer_BPD, z_BND], axis=1)
    x_BSD = self.norm(x_BSD + self.encoder_positions.embedding[None])
    # Known latents first; a stable sort leaves them in raster order.
    order_BR = masked_BN.argsort(-1, stable=True)[:, :room]
    known_BRD = jnp.take_along_axis(
      x_BSD[:, _BUFFER:], order_BR[..., None], axis=1
    )
    x_BSD = jnp.concatenate([x_BSD[:, :_BUFFER], known_BRD], axis=1)
    # Nothing but the prefix is seen: the places before the first are none.
    known = _BUFFER + (~masked_BN[0]).sum()
    layout = attend.Layout(start=-_BUFFER - room, prefix=known)
    x_BSD = self.decoder_inputs(self.encoder(x_BSD, layout, keys[0]))
    clip_B1 = jnp.arange(batch)[:, None]
    all_BND = (
      jnp.zeros_like(z_BND).at[clip_B1, order_BR].set(x_BSD[:, _BUFFER:])
    )
    mask_D = self.mask.embedding[0]
    all_BND = jnp.where(masked_BN[..., None], mask_D, all_BND)
    x_BSD = jnp.concatenate([x_BSD[:, :_BUFFER], all_BND], axis=1)
    x_BSD += self.decoder_positions.embedding[None]
    x_BND = self.decoder(x_BSD, None, keys[1])[:, _BUFFER:]
    return x_BND + self.head_positions.embedding[None]

  def denoise(
    self, x_t: jax.Array, time: jax.Array, condition: jax.Array
  ) -> jax.Array:
    """The head's output, as `DiffusionHead` says."""
    return self.head(x_t, time, condition)
