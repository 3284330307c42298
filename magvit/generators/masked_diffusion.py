"""Algorithm: masked modelling of latents, each drawn by diffusion.

MAR (arXiv 2406.11838) on the trunk, the tasks and the masks of the masked model
of tokens (masked.py), from which it differs in the head, and in having no
hints: instead of logits of a token, a small network denoises its latent, told
the trunk's features. COMMIT is as there: a masked position inside the given
region takes the latent of the condition, any other masked position the mask
token. The loss covers what is masked or refined from the condition, not what is
copied.
"""

import dataclasses
from typing import Any
from typing import ClassVar
from typing import Self

from flax import struct
import jax
import jax.numpy as jnp
from jax.sharding import Mesh
import ml_collections
import numpy as np

from magvit import algorithm as algorithm_lib
from magvit.algorithm import TrainState
from magvit.generators import latent_generator
from magvit.generators import latents as latents_lib
from magvit.generators import learned_variance
from magvit.generators import masked as masked_lib
from magvit.generators import random_order
from magvit.generators import sampling
from magvit.generators import tasks as tasks_lib
from magvit.generators import tokens as tokens_lib
from models import network
from models.transformers import diffusion_head
from models.transformers import masked as masked_transformer
from models.transformers import masked_autoencoder

_AUTOENCODER = "autoencoder"
_TRUNKS = ("masked", _AUTOENCODER)
# Largest value of a drawn latent: codes are +-1; those of other tokenizers have
# a variance of 1.
_LIMITS = {latents_lib.BITS: 1.0}
_WIDEST = 6.0


class Masked(struct.PyTreeNode):
  """Masked clips: the input of the trunk, and what the head is trained on.

  The axis K is of the noises of one latent, `draws_per_token` of them.
  """

  z_BNC: jax.Array  # float32: the true latents
  input_BNC: jax.Array  # float32: the condition's where chosen and given
  masked_BN: jax.Array  # bool: whether the input is the mask token
  weight_BN: jax.Array  # float32: of a latent in the loss; 1 in the mean
  class_B: jax.Array  # int32: the class that the trunk is told
  step_BNK: jax.Array  # int32: steps of diffusion
  noise_BNKC: jax.Array  # float32: standard normal


@dataclasses.dataclass(frozen=True, eq=False)
class MaskedDiffusion(latent_generator.LatentGenerator):
  """A masked transformer whose head is a denoiser of latents."""

  facts: ClassVar = algorithm_lib.Facts(
    kind=algorithm_lib.GENERATOR,
    network="denoiser",
    section="denoiser",
    leading_metrics=("loss", "noise_error"),
    evaluators=("samples",),
    defining=latents_lib.DEFINING,
  )

  chain: learned_variance.Chain  # all steps of diffusion, for training
  draws: learned_variance.Chain  # the steps that sampling takes
  noise_S: np.ndarray  # float32: factor of guidance and temperature

  @classmethod
  def build(
    cls, config: ml_collections.ConfigDict, mesh: Mesh, abstract: bool = False
  ) -> Self:
    """Builds as `Algorithm.build` says, and reads the tokenizer.

    Raises:
      ValueError: no tokenizer, a clip it rejects, or fields that contradict it.
    """
    c = config
    sampling.check_settings(c.sampling)
    _check(c)
    parts = latent_generator.open_parts(c, mesh, abstract)
    return cls(
      **parts,
      denoiser=define_denoiser(c, parts["latents"], mesh),
      chain=learned_variance.Chain.cosine(),
      draws=learned_variance.Chain.cosine(c.sampling.diffusion_steps),
      noise_S=masked_lib.noise_of_tasks(c, parts["tasks"].names),
    )

  def step(
    self, state: TrainState, batch: Any, key: jax.Array
  ) -> tuple[TrainState, algorithm_lib.Metrics]:
    task_key, drop_key, mask_key, noise_key, dropout_key = jax.random.split(
      key, 5
    )
    task = self.tasks.draw(task_key)
    z_BthwC = self.latents.encode_batch(state.frozen, batch)
    condition_BthwC, _ = self.condition(state.frozen, batch, task)
    masked = self.mask(
      (drop_key, mask_key, noise_key),
      task,
      self._flat(z_BthwC),
      self._flat(condition_BthwC),
      batch["label"],
    )
    gradient, metrics = algorithm_lib.mean_gradient(
      lambda params, masked, key: self.loss(params, masked, task, key),
      state.params["denoiser"],
      masked,
      dropout_key,
      self.config.microbatches,
    )
    return self.descend(state, gradient, metrics)

  def mask(
    self,
    keys: tuple[jax.Array, jax.Array, jax.Array],
    task: jax.Array,
    z_BNC: jax.Array,
    condition_BNC: jax.Array,
    label_B: jax.Array,
  ) -> Masked:
    """Draws `masks_per_clip` masks for each clip, labels to drop, and noise.

    All is drawn for the whole batch: parts of it train as the whole does.
    """
    c = self.config
    drop_key, mask_key, noise_key = keys
    repeat = lambda x: jnp.repeat(x, c.masks_per_clip, axis=0)
    z_BNC, condition_BNC, label_B = map(repeat, (z_BNC, condition_BNC, label_B))
    batch_size = label_B.shape[0]
    dropped_B = jax.random.uniform(drop_key, (batch_size,)) < c.label_drop
    chosen_BN = sampling.training_mask(
      mask_key,
      batch_size,
      self.latents.num,
      c.mask_ratio_per_clip,
      c.mask_ratio,
    )
    given_1N = self._row(self.given_Sthw, task)
    predicted_BN = chosen_BN & ~self._row(self.kept_Sthw, task)
    step_key, noise_key = jax.random.split(noise_key)
    draws = (*predicted_BN.shape, c.draws_per_token)
    return Masked(
      z_BNC=z_BNC,
      input_BNC=jnp.where(
        (chosen_BN & given_1N)[..., None], condition_BNC, z_BNC
      ),
      masked_BN=chosen_BN & ~given_1N,
      weight_BN=predicted_BN / jnp.maximum(predicted_BN.mean(), 1e-9),
      class_B=self.classes(task, label_B, dropped_B),
      step_BNK=jax.random.randint(
        step_key, draws, 0, learned_variance.NUM_STEPS
      ),
      noise_BNKC=jax.random.normal(noise_key, (*draws, z_BNC.shape[-1])),
    )

  def loss(
    self,
    params: Any,
    masked: Masked,
    task: jax.Array,
    dropout_key: jax.Array | None,
  ) -> tuple[jax.Array, algorithm_lib.Metrics]:
    """Error of the noise and bound of its variance, and metrics."""
    condition_BND = self.denoiser(
      params,
      masked.input_BNC,
      masked.masked_BN,
      masked.class_B,
      self._task_tokens(task, masked.class_B),
      dropout_key,
      method="conditions",
      **self._room(),
    )
    clean_BNKC = jnp.broadcast_to(
      masked.z_BNC[:, :, None], masked.noise_BNKC.shape
    )
    output = self.denoiser(
      params,
      self.chain.add(clean_BNKC, masked.noise_BNKC, masked.step_BNK),
      masked.step_BNK,
      condition_BND[:, :, None],
      method="denoise",
    )
    errors_BNK = self.chain.loss(
      output, clean_BNKC, masked.noise_BNKC, masked.step_BNK
    )
    error, bound = (
      (x_BNK.mean(-1) * masked.weight_BN).mean() for x_BNK in errors_BNK
    )
    return error + bound, {
      "loss": error + bound,
      "noise_error": error,
      "bound": bound,
      "masked_share": masked.masked_BN.mean(),
    }

  def sample(
    self, params: Any, batch: Any, key: jax.Array
  ) -> dict[str, jax.Array]:
    settings = self.config.sampling
    task, label_B = batch["task"], batch["label"]
    condition_BthwC, _ = self.condition(params, batch, task)
    z_BNC = random_order.decode(
      key,
      self._draw(params["denoiser"], task, label_B),
      self._flat(condition_BthwC),
      self._grid(self.kept_Sthw, task, label_B),
      settings.steps,
      settings.schedule,
    )
    clips = self.latents.decode(params, z_BNC.reshape(condition_BthwC.shape))
    clips["video"] = self.finish(params, batch, clips["video"], key)
    return clips

  def _draw(self, params, task, label_B) -> random_order.Draw:
    """Makes a function that draws latents, with the config's guidance."""
    settings, chain = self.config.sampling, self.draws
    params = self.denoiser.cast(params)
    given_BN = self._grid(self.given_Sthw, task, label_B)
    fixed_BN = self._grid(self.kept_Sthw, task, label_B)
    no_class_B = jnp.full_like(label_B, self.config.denoiser.num_classes)
    classes = [self.classes(task, label_B, False), no_class_B]
    token_B = self._task_tokens(task, label_B)
    free_token = tasks_lib.TASKS["class_conditional"].token
    free_B = jnp.full_like(token_B, free_token)
    if "class_conditional" not in self.tasks.names:
      free_B = token_B
    noise = jnp.asarray(self.noise_S)[task]
    # The second half, of guidance, sees no class and no condition.
    stack = jnp.concatenate if settings.guidance else lambda halves: halves[0]

    def draw(key, z_BNC, decided_BN, chosen_BM, share):
      features_BND = self.denoiser(
        params,
        stack([z_BNC, z_BNC]),
        stack([~decided_BN & ~given_BN, ~decided_BN | fixed_BN]),
        stack(classes),
        stack([token_B, free_B]),
        method="conditions",
      )
      chosen_BM1 = stack([chosen_BM, chosen_BM])[..., None]
      condition_BMD = jnp.take_along_axis(features_BND, chosen_BM1, axis=1)
      schedule = sampling.GUIDANCE_SCHEDULES[settings.guidance_schedule]
      guidance = settings.guidance * schedule(share, settings.guidance_power)

      def predict(x_BMC, time):
        output = self.denoiser(
          params,
          stack([x_BMC, x_BMC]),
          jnp.broadcast_to(time, condition_BMD.shape[:2]),
          condition_BMD,
          method="denoise",
        )
        if not settings.guidance:
          return output
        return guide_noise(output, guidance * noise)

      first_key, key = jax.random.split(key)
      shape = (*chosen_BM.shape, z_BNC.shape[-1])
      start_BMC = jax.random.normal(first_key, shape)
      limit = _LIMITS.get(self.latents.kind, _WIDEST)
      temperature = settings.temperature * noise
      return chain.denoise(predict, key, start_BMC, temperature, limit)

    return draw

  def _room(self) -> dict[str, int]:
    """Room for known latents in the encoder of a trunk that has one."""
    if self.config.denoiser.trunk != _AUTOENCODER:
      return {}
    num = self.latents.num
    return {"room": num - sampling.least_masked(num, self.config.mask_ratio)}

  def _flat(self, z_BthwC: jax.Array) -> jax.Array:
    """Latents (B, N, C)."""
    return z_BthwC.reshape(z_BthwC.shape[0], self.latents.num, -1)

  def _row(self, table_Sthw, task) -> jax.Array:
    """The task's row of a table, (1, N)."""
    return jnp.asarray(table_Sthw)[task].reshape(1, -1)

  def _grid(self, table_Sthw, task, label_B) -> jax.Array:
    """The task's row of a table, repeated for each clip, (B, N)."""
    row_1N = self._row(table_Sthw, task)
    return jnp.broadcast_to(row_1N, (label_B.shape[0], row_1N.shape[1]))

  def _task_tokens(self, task, class_B) -> jax.Array:
    return jnp.broadcast_to(
      jnp.asarray(self.tasks.token_S)[task], class_B.shape
    )


def guide_noise(output: jax.Array, guidance: jax.Array) -> jax.Array:
  """Guides the noise of a head's outputs (2B, M, 2C); variance is the first's.

  The second half is unconditional.
  """
  conditional, unconditional = jnp.split(output, 2)
  noise, place = jnp.split(conditional, 2, axis=-1)
  free, _ = jnp.split(unconditional, 2, axis=-1)
  (guided,) = sampling.guide([noise], [free], guidance)
  return jnp.concatenate([guided, place], axis=-1)


def define_denoiser(
  config: ml_collections.ConfigDict,
  latents: latents_lib.Latents,
  mesh: Mesh | None = None,
) -> network.Network:
  """The trunk and the head of a config, for clips of such latents.

  It runs on the devices of a mesh; without one, on one device.
  """
  settings, dtype = tokens_lib.transformer_settings(
    config, latents.num, mesh, "denoiser"
  )
  head = diffusion_head.HeadSize(
    settings.pop("head_blocks"), settings.pop("head_width")
  )
  make = masked_autoencoder.MaskedAutoencoder
  if settings.pop("trunk") != _AUTOENCODER:
    several_tasks = len(tasks_lib.task_names(config)) > 1
    settings["task_slots"] = tasks_lib.TASK_SLOTS if several_tasks else 0
    make = masked_transformer.MaskedLatents
  return network.define(
    lambda rngs: make(
      num_tokens=latents.num,
      channels=latents.channels,
      head=head,
      **settings,
      rngs=rngs,
    ),
    dtype,
  )


def _check(config: ml_collections.ConfigDict) -> None:
  """Raises ValueError for fields that have not one of their values."""
  tasks_lib.check_detail(config)
  trunk, ratio = config.denoiser.trunk, config.mask_ratio
  if trunk not in _TRUNKS:
    raise ValueError(f"denoiser.trunk={trunk!r} must be one of {_TRUNKS}")
  if ratio not in sampling.MASK_RATIOS:
    raise ValueError(
      f"mask_ratio={ratio!r} must be one of {sorted(sampling.MASK_RATIOS)}"
    )
  if trunk == _AUTOENCODER:
    names = tasks_lib.task_names(config)
    if names != ["class_conditional"] or config.mask_ratio_per_clip:
      raise ValueError(
        f"denoiser.trunk={trunk!r} is for the task class_conditional alone and"
        f" one mask ratio for the batch, not for tasks {names} and"
        f" mask_ratio_per_clip={config.mask_ratio_per_clip}: change these, or"
        " set denoiser.trunk='masked'"
      )
