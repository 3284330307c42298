"""StyleGAN-style residual discriminator for clips and images.

MAGVIT's 3-D discriminator (google-research/magvit
`stylegan_discriminator_3d.py`), which pools by means, or with every pooling
replaced by a blur pool, as MAGVIT-v2 does (praxis `layers/video`). It sees the
whole clip: unlike the tokenizer it is not causal.
"""

from collections.abc import Sequence

from flax import nnx
import jax
from jax import lax
import jax.numpy as jnp

from models.tokenizer import convolution
from models.tokenizer import layers
from models.tokenizer import shared_backward

_POOLS = {"blur": layers.blur_pool, "average": layers.mean_pool}


class Discriminator(nnx.Module):
  """Maps clips (B, T, H, W, 3) in [0, 1] to a logit each, (B,), real above 0.

  Images are clips of one frame: their kernels and pools act on space alone.
  """

  def __init__(
    self,
    video_shape: Sequence[int],
    base_channels: int,
    channel_multipliers: Sequence[int],
    pool: str = "blur",
    *,
    rngs: nnx.Rngs,
  ):
    """`video_shape` is (T, H, W): the head is dense, so it fixes the size.

    Raises:
      ValueError: a pool other than "blur" and "average".
    """
    if pool not in _POOLS:
      raise ValueError(
        f"discriminator.pool={pool!r} must be one of {sorted(_POOLS)}"
      )
    size = 1 if video_shape[0] == 1 else 3
    widths = [base_channels * m for m in channel_multipliers]
    self.conv_in = SameConv(3, base_channels, (size, 3, 3), rngs=rngs)
    blocks, channels = [], base_channels
    for width in widths:
      blocks.append(DiscriminatorBlock(channels, width, size, pool, rngs=rngs))
      channels = width
    self.blocks = nnx.List(blocks)
    self.conv_out = SameConv(channels, channels, (size, 3, 3), rngs=rngs)
    points = 1
    for n in video_shape:
      for _ in widths:
        n = -(-n // 2)  # each pool takes n points to ceil(n / 2)
      points *= n
    dense = lambda cin, cout: nnx.Linear(
      cin,
      cout,
      kernel_init=jax.nn.initializers.xavier_uniform(),
      rngs=rngs,
    )
    self.dense_in = dense(points * channels, channels)
    self.dense_out = dense(channels, 1)

  def __call__(self, video_BTHWC: jax.Array) -> jax.Array:
    return self._logits(video_BTHWC, None)

  def with_shares(
    self, video_BTHWC: jax.Array, shares_B: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    """Logits, and the shares of clips (models/tokenizer/shared_backward.py)."""
    shares = shared_backward.Shares(shares_B)
    logits_B = self._logits(video_BTHWC, shares)
    return logits_B, shares.shares_B

  def _logits(
    self, video_BTHWC: jax.Array, shares: shared_backward.Shares | None
  ) -> jax.Array:
    x = _leaky_relu(self.conv_in(video_BTHWC, shares))
    for level, block in enumerate(self.blocks):
      with jax.named_scope(f"discriminator_block_{level}"):
        x = block(x, shares)
    x = _leaky_relu(self.conv_out(x, shares))
    x = x.reshape(x.shape[0], -1)
    x = _leaky_relu(_run(_dense, x, self.dense_in, shares))
    return _run(_dense, x, self.dense_out, shares)[:, 0]


class DiscriminatorBlock(nnx.Module):
  """Two convolutions around a pool, beside a pooled linear shortcut."""

  def __init__(
    self,
    in_channels: int,
    out_channels: int,
    size: int,
    pool: str,
    *,
    rngs: nnx.Rngs,
  ):
    kernel = (size, 3, 3)
    self.pool = pool
    self.conv1 = SameConv(in_channels, in_channels, kernel, rngs=rngs)
    self.conv2 = SameConv(in_channels, out_channels, kernel, rngs=rngs)
    self.shortcut = SameConv(
      in_channels, out_channels, (1, 1, 1), use_bias=False, rngs=rngs
    )

  def __call__(
    self, x_BTHWC: jax.Array, shares: shared_backward.Shares | None = None
  ) -> jax.Array:
    pool = _POOLS[self.pool]
    h_BTHWC = pool(_leaky_relu(self.conv1(x_BTHWC, shares)))
    h_BTHWC = _leaky_relu(self.conv2(h_BTHWC, shares))
    residual_BTHWC = self.shortcut(pool(x_BTHWC), shares)
    return (h_BTHWC + residual_BTHWC) / jnp.sqrt(2.0)


class SameConv(nnx.Module):
  """Convolution of odd size with zero padding on both sides."""

  def __init__(
    self,
    in_channels: int,
    out_channels: int,
    kernel_size: Sequence[int],
    use_bias: bool = True,
    *,
    rngs: nnx.Rngs,
  ):
    init = jax.nn.initializers.xavier_uniform()
    shape = (*kernel_size, in_channels, out_channels)
    self.kernel = nnx.Param(init(rngs.params(), shape, jnp.float32))
    self.bias = nnx.Param(jnp.zeros(out_channels)) if use_bias else None

  def __call__(
    self, x_BTHWI: jax.Array, shares: shared_backward.Shares | None = None
  ) -> jax.Array:
    return _run(_convolve, x_BTHWI, self, shares)


def _run(layer, x, module, shares: shared_backward.Shares | None):
  """Runs a layer of a module's kernel and bias."""
  bias = None if module.bias is None else module.bias[...]
  weights = (module.kernel[...], bias)
  if shares is None:
    return layer(x, weights)
  return shares.run(layer, x, weights)


def _convolve(x_BTHWI, weights: shared_backward.Weights):
  kernel, bias = weights
  half = [(k // 2, k // 2) for k in kernel.shape[:3]]
  x_BTHWI = convolution.pad_with_zeros(x_BTHWI, half)
  y_BTHWO = convolution.valid_conv(x_BTHWI, kernel, (1, 1, 1))
  if bias is None:
    return y_BTHWO
  return y_BTHWO + lax.broadcast_to_rank(bias, y_BTHWO.ndim)


def _dense(x_BI, weights: shared_backward.Weights):
  kernel, bias = weights
  y_BO = x_BI @ kernel
  return y_BO if bias is None else y_BO + bias[None]


def _leaky_relu(x: jax.Array) -> jax.Array:
  return jax.nn.leaky_relu(x, 0.2)
