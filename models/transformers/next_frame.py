"""Next-frame flow: a denoiser of one latent frame after the other.

xAR (arXiv 2502.20388) with a latent frame for a cell. Every frame has a noise
level of its own, and attends to itself and to the frames before it. In training
these are noisy as well; in sampling they are finished, clean, and kept as keys
and values. AdaLN-zero follows the class and each frame's level; norms are of
the root mean square, of queries and keys as well, and the MLP is SwiGLU.

Frames are told apart by rotated queries and keys (arXiv 2104.09864), places
within a frame by a table. Distances between frames alone count, so that a video
may go on for ever; frame 0 has a mark of its own, because a causal tokenizer
makes it from a single frame of the video.
"""

import typing

from flax import nnx
import jax
from jax import lax
import jax.numpy as jnp

from models import remat as remat_lib
from models.transformers import attend
from models.transformers import attention
from models.transformers import modulation

_NORM_EPSILON = 1e-6
_LONGEST_PERIOD = 10_000.0  # slowest rotation: frames that turn it by 1


class NextFrame(nnx.Module):
  """Predicts the velocity of noisy latent frames from those before."""

  def __init__(
    self,
    frame_size: tuple[int, int],
    channels: int,
    num_classes: int,
    size: attention.TransformerSize,
    *,
    rngs: nnx.Rngs,
  ):
    """Makes a model of (h, w) = `frame_size` tokens a frame, P in all.

    Raises:
      ValueError: the heads do not divide the width, or have no even width.
    """
    if size.width % (2 * size.num_heads):
      raise ValueError(
        f"denoiser.width={size.width} must be a multiple of twice"
        f" denoiser.num_heads={size.num_heads}"
      )
    width = size.width
    embed = lambda rows: nnx.Embed(
      rows,
      width,
      embedding_init=jax.nn.initializers.normal(0.02),
      rngs=rngs,
    )
    self.frame_size = tuple(frame_size)
    self.inputs = modulation.dense(channels, width, rngs)
    self.places = embed(frame_size[0] * frame_size[1])
    self.first = embed(1)
    self.classes = embed(num_classes + 1)
    self.time = modulation.TimeEmbedding(width, rngs=rngs)
    # Layers are one stacked block, which is scanned and so compiles once.
    self.layers = jax.vmap(lambda key: FrameBlock(size, rngs=nnx.Rngs(key)))(
      jax.random.split(rngs.params(), size.num_layers)
    )
    self.norm = _plain_norm(width, rngs)
    self.modulation = modulation.zero_linear(width, 2 * width, rngs)
    self.outputs = modulation.zero_linear(width, channels, rngs)
    self.size = size

  def __call__(
    self,
    x_BthwC: jax.Array,
    time_Bt: jax.Array,
    class_B: jax.Array,
    first_frame: int | jax.Array = 0,
  ) -> jax.Array:
    """Velocities float32 (B, t, h, w, C); no later frame is seen.

    Args:
      x_BthwC: noisy latents.
      time_Bt: noise level of each frame, in 0..1000; 0 is clean.
      class_B: int32 in 0..num_classes; the last means "no class".
      first_frame: number of their first frame in its video.
    """
    frame_t = first_frame + jnp.arange(x_BthwC.shape[1])
    x_BtPD, c_BtD = self._embed(x_BthwC, time_Bt, class_B, frame_t)
    layout = attend.Layout(block=x_BtPD.shape[2])

    def body(x_BtPD, block):
      mod, q_BNAd, k_BNAd, v_BNAd = block.project(x_BtPD, c_BtD, frame_t)
      y_BNAd = attend.attend(
        q_BNAd, k_BNAd, v_BNAd, layout, form=self.size.attention
      )
      return block.finish(x_BtPD, y_BNAd, mod), None

    body = remat_lib.apply(body, self.size.remat, in_scan=not self.size.unroll)
    x_BtPD = attention.scan_layers(body, x_BtPD, self.layers, self.size)
    return self._finish(x_BtPD, c_BtD)

  def empty_cache(self, batch: int, frames: int) -> attention.Cache:
    """Cache of zeros with room for this many frames."""
    tokens = frames * self.frame_size[0] * self.frame_size[1]
    width, heads = self.size.width, self.size.num_heads
    shape = (self.size.num_layers, batch, tokens, heads, width // heads)
    dtype = typing.cast(nnx.Param, self.places.embedding).dtype
    empty_LBSAd = jnp.zeros(shape, dtype)
    return empty_LBSAd, empty_LBSAd

  def extend(
    self,
    x_B1hwC: jax.Array,
    time_B1: jax.Array,
    class_B: jax.Array,
    frame: jax.Array | int,
    place: jax.Array | int,
    cache: attention.Cache,
  ) -> tuple[jax.Array, attention.Cache]:
    """Velocities (B, 1, h, w, C) of one frame, and the cache with it.

    Args:
      x_B1hwC: the frame's noisy latents.
      time_B1: its noise level.
      class_B: as in a call.
      frame: number of the frame in the video.
      place: its place in the cache, after the frames that it sees.
      cache: holds those, each as its last `extend` left it.
    """
    frame_1 = jnp.asarray(frame)[None]
    x_B1PD, c_B1D = self._embed(x_B1hwC, time_B1, class_B, frame_1)
    start = place * x_B1PD.shape[2]
    # All of the frame is seen by all of it.
    layout = attend.Layout(start=start, prefix=start + x_B1PD.shape[2])

    def body(carry, layer):
      x_B1PD, keys_LBSAd, values_LBSAd = carry
      block, index = layer
      mod, q_BPAd, k_BPAd, v_BPAd = block.project(x_B1PD, c_B1D, frame_1)
      at = (index, 0, start, 0, 0)
      write = lax.dynamic_update_slice
      keys_LBSAd = write(keys_LBSAd, k_BPAd[None], at)
      values_LBSAd = write(values_LBSAd, v_BPAd[None], at)
      y_BPAd = attend.attend(
        q_BPAd,
        keys_LBSAd[index],
        values_LBSAd[index],
        layout,
        form=self.size.attention,
      )
      return (block.finish(x_B1PD, y_BPAd, mod), keys_LBSAd, values_LBSAd), None

    layers = (self.layers, jnp.arange(self.size.num_layers))
    (x_B1PD, *written), _ = lax.scan(body, (x_B1PD, *cache), layers)
    keys_LBSAd, values_LBSAd = written
    return self._finish(x_B1PD, c_B1D), (keys_LBSAd, values_LBSAd)

  def _embed(self, x_BthwC, time_Bt, class_B, frame_t):
    """Tokens (B, t, P, D), and the conditions (B, t, D) of their frames."""
    batch, frames, height, width, channels = x_BthwC.shape
    dtype = self.places.embedding.dtype
    x_BtPC = x_BthwC.reshape(batch, frames, height * width, channels)
    x_BtPD = self.inputs(x_BtPC.astype(dtype))
    x_BtPD += self.places.embedding[None, None]
    is_first_1t11 = (frame_t == 0)[None, :, None, None]
    x_BtPD += jnp.where(is_first_1t11, self.first.embedding[None, None], 0)
    class_BD = attention.look_up(self.classes, class_B)
    c_BtD = self.time(time_Bt) + class_BD[:, None]
    return x_BtPD, jax.nn.silu(c_BtD)

  def _finish(self, x_BtPD, c_BtD):
    mod_Bt1D = jnp.split(self.modulation(c_BtD)[:, :, None], 2, axis=-1)
    x_BtPD = modulation.modulate(self.norm(x_BtPD), *mod_Bt1D)
    out_BtPC = self.outputs(x_BtPD).astype(jnp.float32)
    batch, frames, _, channels = out_BtPC.shape
    return out_BtPC.reshape(batch, frames, *self.frame_size, channels)


class FrameBlock(nnx.Module):
  """Attention and SwiGLU, each modulated and added through a gate."""

  def __init__(self, size: attention.TransformerSize, *, rngs: nnx.Rngs):
    width, heads = size.width, size.num_heads
    each = (heads, width // heads)
    init = jax.nn.initializers.xavier_uniform()

    def general(cin, cout, axis: int | tuple[int, ...] = -1):
      return nnx.LinearGeneral(
        cin, cout, axis=axis, kernel_init=init, use_bias=False, rngs=rngs
      )

    self.attention_norm = _plain_norm(width, rngs)
    self.qkv = general(width, (3, *each))
    self.q_norm = nnx.RMSNorm(each[1], epsilon=_NORM_EPSILON, rngs=rngs)
    self.k_norm = nnx.RMSNorm(each[1], epsilon=_NORM_EPSILON, rngs=rngs)
    self.out = general(each, width, axis=(-2, -1))
    self.mlp_norm = _plain_norm(width, rngs)
    self.mlp_in = general(width, (2, size.mlp_width))
    self.mlp_out = general(size.mlp_width, width)
    self.modulation = modulation.zero_linear(width, 6 * width, rngs)

  def project(self, x_BtPD: jax.Array, c_BtD: jax.Array, frame_t: jax.Array):
    """The modulation for `finish`; queries, keys, values (B, t P, A, d)."""
    mod_Bt1D = jnp.split(self.modulation(c_BtD)[:, :, None], 6, axis=-1)
    shift_Bt1D, scale_Bt1D, *rest = mod_Bt1D
    h_BtPD = self.attention_norm(x_BtPD)
    h_BtPD = modulation.modulate(h_BtPD, shift_Bt1D, scale_Bt1D)
    qkv_BtP3Ad = self.qkv(h_BtPD)
    batch, _, _, _, heads, depth = qkv_BtP3Ad.shape
    flat = lambda x: x.reshape(batch, -1, heads, depth)
    q_BtPAd = rotate(self.q_norm(qkv_BtP3Ad[:, :, :, 0]), frame_t)
    k_BtPAd = rotate(self.k_norm(qkv_BtP3Ad[:, :, :, 1]), frame_t)
    return rest, flat(q_BtPAd), flat(k_BtPAd), flat(qkv_BtP3Ad[:, :, :, 2])

  def finish(self, x_BtPD: jax.Array, y_BNAd: jax.Array, mod) -> jax.Array:
    """Output of the block, from its input and what its attention gathered."""
    gate_Bt1D, mlp_shift, mlp_scale, mlp_gate = mod
    x_BtPD += gate_Bt1D * self.out(y_BNAd).reshape(x_BtPD.shape)
    h_BtPD = modulation.modulate(self.mlp_norm(x_BtPD), mlp_shift, mlp_scale)
    h_BtP2F = self.mlp_in(h_BtPD)
    h_BtPF = jax.nn.silu(h_BtP2F[:, :, :, 0]) * h_BtP2F[:, :, :, 1]
    return x_BtPD + mlp_gate * self.mlp_out(h_BtPF)


def rotate(x_BtPAd: jax.Array, frame_t: jax.Array) -> jax.Array:
  """Rotates pairs of channels by angles in proportion to the frame's number.

  Products of queries and keys then depend on distances between frames alone.
  """
  half = x_BtPAd.shape[-1] // 2
  period_d = _LONGEST_PERIOD ** (jnp.arange(half) / half)
  angle_td = frame_t.astype(jnp.float32)[:, None] / period_d[None]
  angle_1t11d = angle_td[None, :, None, None]
  cos, sin = jnp.cos(angle_1t11d), jnp.sin(angle_1t11d)
  a, b = jnp.split(x_BtPAd.astype(jnp.float32), 2, axis=-1)
  turned = jnp.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)
  return turned.astype(x_BtPAd.dtype)


def _plain_norm(width: int, rngs: nnx.Rngs) -> nnx.RMSNorm:
  return nnx.RMSNorm(width, epsilon=_NORM_EPSILON, use_scale=False, rngs=rngs)
