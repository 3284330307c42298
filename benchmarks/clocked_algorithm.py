"""The step of an algorithm as it is run, for training by the clock."""

from collections.abc import Mapping

import jax
import ml_collections
import numpy as np

from magvit import algorithm as algorithm_lib
from magvit import mesh as mesh_lib
from magvit import trained as trained_lib

# Fields that count steps of the config's num_steps, and the least of each. A
# training by the clock is longer or shorter than the config's, and its
# schedules are stretched with it.
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
    if section not in values:  # generators have no section of losses
      continue
    steps = round(values[section][name] * num_steps / config.num_steps)
    fields[field] = min(max(steps, least), num_steps - 1)
  return trained_lib.with_fields(config, fields)


class Trainee:
  """The algorithm of a config on one device."""

  def __init__(self, config: ml_collections.ConfigDict):
    self.config = config
    self.mesh = mesh_lib.make_mesh(config.mesh, jax.devices()[:1])
    self._num_steps = 0
    self._step = None  # compiled where first called

  def begin(self, num_steps: int) -> None:
    """Draws the first weights, for a training of so many steps."""
    # Built anew, for a step donates the state and the frozen networks in it.
    config = stretch(self.config, num_steps)
    self.algorithm = trained_lib.build(config, self.mesh).measured(self.mesh)
    if num_steps != self._num_steps:
      self._num_steps, self._step = num_steps, None
    first, self._key = jax.random.split(jax.random.key(self.config.seed))
    self.state = algorithm_lib.create(self.algorithm, self.mesh, first)
    self.steps = 0

  def train(self, batch: Mapping[str, np.ndarray]) -> None:
    """Trains one step, and waits for the end of it."""
    placed = mesh_lib.place_batch(dict(batch), self.mesh)
    if self._step is None:
      self._step = jax.jit(
        self.algorithm.step,
        donate_argnums=0,
        out_shardings=(
          algorithm_lib.shardings_of(self.state),
          mesh_lib.replicated(self.mesh),
        ),
      )
    self.steps += 1
    key = jax.random.fold_in(self._key, self.steps)
    self.state, metrics = self._step(self.state, placed, key)
    jax.block_until_ready(metrics)
