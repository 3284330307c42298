"""Generators of latents: one network on the latents of a frozen tokenizer."""

import dataclasses
from typing import Any
from typing import Self

import jax
from jax import lax
import jax.numpy as jnp
from jax.sharding import Mesh
import ml_collections
import numpy as np
import optax

from magvit import algorithm as algorithm_lib
from magvit import optimizer
from magvit.algorithm import TrainState
from magvit.generators import generator
from magvit.generators import latents as latents_lib
from magvit.generators import tasks as tasks_lib
from magvit.generators import tokens as tokens_lib
from models import network
from models.tokenizer import tokenizer as tokenizer_network


@dataclasses.dataclass(frozen=True, eq=False)
class LatentGenerator(generator.Generator):
  """A generator of latents that keeps an average of its network.

  A subclass adds `build`, `step` and `sample`. `facts.network` is the name of
  the network in params.
  """

  latents: latents_lib.Latents
  denoiser: network.Network
  given_Sthw: np.ndarray  # bool: latents that a task is given
  kept_Sthw: np.ndarray  # bool: given latents that sampling must not change

  @property
  def frozen(self) -> dict[str, Any]:
    return self.latents.frozen

  def measured(self, mesh: Mesh) -> Self:
    latents = self.latents.measured(self.config, mesh)
    return dataclasses.replace(self, latents=latents)

  def init(self, key: jax.Array) -> TrainState:
    name, params = self.facts.network, self.denoiser.init(key)
    state = algorithm_lib.first_state(name, params, self.adam)
    return state.replace(ema={name: algorithm_lib.copy(params)})

  def tokenized(
    self, params: Any, batch: Any, key: jax.Array
  ) -> dict[str, jax.Array]:
    del key
    video_BTHWC = tokenizer_network.to_float(batch["video"])
    z_BthwC = self.latents.encode(params, video_BTHWC)
    return {"video": self.latents.decode(params, z_BthwC)["video"]}

  def condition(
    self, params: Any, batch: Any, task: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    """What a task is given of a batch's clips, on the grid of latents.

    Args:
      params: with the entries of `frozen`.
      batch: clips, or stored tokens.
      task: int32 (), place of the task in `tasks.names`.

    Returns:
      (latents of the task's condition clip, float32 (B, t, h, w, C), 0 where
      nothing is given; which are given, bool (B, t, h, w)). Those of
      `kept_Sthw` are the true clip's; others have seen what was filled in.
    """
    given_thw = jnp.asarray(self.given_Sthw)[task]
    if "ids" in batch:
      stored = [
        self.latents.tokens.stored_condition(batch, name)
        for name in self.tasks.names
      ]
      z_BthwC = self.latents.from_ids(jnp.stack(stored)[task])
    else:
      z_BthwC = self._condition_of_clips(params, batch["video"], task)
    z_BthwC = jnp.where(given_thw[None, ..., None], z_BthwC, 0.0)
    return z_BthwC, jnp.broadcast_to(given_thw, z_BthwC.shape[:-1])

  def _condition_of_clips(
    self, params: Any, video_BTHWC: jax.Array, task: jax.Array
  ) -> jax.Array:
    """Latents (B, t, h, w, C) of the condition clip; zeros without a clip."""
    video_BTHWC = tokenizer_network.to_float(video_BTHWC)
    filled_BTHWC = self.tasks.fill(
      task, video_BTHWC, self.config.condition_frames
    )
    grid = (video_BTHWC.shape[0], *self.latents.shape, self.latents.channels)
    return lax.cond(
      jnp.asarray(self.given_Sthw.any((1, 2, 3)))[task],
      lambda: self.latents.encode(params, filled_BTHWC),
      lambda: jnp.zeros(grid),
    )

  def descend(
    self, state: TrainState, gradient: Any, metrics: algorithm_lib.Metrics
  ) -> tuple[TrainState, algorithm_lib.Metrics]:
    """The state after a step against the gradient, whose norm is a metric."""
    metrics = {**metrics, "gradient_norm": optax.tree.norm(gradient)}
    name = self.facts.network
    state = algorithm_lib.descend(state, name, gradient, self.adam)
    average = algorithm_lib.update_ema(
      state.ema[name], state.params[name], self.config.ema_decay
    )
    return state.replace(ema={name: average}), metrics


def open_parts(
  config: ml_collections.ConfigDict,
  mesh: Mesh,
  abstract: bool = False,
  joint_images: bool = False,
) -> dict[str, Any]:
  """The fields of a `LatentGenerator`, all but `denoiser`, for its `build`.

  `joint_images` says whether it trains on joint images.

  Raises:
    ValueError: as `open_latents`; given frames that are no whole latents; joint
      images that are not trained.
  """
  if not joint_images:
    tokens_lib.check_no_images(config)
  latents = latents_lib.open_latents(config, mesh, abstract)
  sizes, table = latents.tokens.sizes, tasks_lib.TaskTable.from_config(config)
  tasks_lib.check_prediction(config, sizes.time, sizes.causal)
  region = lambda function: table.latents(
    function, latents.shape, config.condition_frames, sizes.time, sizes.causal
  )
  return {
    "config": config,
    "tasks": table,
    "adam": optimizer.make_optimizer(config.optimizer, config.num_steps),
    "latents": latents,
    "given_Sthw": region(tasks_lib.given_latents),
    "kept_Sthw": region(tasks_lib.kept_latents),
  }
