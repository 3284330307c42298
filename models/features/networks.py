"""The networks whose features the evaluation compares, by name."""

import functools
from typing import Any

import jax

from models import network
from models.features import c3d
from models.features import efficientnet_lite0
from models.features import feature_network
from models.features import i3d
from models.features import inception
from models.features import squeezenet

NETWORKS: dict[str, feature_network.FeatureNetwork] = {
  "inception": inception.NETWORK,
  "i3d": i3d.NETWORK,
  "c3d": c3d.NETWORK,
  "efficientnet_lite0": efficientnet_lite0.NETWORK,
  "squeezenet": squeezenet.NETWORK,
}


@functools.cache
def define(name: str) -> tuple[network.Network, Any]:
  """(network, shapes of its parameters), described without any device."""
  net = network.define(lambda rngs: NETWORKS[name].make(rngs=rngs))
  return net, jax.eval_shape(lambda: net.init(jax.random.key(0)))
