"""W.A.L.T's denoiser: attention in windows, for videos and images alike.

arXiv 2312.06662, sections 4.2 and 4.3. Layers come in pairs: one attends within
each latent frame, one within blocks of space and time. Images are trained as
stacks that have the shape of a video: in the second layer of a pair each of
their tokens attends to itself alone, so that an image sees no other one.
"""

import dataclasses
import math

from flax import nnx
import jax
from jax import lax
import jax.numpy as jnp

from models import remat as remat_lib
from models.transformers import attend
from models.transformers import attention
from models.transformers import modulation
from models.transformers import windows

TEXT_LAYERS = ("all", "spatial")  # layers that can attend to text


@dataclasses.dataclass(frozen=True)
class Design:
  """What a denoiser reads, and how its layers are made.

  patch: side of the square of latents that is one token.
  spatial_window, space_time_window: tokens that attend to each other in the
    first and in the second layer of a pair; rows and columns, and latent frames
    before them.
  lora_rank: rank of what a layer adds to the modulation that all share
    (AdaLN-LoRA); 0: each layer has a modulation of its own.
  num_classes: classes; one more is "no class".
  text_width: channels of text embeddings; 0: no text.
  text_layers: one of TEXT_LAYERS.
  self_conditioning: whether it reads an estimate of the clean latents.
  completes: whether it reads given latents, and which are given.
  upscales: whether it reads latents of half the height and width.
  """

  latent_shape: tuple[int, int, int]
  channels: int
  patch: int
  spatial_window: tuple[int, int]
  space_time_window: windows.Window
  lora_rank: int
  num_classes: int
  text_width: int
  text_layers: str
  self_conditioning: bool
  completes: bool
  upscales: bool

  @property
  def token_grid(self) -> tuple[int, int, int]:
    t, h, w = self.latent_shape
    return t, h // self.patch, w // self.patch

  @property
  def pair_of_windows(self) -> tuple[windows.Window, windows.Window]:
    """Windows of the two layers of a pair."""
    return (1, *self.spatial_window), self.space_time_window

  @property
  def input_channels(self) -> int:
    """Channels of all that is read at a latent."""
    copies = 1 + self.self_conditioning + self.completes + self.upscales
    return copies * self.channels + self.completes

  def check(self) -> None:
    """Raises ValueError for fields that contradict each other."""
    shape, grid = self.latent_shape, self.token_grid
    if shape[1] % self.patch or shape[2] % self.patch:
      raise ValueError(
        f"denoiser.patch={self.patch} must divide the {shape[1]} x {shape[2]}"
        " latents of a frame"
      )
    for field, window in zip(
      ("spatial_window", "space_time_window"), self.pair_of_windows, strict=True
    ):
      if field == "space_time_window" and grid[0] == 1:
        continue  # images attend to nothing there
      if any(n % m for n, m in zip(grid, window, strict=True)):
        raise ValueError(
          f"denoiser.{field}={window[-2:] if window[0] == 1 else window} must"
          f" divide the clip's {grid} tokens"
        )
    if self.text_layers not in TEXT_LAYERS:
      raise ValueError(
        f"denoiser.text_layers={self.text_layers!r} must be one of"
        f" {TEXT_LAYERS}"
      )


class Walt(nnx.Module):
  """Predicts from noisy latents, a time and a condition."""

  def __init__(
    self, design: Design, size: attention.TransformerSize, *, rngs: nnx.Rngs
  ):
    """Raises ValueError for a design, or a size, that cannot be."""
    design.check()
    if size.num_layers % 2:
      raise ValueError(
        f"denoiser.num_layers={size.num_layers} must be even: layers in space"
        " and in space and time take turns"
      )
    width, patch = size.width, design.patch
    t, rows, columns = design.token_grid
    embed = lambda count: nnx.Embed(
      count, width, embedding_init=nnx.initializers.normal(0.02), rngs=rngs
    )
    linear = lambda inputs: nnx.Linear(inputs, width, rngs=rngs)
    self.patches = linear(patch**2 * design.input_channels)
    self.space, self.time = embed(rows * columns), embed(t)
    self.classes = embed(design.num_classes + 1)
    self.time_in, self.time_out = linear(modulation.WAVES), linear(width)
    self.text = linear(design.text_width) if design.text_width else None
    self.finer = _finer(design.channels, rngs) if design.upscales else None
    self.shared = (
      modulation.zero_linear(width, 6 * width, rngs)
      if design.lora_rank
      else None
    )
    self.pairs = jax.vmap(lambda key: Pair(design, size, nnx.Rngs(key)))(
      jax.random.split(rngs.params(), size.num_layers // 2)
    )
    self.norm = modulation.plain_norm(width, rngs)
    self.last_modulation = modulation.zero_linear(width, 2 * width, rngs)
    self.outputs = modulation.zero_linear(
      width, patch**2 * design.channels, rngs
    )
    self.design, self.size = design, size

  def __call__(
    self,
    z_BthwC: jax.Array,
    time_Bf: jax.Array,
    class_Bf: jax.Array,
    *,
    stacked_B: jax.Array | None = None,
    hint_BthwC: jax.Array | None = None,
    given_BthwC: jax.Array | None = None,
    mask_Bthw: jax.Array | None = None,
    low_BthwC: jax.Array | None = None,
    low_time_B: jax.Array | None = None,
    text_BfMK: jax.Array | None = None,
  ) -> jax.Array:
    """The prediction, float32 (B, t, h, w, C).

    What belongs to each image of a stack has the axis f, one for each latent
    frame; of videos alone f may be 1. Clips may have fewer latent frames than
    the design, if they are images: one.

    Args:
      z_BthwC: noisy latents.
      time_Bf: float32 in 0..1000, the larger the noisier.
      class_Bf: int32 in 0..num_classes.
      stacked_B: bool, whether a clip is a stack of images; None: none is.
      hint_BthwC: estimate of the clean latents, or zeros (self_conditioning).
      given_BthwC: latents that are given, zeros elsewhere (completes).
      mask_Bthw: bool, where they are given (completes).
      low_BthwC: noisy latents (B, t, h / 2, w / 2, C) (upscales).
      low_time_B: the time of these (upscales).
      text_BfMK: embeddings of M words; those of padding are zeros.
    """
    dtype = self.patches.kernel[...].dtype
    read = [z_BthwC, hint_BthwC, given_BthwC]
    if mask_Bthw is not None:
      read.append(mask_Bthw[..., None])
    if self.finer is not None and low_BthwC is not None:
      finer = self.finer(low_BthwC.astype(dtype))
      read.append(windows.from_patches(finer, 2))
    read = [part.astype(dtype) for part in read if part is not None]
    x_BthwD = self.patches(
      windows.to_patches(jnp.concatenate(read, -1), self.design.patch)
    )
    x_BthwD += self._positions(x_BthwD.shape[1], stacked_B)
    condition_BfD = self._condition(time_Bf, class_Bf, low_time_B)
    text_BfMD = None
    if self.text is not None:
      if text_BfMK is None:
        raise ValueError("text_BfMK is missing: this network reads text")
      text_BfMD = self.text(text_BfMK.astype(dtype))
    x_BthwD = self._run_pairs(x_BthwD, condition_BfD, stacked_B, text_BfMD)
    last = self.last_modulation(jax.nn.silu(condition_BfD))
    shift, scale = jnp.split(last[:, :, None, None], 2, -1)
    y = self.outputs(modulation.modulate(self.norm(x_BthwD), shift, scale))
    return windows.from_patches(y, self.design.patch).astype(jnp.float32)

  def _positions(self, frames: int, stacked_B=None) -> jax.Array:
    """Positions (B or 1, t, h, w, D) of the tokens of so many latent frames.

    Each image of a stack stands where a video begins.
    """
    _, rows, columns = self.design.token_grid
    space = self.space.embedding[...].reshape(1, 1, rows, columns, -1)
    time_BtD = self.time.embedding[...][None, :frames]
    if stacked_B is not None:
      stacked_B11 = stacked_B[:, None, None]
      time_BtD = jnp.where(stacked_B11, time_BtD[:, :1], time_BtD)
    return space + time_BtD[:, :, None, None]

  def _condition(self, time_Bf, class_Bf, low_time_B) -> jax.Array:
    """What modulates the layers, (B, f, D): time and class."""
    waves_BfK = modulation.waves(time_Bf, modulation.WAVES)
    if self.finer is not None:  # each of the two times has half of the waves
      low_B1K = modulation.waves(low_time_B[:, None], modulation.WAVES // 2)
      low_BfK = jnp.broadcast_to(
        low_B1K, (*time_Bf.shape, modulation.WAVES // 2)
      )
      half_BfK = modulation.waves(time_Bf, modulation.WAVES // 2)
      waves_BfK = jnp.concatenate([half_BfK, low_BfK], -1)
    h_BfD = self.time_in(waves_BfK.astype(self.time_in.kernel[...].dtype))
    h_BfD = self.time_out(jax.nn.silu(h_BfD))
    return h_BfD + attention.look_up(self.classes, class_Bf)

  def _run_pairs(self, x_BthwD, condition_BfD, stacked_B, text_BfMD):
    shared_BfM = None
    if self.shared is not None:
      shared_BfM = self.shared(jax.nn.silu(condition_BfD))

    def body(x_BthwD, pair):
      conditions = (shared_BfM, condition_BfD)
      return pair(x_BthwD, conditions, stacked_B, text_BfMD), None

    body = remat_lib.apply(body, self.size.remat, in_scan=not self.size.unroll)
    unroll = self.size.num_layers // 2 if self.size.unroll else 1
    return lax.scan(body, x_BthwD, self.pairs, unroll=unroll)[0]


class Pair(nnx.Module):
  """A layer within latent frames, and one within blocks of space and time."""

  def __init__(
    self, design: Design, size: attention.TransformerSize, rngs: nnx.Rngs
  ):
    spatial, space_time = design.pair_of_windows
    text = bool(design.text_width)
    self.spatial = Layer(design, size, spatial, text, rngs)
    text &= design.text_layers == "all"
    self.space_time = Layer(design, size, space_time, text, rngs)

  def __call__(self, x_BthwD, conditions, stacked_B, text_BfMD):
    x_BthwD = self.spatial(x_BthwD, conditions, None, text_BfMD)
    if x_BthwD.shape[1] == 1:  # images alone
      stacked_B = jnp.ones(len(x_BthwD), bool)
    return self.space_time(x_BthwD, conditions, stacked_B, text_BfMD)


class Layer(nnx.Module):
  """Attention within windows and an MLP, both modulated and gated."""

  def __init__(
    self,
    design: Design,
    size: attention.TransformerSize,
    window: windows.Window,
    text: bool,
    rngs: nnx.Rngs,
  ):
    """Raises ValueError unless the heads divide the width."""
    width, heads = size.width, size.num_heads
    if width % heads:
      raise ValueError(
        f"denoiser.width={width} must be a multiple of"
        f" denoiser.num_heads={heads}"
      )
    self.norm = modulation.plain_norm(width, rngs)
    self.qkv = nnx.LinearGeneral(width, (3, heads, width // heads), rngs=rngs)
    self.query_norm = attention.layer_norm(width // heads, rngs)
    self.key_norm = attention.layer_norm(width // heads, rngs)
    places = math.prod(2 * side - 1 for side in window)
    self.bias = nnx.Embed(
      places, heads, embedding_init=nnx.initializers.normal(0.02), rngs=rngs
    )
    self.out = nnx.LinearGeneral(
      (heads, width // heads), width, axis=(-2, -1), rngs=rngs
    )
    self.mlp_in = nnx.Linear(width, size.mlp_width, rngs=rngs)
    self.mlp_out = nnx.Linear(size.mlp_width, width, rngs=rngs)
    self.modulation = modulation.LayerModulation(width, design.lora_rank, rngs)
    self.cross = CrossAttention(size, rngs) if text else None
    self.window, self.size = window, size

  def __call__(
    self,
    x_BthwD: jax.Array,
    conditions: tuple[jax.Array | None, jax.Array],
    stacked_B: jax.Array | None,
    text_BfMD: jax.Array | None,
  ) -> jax.Array:
    parts = self.modulation(*conditions)
    h_BthwD = modulation.modulate(self.norm(x_BthwD), *parts[:2])
    x_BthwD += parts[2] * self.out(self._attend(h_BthwD, stacked_B))
    if self.cross is not None and text_BfMD is not None:
      x_BthwD += self.cross(x_BthwD, text_BfMD, self.window)
    h_BthwD = modulation.modulate(self.norm(x_BthwD), *parts[3:5])
    h_BthwD = self.mlp_out(jax.nn.gelu(self.mlp_in(h_BthwD)))
    return x_BthwD + parts[5] * h_BthwD

  def _attend(self, h_BthwD, stacked_B) -> jax.Array:
    """What each token gathers in its window, (B, t, h, w, A, d).

    A token of a stack of images gathers its value alone.
    """
    shape = h_BthwD.shape[:4]
    qkv = self.qkv(h_BthwD)
    q, k, v = (qkv[:, :, :, :, i] for i in range(3))
    if stacked_B is not None and shape[1] == 1:
      return v
    q, k = self.query_norm(q), self.key_norm(k)
    in_windows = lambda part: windows.to_windows(part, self.window)
    y = attend.attend(
      in_windows(q),
      in_windows(k),
      in_windows(v),
      form=self.size.attention,
      bias_ANS=self._bias(),
    )
    y = windows.from_windows(y, self.window, shape)
    if stacked_B is None:
      return y
    return jnp.where(stacked_B.reshape(-1, *(1,) * 5), v, y)

  def _bias(self) -> jax.Array:
    """Bias (A, N, N) of the scores by where a key is, seen from a query."""
    places_NN = jnp.asarray(windows.relative_places(self.window))
    return attention.look_up(self.bias, places_NN).transpose(2, 0, 1)


class CrossAttention(nnx.Module):
  """Attention of a window's tokens to themselves and to text."""

  def __init__(self, size: attention.TransformerSize, rngs: nnx.Rngs):
    width, heads = size.width, size.num_heads
    self.norm = attention.layer_norm(width, rngs)
    self.qkv = nnx.LinearGeneral(width, (3, heads, width // heads), rngs=rngs)
    self.query_norm = attention.layer_norm(width // heads, rngs)
    self.key_norm = attention.layer_norm(width // heads, rngs)
    # Zeros, so that a new network is its final layer, as without text.
    self.out = nnx.LinearGeneral(
      (heads, width // heads),
      width,
      axis=(-2, -1),
      kernel_init=nnx.initializers.zeros,
      rngs=rngs,
    )
    self.size = size

  def __call__(
    self, x_BthwD: jax.Array, text_BfMD: jax.Array, window: windows.Window
  ) -> jax.Array:
    """What is added to the tokens; one text a frame needs windows of one."""
    qkv = self.qkv(self.norm(x_BthwD))
    q, k, v = (windows.to_windows(qkv[:, :, :, :, i], window) for i in range(3))
    # A text is seen from each window of its frame, or of the whole clip.
    text = self.qkv(text_BfMD)
    text = text.reshape(-1, *text.shape[2:])
    text = jnp.repeat(text, len(q) // len(text), axis=0)
    text_k, text_v = text[:, :, 1], text[:, :, 2]
    y = attend.attend(
      self.query_norm(q),
      self.key_norm(jnp.concatenate([k, text_k], 1)),
      jnp.concatenate([v, text_v], 1),
      form=self.size.attention,
    )
    return self.out(windows.from_windows(y, window, x_BthwD.shape[:4]))


def _finer(channels: int, rngs: nnx.Rngs) -> nnx.Conv:
  """Makes four latents of each, which become a square of 2 x 2."""
  return nnx.Conv(channels, 4 * channels, (3, 3), rngs=rngs)
