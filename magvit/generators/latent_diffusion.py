"""Algorithm: diffusion of latents, W.A.L.T (arXiv 2312.06662).

Each step draws one task, encodes the clips and the task's condition clips, and
trains the denoiser to say what turns noisy latents into clean ones. Latents
that a task is given, and where, are channels of their own (the paper's m * z
and m, for every task as a mask). Those that causality makes exact are clean in
the noisy clip, too, have no loss, and never change in sampling; the paper, with
frame prediction alone, leaves open what it does with them.

Joint images (`dataset.joint_images`) are trained beside the clips, in stacks of
as many as a clip has latent frames, and have "no class". A super-resolution
stage (`denoiser.upscales`) is told the latents of the clip at half its height
and width, with some noise.
"""

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

from magvit import algorithm as algorithm_lib
from magvit.algorithm import TrainState
from magvit.generators import denoising
from magvit.generators import latent_generator
from magvit.generators import latents as latents_lib
from magvit.generators import noise as noise_lib
from magvit.generators import sampling
from models.tokenizer import tokenizer as tokenizer_network


class Example(struct.PyTreeNode):
  """Clips to be denoised, and the noise."""

  clean_BthwC: jax.Array
  noise_BthwC: jax.Array
  time_Bf: jax.Array  # as the process draws it
  condition: denoising.Condition


@dataclasses.dataclass(frozen=True, eq=False)
class LatentDiffusion(latent_generator.LatentGenerator):
  """A denoiser of the latents of a frozen tokenizer."""

  facts: ClassVar = algorithm_lib.Facts(
    kind=algorithm_lib.GENERATOR,
    network="denoiser",
    section="denoiser",
    leading_metrics=("loss",),
    evaluators=("samples",),
    defining=(*latents_lib.DEFINING, "noise"),
    attention_has_bias=True,
  )

  process: noise_lib.Process

  @classmethod
  def build(
    cls, config: ml_collections.ConfigDict, mesh: Mesh, abstract: bool = False
  ) -> Self:
    """Builds as `Algorithm.build` says, and reads the tokenizer.

    Raises:
      ValueError: no tokenizer, a clip it rejects, or fields that contradict
        each other.
    """
    parts = latent_generator.open_parts(
      config, mesh, abstract, joint_images=True
    )
    latents = parts["latents"]
    process = noise_lib.find(config.noise.process)
    _check(config, latents, process)
    denoiser = denoising.define_denoiser(
      config, latents.shape, latents.channels, mesh
    )
    return cls(**parts, denoiser=denoiser, process=process)

  def step(
    self, state: TrainState, batch: Any, key: jax.Array
  ) -> tuple[TrainState, algorithm_lib.Metrics]:
    task_key, draw_key, hint_key = jax.random.split(key, 3)
    task = self.tasks.draw(task_key)
    example = self.examples(state.frozen, batch, task, draw_key)
    share = self.config.noise.self_conditioning
    # One draw for the step: for each clip the first pass would always run.
    hinted = jax.random.uniform(hint_key) < share
    gradient, metrics = algorithm_lib.mean_gradient(
      lambda params, example, key: self.loss(params, example, hinted),
      state.params["denoiser"],
      example,
      hint_key,
      self.config.microbatches,
    )
    return self.descend(state, gradient, metrics)

  def examples(
    self, params: Any, batch: Any, task: jax.Array, key: jax.Array
  ) -> Example:
    """A batch's clips, and after them its stacks of joint images."""
    if self.config.denoiser.text_width and "text" not in batch:
      raise ValueError(
        f"denoiser.text_width={self.config.denoiser.text_width} needs batches"
        ' with embeddings "text" (B, words, channels), and this data set has'
        " none: set it to 0, or train from Python with batches that do"
      )
    drop_key, time_key, noise_key, low_key = jax.random.split(key, 4)
    clean_BthwC = self.latents.encode_batch(params, batch)
    label_B = batch["label"]
    dropped_B = jax.random.uniform(drop_key, label_B.shape) < (
      self.config.label_drop
    )
    class_B = self.classes(task, label_B, dropped_B)
    condition = self._given(params, batch, task, class_B)
    if self.config.denoiser.upscales:
      condition = self._with_coarse(params, batch, low_key, condition, None)
    if "image" in batch:
      images_BthwC = self._stacks(params, batch["image"])
      no_class = self.config.denoiser.num_classes
      condition = condition.with_stacks(images_BthwC.shape, no_class)
      clean_BthwC = jnp.concatenate([clean_BthwC, images_BthwC])
    return Example(
      clean_BthwC=clean_BthwC,
      noise_BthwC=jax.random.normal(noise_key, clean_BthwC.shape),
      time_Bf=self._draw_times(time_key, condition),
      condition=condition,
    )

  def loss(
    self, params: Any, example: Example, hinted: jax.Array
  ) -> tuple[jax.Array, algorithm_lib.Metrics]:
    """Mean squared error of the prediction where latents are not kept.

    With `hinted` the network is told what it says of the clean latents without
    a hint.
    """
    time_Bf = example.time_Bf
    time_Bf11 = time_Bf[:, :, None, None]
    kept_BthwC = example.condition.kept_Bthw[..., None]
    z_BthwC = self.process.add(
      example.clean_BthwC, example.noise_BthwC, time_Bf11
    )
    z_BthwC = jnp.where(kept_BthwC, example.clean_BthwC, z_BthwC)
    nothing = jnp.zeros_like(z_BthwC)
    # Not a matter of the gradient: a branch would keep all that it needs.
    fixed = lax.stop_gradient(params)
    run = lambda params, hint: self._run(
      params, z_BthwC, time_Bf, hint, example.condition
    )
    hint_BthwC = nothing
    if self.config.noise.self_conditioning:
      estimate = lambda: self.process.clean(
        z_BthwC, run(fixed, nothing), time_Bf11
      )
      hint_BthwC = lax.cond(hinted, estimate, lambda: nothing)
    target_BthwC = self.process.target(
      example.clean_BthwC, example.noise_BthwC, time_Bf11
    )
    error_BthwC = jnp.square(run(params, hint_BthwC) - target_BthwC)
    # Every part of a batch has the same share of kept latents, so that the mean
    # of parts is that of the whole.
    learned = (~kept_BthwC).astype(jnp.float32)
    loss = (error_BthwC * learned).mean() / learned.mean()
    return loss, {"loss": loss}

  def sample(
    self, params: Any, batch: Any, key: jax.Array
  ) -> dict[str, jax.Array]:
    """As `Generator.sample`; a super-resolution stage reads all of "video"."""
    noise_key, low_key, step_key = jax.random.split(key, 3)
    task, label_B = batch["task"], batch["label"]
    condition = self._given(
      params, batch, task, self.classes(task, label_B, False)
    )
    if self.config.denoiser.upscales:
      share = self.config.sampling.low_noise
      condition = self._with_coarse(params, batch, low_key, condition, share)
    z_BthwC = self.denoise(
      self.denoiser.cast(params["denoiser"]), condition, noise_key, step_key
    )
    return self.latents.decode(params, z_BthwC)

  def denoise(
    self,
    params: Any,
    condition: denoising.Condition,
    noise_key: jax.Array,
    step_key: jax.Array,
  ) -> jax.Array:
    """Clean latents (B, t, h, w, C) made of noise; kept ones stay as given."""
    settings, process = self.config.sampling, self.process
    times = process.times(settings.steps)
    keep = lambda z_BthwC: jnp.where(
      condition.kept_Bthw[..., None], condition.given_BthwC, z_BthwC
    )
    predict = self._predictor(params, condition)

    def one_step(carry, inputs):
      z_BthwC, hint_BthwC = carry
      t, s, place = inputs
      output_BthwC = predict(z_BthwC, t, hint_BthwC, place)
      hint_BthwC = process.clean(z_BthwC, output_BthwC, t)
      if settings.eta:
        fresh = jax.random.normal(
          jax.random.fold_in(step_key, place), z_BthwC.shape
        )
        z_BthwC = process.noisy_step(
          z_BthwC, output_BthwC, t, s, fresh, settings.eta
        )
      else:
        z_BthwC = process.step(z_BthwC, output_BthwC, t, s)
      return (keep(z_BthwC), hint_BthwC), None

    z_BthwC = jax.random.normal(noise_key, condition.given_BthwC.shape)
    start = (keep(z_BthwC), jnp.zeros_like(z_BthwC))
    steps = (times[:-1], times[1:], jnp.arange(settings.steps))
    (z_BthwC, _), _ = lax.scan(one_step, start, steps)
    return z_BthwC

  def _predictor(self, params, condition: denoising.Condition):
    """Makes a function (latents, time, hint, step) -> the guided prediction."""
    settings = self.config.sampling
    free = condition.untold(self.config.denoiser.num_classes)
    both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), condition, free)

    def predict(z_BthwC, t, hint_BthwC, step):
      time_B1 = jnp.broadcast_to(t, (z_BthwC.shape[0], 1))
      if not settings.guidance:
        return self._run(params, z_BthwC, time_B1, hint_BthwC, condition)
      twice = lambda x: jnp.concatenate([x, x])
      output = self._run(
        params, twice(z_BthwC), twice(time_B1), twice(hint_BthwC), both
      )
      told, untold = jnp.split(output, 2)
      guidance = sampling.guidance_at(
        step,
        settings.steps,
        settings.guidance,
        settings.guidance_schedule,
        settings.guidance_power,
      )
      return sampling.guide([told], [untold], guidance)[0]

    return predict

  def _given(self, params, batch, task, class_B) -> denoising.Condition:
    """The condition of a task: class, text, and the latents it is given."""
    grid = (class_B.shape[0], *self.latents.shape)
    # Where no task is given anything, nothing is encoded for it.
    given_BthwC = jnp.zeros((*grid, self.latents.channels))
    mask_Bthw = jnp.zeros(grid, bool)
    if denoising.completes(self.config):
      given_BthwC, mask_Bthw = self.condition(params, batch, task)
    text_BfMK = None
    if self.config.denoiser.text_width:
      text_BfMK = self._text(batch)
    return denoising.Condition(
      class_Bf=class_B[:, None],
      given_BthwC=given_BthwC,
      mask_Bthw=mask_Bthw,
      kept_Bthw=jnp.broadcast_to(jnp.asarray(self.kept_Sthw)[task], grid),
      text_BfMK=text_BfMK,
    )

  def _text(self, batch) -> jax.Array:
    """Embeddings (B, 1, M, K); one word of zeros where a batch has no text."""
    width, size = self.config.denoiser.text_width, batch["label"].shape[0]
    return batch.get("text", jnp.zeros((size, 1, width)))[:, None]

  def _with_coarse(
    self,
    params,
    batch,
    key,
    condition: denoising.Condition,
    share: float | None,
  ) -> denoising.Condition:
    """The condition with noisy latents of the clips at half the size.

    `share` of the way to noise; None draws it for each clip, as training does.
    """
    video_BTHWC = tokenizer_network.to_float(batch["video"])
    size, frames, height, width, channels = video_BTHWC.shape
    video_BTHWC = video_BTHWC.reshape(
      size, frames, height // 2, 2, width // 2, 2, channels
    ).mean((3, 5))
    t, h, w = self.latents.shape
    coarse = denoising.on_grid(self.latents, (t, h // 2, w // 2))
    z_BthwC = coarse.encode(params, video_BTHWC)
    share_key, noise_key = jax.random.split(key)
    most = self.config.noise.low_most
    share_B = (
      jax.random.uniform(share_key, (size,), maxval=most)
      if share is None
      else jnp.full((size,), share)
    )
    time_B = self.process.at(share_B)
    noise = jax.random.normal(noise_key, z_BthwC.shape)
    return condition.replace(
      low_BthwC=self.process.add(z_BthwC, noise, time_B), low_time_B=time_B
    )

  def _stacks(self, params, images_B1HWC) -> jax.Array:
    """Latents of stacks of images, (stacks, t, h, w, C)."""
    t, h, w = self.latents.shape
    single = denoising.on_grid(self.latents, (1, h, w))
    z_B1hwC = single.encode(params, tokenizer_network.to_float(images_B1HWC))
    return z_B1hwC.reshape(-1, t, h, w, self.latents.channels)

  def _draw_times(self, key, condition: denoising.Condition) -> jax.Array:
    """Times (B, f), one for a clip, and one for each image of a stack."""
    time_Bf = self.process.draw(key, condition.class_Bf.shape)
    if condition.stacked_B is None:
      return time_Bf
    return jnp.where(condition.stacked_B[:, None], time_Bf, time_Bf[:, :1])

  def _run(
    self, params, z_BthwC, time_Bf, hint_BthwC, condition: denoising.Condition
  ) -> jax.Array:
    """The network's prediction (B, t, h, w, C), of what it reads."""
    told, c = {}, self.config
    if c.noise.self_conditioning:
      told["hint_BthwC"] = hint_BthwC
    if denoising.completes(c):
      told["given_BthwC"] = condition.given_BthwC
      told["mask_Bthw"] = condition.mask_Bthw
    if condition.low_time_B is not None:
      told["low_BthwC"] = condition.low_BthwC
      told["low_time_B"] = self.process.embedding(condition.low_time_B)
    if c.denoiser.text_width:
      told["text_BfMK"] = condition.text_BfMK
    return self.denoiser(
      params,
      z_BthwC,
      self.process.embedding(time_Bf),
      condition.class_Bf,
      stacked_B=condition.stacked_B,
      **told,
    )


def _check(
  config: ml_collections.ConfigDict,
  latents: latents_lib.Latents,
  process: noise_lib.Process,
) -> None:
  """Raises ValueError for fields that contradict each other."""
  sampling.check_settings(config.sampling)
  process.times(config.sampling.steps)
  images, frames = config.dataset.joint_images, latents.shape[0]
  stacked = frames * config.microbatches
  if images % stacked:
    raise ValueError(
      f"dataset.joint_images={images} must be a multiple of {stacked}, the"
      " latent frames of a clip times microbatches: images are stacked to the"
      " shape of a clip"
    )
  for name in ("text_width", "upscales"):
    if images and config.denoiser[name]:
      raise ValueError(
        f"dataset.joint_images={images} goes without"
        f" denoiser.{name}={config.denoiser[name]}: set either to 0"
      )
  if config.denoiser.upscales and config.dataset.tokens:
    raise ValueError(
      f"denoiser.upscales needs the pixels of clips, and dataset.tokens="
      f"{config.dataset.tokens} has tokens alone: set it to ''"
    )
