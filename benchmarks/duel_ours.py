"""Our side of `benchmarks/duel.py`: the tokenizer of a config."""

from typing import Any

import jax
import ml_collections
import numpy as np

from benchmarks import clocked_algorithm
from magvit.tokenizer import describe
from models import network


def count(config: ml_collections.ConfigDict) -> int:
  """Number of parameters of the config's tokenizer."""
  tokenizer = describe.define_tokenizer(config)
  return network.count(jax.eval_shape(tokenizer.init, jax.random.key(0)))


class Ours(clocked_algorithm.Trainee):
  """The tokenizer of a config on one device."""

  _reconstruct = None  # compiled where first called

  def reconstruct(
    self, video_BTHWC: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray]:
    if self._reconstruct is None:
      self._reconstruct = jax.jit(self.algorithm.predict["reconstruct"])
    params = {"tokenizer": self.state.predict_params()["tokenizer"]}
    output = self._reconstruct(params, {"video": video_BTHWC}, None)
    return np.asarray(output["video"]), np.asarray(output["ids"])

  def facts(self) -> dict[str, Any]:
    config = self.algorithm.config
    d_params = self.state.params["discriminator"]
    return {
      "parameters": network.count(self.state.params["tokenizer"]),
      "discriminator_parameters": network.count(d_params),
      "device": self.mesh.devices.flat[0].device_kind,
      "jax": jax.__version__,
      "dtype": config.tokenizer.dtype,
      "averaged_over": config.ema_decay,
      "recipe": {
        name: config[name].to_dict()
        for name in ("tokenizer", "quantizer", "loss", "optimizer")
      },
    }
