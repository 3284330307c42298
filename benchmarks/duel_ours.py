"""Our side of `benchmarks/duel.py`: the step of training, as it is run."""

from collections.abc import Mapping
from typing import Any

import jax
import ml_collections
import numpy as np

from magvit import algorithm as algorithm_lib
from magvit import mesh as mesh_lib
from magvit import trained as trained_lib
from magvit.tokenizer import describe
from models import network

# Fields that count steps of the config's num_steps, and the least of each. A
# duel is longer or shorter than the config's training, and its schedules are
# stretched with it.
_STRETCHED = {
  "optimizer.warmup_steps": 1,
  "loss.entropy_annealing_steps": 1,
  "loss.adversarial_start": 0,
}


def stretch(
  config: ml_collections.ConfigDict, num_steps: int
) -> ml_collections.ConfigDict:
  """The config with its schedules stretched over another number of steps."""
  values = config.to_dict()
  fields = {"num_steps": num_steps}
  for field, least in _STRETCHED.items():
    section, name = field.split(".")
    steps = round(values[section][name] * num_steps / config.num_steps)
    fields[field] = min(max(steps, least), num_steps - 1)
  return trained_lib.with_fields(config, fields)


def count(config: ml_collections.ConfigDict) -> int:
  """Number of parameters of the config's tokenizer."""
  tokenizer = describe.define_tokenizer(config)
  return network.count(jax.eval_shape(tokenizer.init, jax.random.key(0)))


class Ours:
  """The tokenizer of a config on one device."""

  def __init__(self, config: ml_collections.ConfigDict):
    self._config = config
    self._mesh = mesh_lib.make_mesh(config.mesh, jax.devices()[:1])
    self._num_steps = 0
    self._step = self._reconstruct = None  # compiled where first called

  def begin(self, num_steps: int) -> None:
    # Built anew, for a step donates the state and the frozen networks in it.
    config = stretch(self._config, num_steps)
    self._algorithm = trained_lib.build(config, self._mesh)
    if num_steps != self._num_steps:
      self._num_steps, self._step = num_steps, None
    first, self._key = jax.random.split(jax.random.key(self._config.seed))
    self._state = algorithm_lib.create(self._algorithm, self._mesh, first)
    self._steps = 0

  def train(self, batch: Mapping[str, np.ndarray]) -> None:
    placed = mesh_lib.place_batch(dict(batch), self._mesh)
    if self._step is None:
      self._step = jax.jit(
        self._algorithm.step,
        donate_argnums=0,
        out_shardings=(
          algorithm_lib.shardings_of(self._state),
          mesh_lib.replicated(self._mesh),
        ),
      )
    self._steps += 1
    key = jax.random.fold_in(self._key, self._steps)
    self._state, metrics = self._step(self._state, placed, key)
    jax.block_until_ready(metrics)

  def reconstruct(
    self, video_BTHWC: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray]:
    if self._reconstruct is None:
      self._reconstruct = jax.jit(self._algorithm.predict["reconstruct"])
    params = {"tokenizer": self._state.predict_params()["tokenizer"]}
    output = self._reconstruct(params, {"video": video_BTHWC}, None)
    return np.asarray(output["video"]), np.asarray(output["ids"])

  def facts(self) -> dict[str, Any]:
    config = self._algorithm.config
    d_params = self._state.params["discriminator"]
    return {
      "parameters": network.count(self._state.params["tokenizer"]),
      "discriminator_parameters": network.count(d_params),
      "device": self._mesh.devices.flat[0].device_kind,
      "jax": jax.__version__,
      "dtype": config.tokenizer.dtype,
      "averaged_over": config.ema_decay,
      "recipe": {
        name: config[name].to_dict()
        for name in ("tokenizer", "quantizer", "loss", "optimizer")
      },
    }
