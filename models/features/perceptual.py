"""Perceptual distances of frames: a network by name, and its weights.

`resnet50` is the papers' network; `lpips_vgg` is the one that most later
tokenizers use. Their weights are not shipped: the user supplies them.
`efficientnet_lite0` and `squeezenet` are substitutes whose weights packages
bring.
"""

from collections.abc import Callable
import functools
from typing import Any

import jax

from models import network
from models.features import efficientnet_lite0
from models.features import lpips
from models.features import resnet
from models.features import squeezenet
from models.weights import safetensors_file
from storage import stores

Distance = Callable[[Any, jax.Array, jax.Array], jax.Array]

_NETWORKS = {
  "resnet50": resnet.ResNet50,
  "lpips_vgg": lpips.LpipsVgg,
  "efficientnet_lite0": efficientnet_lite0.EfficientNetLite0,
  "squeezenet": squeezenet.SqueezeNet,
}
_WHERE_TO_GET = {
  "resnet50": (
    "resnet50-0676ba61.pth (torchvision, IMAGENET1K_V1, from"
    " https://download.pytorch.org/models/), converted once by"
    " python -m models.weights.convert --network=resnet50"
    " --input=resnet50-0676ba61.pth --output=resnet50.safetensors"
  ),
  "lpips_vgg": (
    "vgg16-397923af.pth (torchvision, IMAGENET1K_V1, from"
    " https://download.pytorch.org/models/) and the v0.1 heads vgg.pth (in the"
    " lpips package and https://github.com/richzhang/PerceptualSimilarity,"
    " lpips/weights/v0.1), converted once by python -m models.weights.convert"
    " --network=lpips_vgg --input=vgg16-397923af.pth --lin=vgg.pth"
    " --output=lpips_vgg.safetensors"
  ),
  "efficientnet_lite0": efficientnet_lite0.NETWORK.how_to_get(
    "efficientnet_lite0"
  ),
  "squeezenet": squeezenet.NETWORK.how_to_get("squeezenet"),
}


def load(name: str, path: str) -> tuple[Distance, Any]:
  """(distance, params) of a network, its weights read from a file.

  `distance(params, target_BHWC, output_BHWC)` takes frames (B, H, W, 3) in
  [0, 1] and gives one number per frame, (B,). `path` is a file that
  `models.weights.convert` wrote.

  Raises:
    ValueError: the name is unknown, or `path` is no file of this network.
  """
  if name not in _NETWORKS:
    raise ValueError(
      f"loss.perceptual_network={name!r} must be one of {sorted(_NETWORKS)} or"
      " 'off'"
    )
  if not path or not stores.is_file(path):
    raise ValueError(
      f"loss.perceptual_weights={path!r} must be a file with the weights of"
      f" loss.perceptual_network={name!r}: {_WHERE_TO_GET[name]}; or switch the"
      " term off with loss.perceptual_network=off"
    )
  distance, abstract = describe(name)
  return distance, safetensors_file.load(path, name, abstract)


def describe(name: str) -> tuple[Distance, Any]:
  """(distance, params) as `load`, with shapes in place of the weights."""
  net, abstract = define(name)
  return functools.partial(net, method="distance"), abstract


def define(name: str) -> tuple[network.Network, Any]:
  """(network, shapes of its parameters), described without any device."""
  net = network.define(lambda rngs: _NETWORKS[name](rngs=rngs))
  return net, jax.eval_shape(lambda: net.init(jax.random.key(0)))
