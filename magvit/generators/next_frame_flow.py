"""Algorithm: next-frame flow, one latent frame after the other.

xAR (arXiv 2502.20388) with a latent frame for a cell: flow matching of every
frame at a noise level of its own, given the class and the frames before it,
which are noisy in training and clean in sampling. Tasks are those whose given
latents are first frames, exact under a causal tokenizer: they are clean, and
carry no loss. Finished frames are kept as keys and values, so that a video may
go on without end in constant memory.
"""

from collections.abc import Iterator
import dataclasses
from typing import Any
from typing import ClassVar
from typing import Self

from flax import struct
import jax
from jax import lax
import jax.numpy as jnp
from jax.sharding import Mesh
import ml_collections
import numpy as np

from magvit import algorithm as algorithm_lib
from magvit.algorithm import TrainState
from magvit.generators import latent_generator
from magvit.generators import latents as latents_lib
from magvit.generators import noise as noise_lib
from magvit.generators import sampling
from magvit.generators import tasks as tasks_lib
from magvit.generators import tokens as tokens_lib
from models import network
from models.transformers import attention
from models.transformers import next_frame

_FLOW = noise_lib.FlowMatching()
_CLEAN = 0.0  # the time of finished frames


class Noisy(struct.PyTreeNode):
  """Clips and the noise that is mixed into each of their frames."""

  z_BthwC: jax.Array  # float32: the true latents
  noise_BthwC: jax.Array  # float32: standard normal
  time_Bt: jax.Array  # float32 in 0..1; 0 is clean
  weight_Bt: jax.Array  # float32: of a frame in the loss; 1 in the mean
  class_B: jax.Array  # int32: the class that the network is told
  first_frame_B: jax.Array  # int32: number of the first frame in its video


@dataclasses.dataclass(frozen=True, eq=False)
class NextFrameFlow(latent_generator.LatentGenerator):
  """A block-causal denoiser of latent frames."""

  facts: ClassVar = algorithm_lib.Facts(
    kind=algorithm_lib.GENERATOR,
    network="denoiser",
    section="denoiser",
    leading_metrics=("loss",),
    evaluators=("samples",),
    defining=latents_lib.DEFINING,
  )

  given_S: np.ndarray  # int32: number of leading frames that a task is given

  @classmethod
  def build(
    cls, config: ml_collections.ConfigDict, mesh: Mesh, abstract: bool = False
  ) -> Self:
    """Builds as `Algorithm.build` says, and reads the tokenizer.

    Raises:
      ValueError: no tokenizer, a clip it rejects, or fields that contradict it.
    """
    sampling.check_settings(config.sampling)
    _check_tasks(config)
    parts = latent_generator.open_parts(config, mesh, abstract)
    latents, given_Sthw = parts["latents"], parts["given_Sthw"]
    if given_Sthw.any() and not latents.tokens.sizes.causal:
      raise ValueError(
        f"tasks={dict(config.tasks)} of next-frame flow need a causal"
        f" tokenizer, and that in tokenizer_workdir={config.tokenizer_workdir}"
        " is not: name a causal one"
      )
    return cls(
      **parts,
      denoiser=define_denoiser(config, latents, mesh),
      given_S=given_Sthw.all((2, 3)).sum(-1).astype(np.int32),
    )

  def step(
    self, state: TrainState, batch: Any, key: jax.Array
  ) -> tuple[TrainState, algorithm_lib.Metrics]:
    task_key, noise_key = jax.random.split(key)
    task = self.tasks.draw(task_key)
    z_BthwC = self.latents.encode_batch(state.frozen, batch)
    gradient, metrics = algorithm_lib.mean_gradient(
      lambda params, noisy, key: self.loss(params, noisy),
      state.params["denoiser"],
      self.add_noise(noise_key, task, z_BthwC, batch["label"]),
      key,
      self.config.microbatches,
    )
    return self.descend(state, gradient, metrics)

  def add_noise(
    self,
    key: jax.Array,
    task: jax.Array,
    z_BthwC: jax.Array,
    label_B: jax.Array,
  ) -> Noisy:
    """Draws noise and its level for each frame, and the labels to drop.

    In a share `later_start` of the steps of tasks that are given nothing, a
    clip begins with its second frame: so begins all that is seen of a long
    video. The place that is free at the end has no weight.
    """
    drop_key, later_key, time_key, noise_key = jax.random.split(key, 4)
    given = jnp.asarray(self.given_S)[task]
    batch, frames = z_BthwC.shape[:2]
    later = jax.random.uniform(later_key) < self.config.later_start
    shift = (later & (given == 0) & (frames > 1)).astype(jnp.int32)
    frame_1t = jnp.arange(frames)[None]
    predicted_1t = (frame_1t >= given) & (frame_1t < frames - shift)
    weight_1t = predicted_1t / predicted_1t.mean()
    # Logit-normal, as in xAR.
    time_Bt = jax.nn.sigmoid(jax.random.normal(time_key, (batch, frames)))
    dropped_B = jax.random.uniform(drop_key, (batch,)) < self.config.label_drop
    return Noisy(
      z_BthwC=jnp.roll(z_BthwC, -shift, axis=1),
      noise_BthwC=jax.random.normal(noise_key, z_BthwC.shape),
      time_Bt=jnp.where(frame_1t < given, _CLEAN, time_Bt),
      weight_Bt=jnp.broadcast_to(weight_1t, time_Bt.shape),
      class_B=self.classes(task, label_B, dropped_B),
      first_frame_B=jnp.broadcast_to(shift, label_B.shape),
    )

  def loss(
    self, params: Any, noisy: Noisy
  ) -> tuple[jax.Array, algorithm_lib.Metrics]:
    """Squared error of the velocities of all frames that are not given."""
    x_BthwC = _FLOW.add(noisy.z_BthwC, noisy.noise_BthwC, noisy.time_Bt)
    output_BthwC = self.denoiser(
      params,
      x_BthwC,
      _FLOW.embedding(noisy.time_Bt),
      noisy.class_B,
      noisy.first_frame_B[0],
    )
    target_BthwC = _FLOW.target(noisy.z_BthwC, noisy.noise_BthwC, noisy.time_Bt)
    error_Bt = ((output_BthwC - target_BthwC) ** 2).mean((2, 3, 4))
    loss = (error_Bt * noisy.weight_Bt).mean()
    return loss, {"loss": loss}

  def sample(
    self, params: Any, batch: Any, key: jax.Array
  ) -> dict[str, jax.Array]:
    task, label_B = batch["task"], batch["label"]
    condition_BthwC, _ = self.condition(params, batch, task)
    given = jnp.asarray(self.given_S)[task]
    frames = condition_BthwC.shape[1]
    network_params = self.denoiser.cast(params["denoiser"])
    class_B = self.classes(task, label_B, False)

    def one_frame(cache, frame):
      z_B1hwC = lax.dynamic_slice_in_dim(condition_BthwC, frame, 1, axis=1)
      new = lambda: self.next_frame(
        network_params, jax.random.fold_in(key, frame), frame, class_B, cache
      )
      z_B1hwC = lax.cond(frame < given, lambda: z_B1hwC, new)
      cache = self.keep(network_params, z_B1hwC, frame, class_B, cache)
      return cache, z_B1hwC[:, 0]

    cache = self.empty_cache(network_params, label_B.shape[0], frames)
    _, z_tBhwC = lax.scan(one_frame, cache, jnp.arange(frames))
    return self.latents.decode(params, z_tBhwC.swapaxes(0, 1))

  def endless(
    self,
    params: Any,
    label_B: jax.Array,
    key: jax.Array,
    first_BthwC: jax.Array | None = None,
  ) -> Iterator[jax.Array]:
    """Yields latent frames (B, 1, h, w, C) for as long as one asks.

    One program and the last frames' keys and values: each new frame sees one
    frame fewer than a clip has, because clips that begin later (`later_start`)
    show no more.

    Args:
      params: as for `sample`.
      label_B: int32 classes; the number of classes means "no class".
      key: PRNG key.
      first_BthwC: latents that the video begins with; they are yielded, too.
    """
    network_params = self.denoiser.cast(params["denoiser"])
    window = max(self.latents.shape[0] - 1, 1)

    @jax.jit
    def new(params, frame, cache):
      cache = self.make_room(cache, frame)
      z_B1hwC = self.next_frame(
        params, jax.random.fold_in(key, frame), frame, label_B, cache
      )
      return z_B1hwC, self.keep(params, z_B1hwC, frame, label_B, cache)

    @jax.jit
    def given(params, z_B1hwC, frame, cache):
      cache = self.make_room(cache, frame)
      return self.keep(params, z_B1hwC, frame, label_B, cache)

    cache = self.empty_cache(network_params, label_B.shape[0], window)
    frame = 0
    if first_BthwC is not None:
      for z_B1hwC in jnp.split(first_BthwC, first_BthwC.shape[1], axis=1):
        cache = given(network_params, z_B1hwC, jnp.asarray(frame), cache)
        yield z_B1hwC
        frame += 1
    while True:
      z_B1hwC, cache = new(network_params, jnp.asarray(frame), cache)
      yield z_B1hwC
      frame += 1

  def empty_cache(
    self, params: Any, batch: int, frames: int
  ) -> attention.Cache:
    """Cache for this many frames; with guidance, of both halves."""
    halves = 2 if self.config.sampling.guidance else 1
    return self.denoiser(params, halves * batch, frames, method="empty_cache")

  def make_room(self, cache: attention.Cache, frame: jax.Array):
    """The cache without its oldest frame, if a frame finds it full."""
    tokens = self.latents.shape[1] * self.latents.shape[2]
    full = frame >= cache[0].shape[2] // tokens
    older = lambda x_LBSAd: jnp.roll(x_LBSAd, -tokens, axis=2)
    return lax.cond(
      full, lambda: jax.tree.map(older, cache), lambda: tuple(cache)
    )

  def next_frame(
    self,
    params: Any,
    key: jax.Array,
    frame: jax.Array,
    class_B: jax.Array,
    cache: attention.Cache,
  ) -> jax.Array:
    """Draws latents (B, 1, h, w, C) of a frame, by Euler's steps from noise."""
    settings = self.config.sampling
    times = _FLOW.times(settings.steps)
    shape = (
      class_B.shape[0],
      1,
      *self.latents.shape[1:],
      self.latents.channels,
    )

    def one_step(x_B1hwC, k):
      velocity = self._velocity(
        params, x_B1hwC, times[k], frame, class_B, cache
      )
      if settings.guidance:
        conditional, free = jnp.split(velocity, 2)
        guidance = sampling.guidance_at(
          k,
          settings.steps,
          settings.guidance,
          settings.guidance_schedule,
          settings.guidance_power,
        )
        (velocity,) = sampling.guide([conditional], [free], guidance)
      return _FLOW.step(x_B1hwC, velocity, times[k], times[k + 1]), None

    noise_B1hwC = jax.random.normal(key, shape)
    return lax.scan(one_step, noise_B1hwC, jnp.arange(settings.steps))[0]

  def keep(
    self,
    params: Any,
    z_B1hwC: jax.Array,
    frame: jax.Array,
    class_B: jax.Array,
    cache: attention.Cache,
  ) -> attention.Cache:
    """The cache with a finished frame, which later ones see clean."""
    return self._extend(params, z_B1hwC, _CLEAN, frame, class_B, cache)[1]

  def _velocity(self, params, x_B1hwC, time, frame, class_B, cache):
    return self._extend(params, x_B1hwC, time, frame, class_B, cache)[0]

  def _extend(self, params, x_B1hwC, time, frame, class_B, cache):
    """Output and cache of one frame; with guidance, of both halves."""
    if self.config.sampling.guidance:
      no_class_B = jnp.full_like(class_B, self.config.denoiser.num_classes)
      x_B1hwC = jnp.concatenate([x_B1hwC, x_B1hwC])
      class_B = jnp.concatenate([class_B, no_class_B])
    time_B1 = jnp.full(
      (class_B.shape[0], 1), _FLOW.embedding(jnp.asarray(time))
    )
    tokens = self.latents.shape[1] * self.latents.shape[2]
    place = jnp.minimum(frame, cache[0].shape[2] // tokens - 1)
    return self.denoiser(
      params, x_B1hwC, time_B1, class_B, frame, place, cache, method="extend"
    )


def define_denoiser(
  config: ml_collections.ConfigDict,
  latents: latents_lib.Latents,
  mesh: Mesh | None = None,
) -> network.Network:
  """The network of a config, for clips of such latents.

  It runs on the devices of a mesh; without one, on one device.
  """
  settings, dtype = tokens_lib.transformer_settings(
    config, latents.num, mesh, "denoiser"
  )
  return network.define(
    lambda rngs: next_frame.NextFrame(
      frame_size=latents.shape[1:],
      channels=latents.channels,
      **settings,
      rngs=rngs,
    ),
    dtype,
  )


def _check_tasks(config: ml_collections.ConfigDict) -> None:
  """Raises ValueError for a task whose condition is not of first frames."""
  names = tasks_lib.task_names(config)
  known = [
    name
    for name, task in tasks_lib.TASKS.items()
    if task.exact or not tasks_lib.needs_clip(name)
  ]
  if set(names) - set(known):
    raise ValueError(
      f"tasks={dict(config.tasks)} of next-frame flow can only be"
      f" {', '.join(known)}, whose condition is the first frames: for others"
      " train a masked model"
    )
