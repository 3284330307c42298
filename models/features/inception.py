"""Inception-v3 as FID means it: TensorFlow's graph of 2015-12-05.

Szegedy et al. 2015 (arXiv 1512.00567), with the graph's own traits: 1008
outputs, average pools that leave out the padding, a max pool in the last block,
and an epsilon of 1e-3. Blocks and layers have the names of the state dict that
pytorch-fid and torch-fidelity publish.
"""

from collections.abc import Sequence
import functools
import typing
from typing import Any

from flax import nnx
import jax
from jax import lax
import jax.numpy as jnp

from models.features import feature_network
from models.features import frozen_batch_norm
from models.features import resize

_SIZE = 299  # pixels of the graph's input
_BATCH_NORM_EPSILON = 1e-3
_SPATIAL_CHANNELS = 7  # number of channels of mixed_6/conv that sFID takes
DIMS = {
  "pool3": 2048,
  "spatial": 17 * 17 * _SPATIAL_CHANNELS,
  "logits": 1008,
  "logits_with_bias": 1008,
}

# Layers as (name, input channels, width, kernel, stride, padding).
STEM = (
  ("Conv2d_1a_3x3", 3, 32, (3, 3), 2, "VALID"),
  ("Conv2d_2a_3x3", 32, 32, (3, 3), 1, "VALID"),
  ("Conv2d_2b_3x3", 32, 64, (3, 3), 1, "SAME"),
  ("Conv2d_3b_1x1", 64, 80, (1, 1), 1, "VALID"),
  ("Conv2d_4a_3x3", 80, 192, (3, 3), 1, "VALID"),
)
_POOLED_AFTER = ("Conv2d_2b_3x3", "Conv2d_4a_3x3")

# A block maps names of branches to chains of layers (width, kernel height,
# kernel width). A chain may end in a list of two layers, which both read the
# layer before. The outputs of the branches are joined in this order.
Branches = dict[str, Sequence[Any]]


def _mixed_5(pool_width: int) -> Branches:
  return {
    "branch1x1": [(64, 1, 1)],
    "branch5x5": [(48, 1, 1), (64, 5, 5)],
    "branch3x3dbl": [(64, 1, 1), (96, 3, 3), (96, 3, 3)],
    "branch_pool": [(pool_width, 1, 1)],
  }


def _mixed_6(width: int) -> Branches:
  return {
    "branch1x1": [(192, 1, 1)],
    "branch7x7": [(width, 1, 1), (width, 1, 7), (192, 7, 1)],
    "branch7x7dbl": [
      (width, 1, 1),
      (width, 7, 1),
      (width, 1, 7),
      (width, 7, 1),
      (192, 1, 7),
    ],
    "branch_pool": [(192, 1, 1)],
  }


def _mixed_7() -> Branches:
  both = [(384, 1, 3), (384, 3, 1)]
  return {
    "branch1x1": [(320, 1, 1)],
    "branch3x3": [(384, 1, 1), both],
    "branch3x3dbl": [(448, 1, 1), (384, 3, 3), both],
    "branch_pool": [(192, 1, 1)],
  }


# Blocks as (input channels, pool, branches). Those with the pool "halve" end
# every branch with stride 2, and join a max pool of their input as it is.
BLOCKS: dict[str, tuple[int, str, Branches]] = {
  "Mixed_5b": (192, "average", _mixed_5(32)),
  "Mixed_5c": (256, "average", _mixed_5(64)),
  "Mixed_5d": (288, "average", _mixed_5(64)),
  "Mixed_6a": (
    288,
    "halve",
    {
      "branch3x3": [(384, 3, 3)],
      "branch3x3dbl": [(64, 1, 1), (96, 3, 3), (96, 3, 3)],
    },
  ),
  "Mixed_6b": (768, "average", _mixed_6(128)),
  "Mixed_6c": (768, "average", _mixed_6(160)),
  "Mixed_6d": (768, "average", _mixed_6(160)),
  "Mixed_6e": (768, "average", _mixed_6(192)),
  "Mixed_7a": (
    768,
    "halve",
    {
      "branch3x3": [(192, 1, 1), (320, 3, 3)],
      "branch7x7x3": [(192, 1, 1), (192, 1, 7), (192, 7, 1), (192, 3, 3)],
    },
  ),
  "Mixed_7b": (1280, "average", _mixed_7()),
  "Mixed_7c": (2048, "max", _mixed_7()),
}


class InceptionV3(nnx.Module):
  """Inception-v3 on images (B, H, W, 3) in [0, 255], uint8 or float."""

  def __init__(self, *, rngs: nnx.Rngs):
    for name, *layer in STEM:
      setattr(self, name, _Unit(*layer))
    for name, (channels, pool, branches) in BLOCKS.items():
      setattr(self, name, _Block(channels, pool, branches))
    self.fc = nnx.Linear(2048, 1008, rngs=rngs)

  def __call__(self, images_BHWC: jax.Array) -> dict[str, jax.Array]:
    """Features in float32, by name.

    FID compares `pool3` (B, 2048), sFID `spatial` (B, 2023): channels 0 to 6 of
    mixed_6/conv, flattened in the order height, width, channel. `logits`
    (B, 1008) are without the bias, as the Inception Score takes them;
    `logits_with_bias` are the output of the graph.
    """
    with jax.default_matmul_precision("highest"):
      x = (resize.tf1_bilinear(images_BHWC, _SIZE, _SIZE) - 128.0) / 128.0
      for name, *_ in STEM:
        x = getattr(self, name)(x)
        if name in _POOLED_AFTER:
          x = _max_pool(x, 2, "VALID")
      for name in BLOCKS:
        if name == "Mixed_6d":
          spatial_BHWC = getattr(self, name).branch1x1(x)[
            ..., :_SPATIAL_CHANNELS
          ]
        x = getattr(self, name)(x)
      pool3_BC = x.mean((1, 2))
      logits_BC = pool3_BC @ self.fc.kernel[...]
    bias_C = typing.cast(nnx.Param, self.fc.bias)[...]
    return {
      "pool3": pool3_BC,
      "spatial": spatial_BHWC.reshape(len(x), -1),
      "logits": logits_BC,
      "logits_with_bias": logits_BC + bias_C[None],
    }


class _Block(nnx.Module):
  """Branches whose outputs are joined along the channels."""

  def __init__(self, channels: int, pool: str, branches: Branches):
    self.pool, self.chains = pool, []
    for branch, chain in branches.items():
      width, names = channels, []
      for names_here, layers in named_layers(branch, chain):
        last = len(names) == len(chain) - 1
        stride = 2 if pool == "halve" and last else 1
        padding = "VALID" if stride == 2 else "SAME"
        for name, (out, *kernel) in zip(names_here, layers, strict=True):
          unit = _Unit(width, out, kernel, stride, padding)
          setattr(self, name, unit)
        width = out
        names.append(names_here)
      self.chains.append((branch, tuple(names)))
    self.chains = tuple(self.chains)

  def __call__(self, x_BHWC: jax.Array) -> jax.Array:
    outputs = []
    for branch, chain in self.chains:
      h = _POOLS[self.pool](x_BHWC) if branch == "branch_pool" else x_BHWC
      for names in chain:
        parts = [getattr(self, name)(h) for name in names]
        h = parts[0] if len(parts) == 1 else jnp.concatenate(parts, -1)
      outputs.append(h)
    if self.pool == "halve":
      outputs.append(_max_pool(x_BHWC, 2, "VALID"))
    return jnp.concatenate(outputs, -1)


def named_layers(branch: str, chain: Sequence[Any]):
  """Yields (names, layers) of each member of a chain: one layer, or two."""
  for i, layers in enumerate(chain, start=1):
    name = branch if len(chain) == 1 else f"{branch}_{i}"
    if isinstance(layers, list):
      yield (f"{name}a", f"{name}b"), layers
    else:
      yield (name,), [layers]


class _Unit(frozen_batch_norm.FrozenBatchNorm):
  """Convolution, frozen batch norm, ReLU.

  It computes nothing useful until weights are loaded.
  """

  def __init__(self, channels, width, kernel, stride, padding):
    super().__init__(width, _BATCH_NORM_EPSILON)
    self.stride, self.padding = stride, padding
    self.kernel = nnx.Param(jnp.zeros((*kernel, channels, width)))

  def __call__(self, x_BHWC: jax.Array) -> jax.Array:
    x_BHWC = lax.conv_general_dilated(
      x_BHWC,
      self.kernel[...],
      (self.stride, self.stride),
      self.padding,
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    x_BHWC = self.normalize(x_BHWC)
    return jax.nn.relu(x_BHWC)


def _max_pool(x_BHWC: jax.Array, stride: int, padding: str) -> jax.Array:
  return nnx.max_pool(x_BHWC, (3, 3), (stride, stride), padding)


def _average_pool(x_BHWC: jax.Array) -> jax.Array:
  """Mean of 3 x 3 pixels; at the border, of those that exist."""
  return nnx.avg_pool(x_BHWC, (3, 3), (1, 1), "SAME", count_include_pad=False)


_POOLS = {
  "average": _average_pool,
  "max": lambda x_BHWC: _max_pool(x_BHWC, 1, "SAME"),
}


def _torch_name(ours: str) -> str:
  if ours.startswith("fc."):
    return ours.replace("kernel", "weight")
  return feature_network.rename(
    ours, lambda x: x, feature_network.torch_leaves(".conv", ".bn")
  )


def _tensorflow_name(ours: str) -> str:
  if ours.startswith("fc."):
    return {"fc.kernel": "softmax/weights", "fc.bias": "softmax/biases"}[ours]
  leaves = {
    "kernel": "/conv2d_params",
    "scale": "/batchnorm/gamma",
    "bias": "/batchnorm/beta",
    "mean": "/batchnorm/moving_mean",
    "variance": "/batchnorm/moving_variance",
  }
  return feature_network.rename(ours, lambda x: _tensorflow_scopes()[x], leaves)


@functools.cache
def _tensorflow_scopes() -> dict[str, str]:
  """Scope of each layer of Inception in the graph of 2015.

  Layers, blocks and branches are numbered ("conv", "conv_1"). A branch that is
  a single convolution without a pool has no scope of its own.
  """
  numbered = lambda name, i: f"{name}_{i}" if i else name
  scopes = {name: numbered("conv", i) for i, (name, *_) in enumerate(STEM)}
  for i, (block, (_, _, branches)) in enumerate(BLOCKS.items()):
    towers = 0
    for branch, chain in branches.items():
      scope = numbered("mixed", i)
      if len(chain) > 1 or branch == "branch_pool":
        scope += f"/{numbered('tower', towers)}"
        towers += 1
      for j, (names, _) in enumerate(named_layers(branch, chain)):
        if len(names) > 1:  # side by side
          for k, name in enumerate(names):
            scopes[f"{block}.{name}"] = f"{scope}/mixed/{numbered('conv', k)}"
        else:
          scopes[f"{block}.{names[0]}"] = f"{scope}/{numbered('conv', j)}"
  return scopes


NETWORK = feature_network.FeatureNetwork(
  make=InceptionV3,
  dims={name: DIMS[name] for name in ("pool3", "spatial", "logits")},
  ndim=4,
  clips_at_once=64,
  pixels="TF1 bilinear to 299, (x - 128) / 128",
  where_to_get="weights-inception-2015-12-05-6726825d.pth (from the releases of"
  " https://github.com/toshas/torch-fidelity, v0.2.0)",
  sources={
    "torch": feature_network.Source(_torch_name, torch_layout=True),
    "tensorflow": feature_network.Source(_tensorflow_name),
  },
  statistics={"": "pool3", "_s": "spatial"},
)
