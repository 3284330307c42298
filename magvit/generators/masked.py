"""Algorithm: masked modelling of tokens, many tasks in one model.

MAGVIT (arXiv 2212.05199) on the tokens of MAGVIT-v2 (arXiv 2310.05737). Each
step draws one task, tokenizes the clips and the task's condition clips, and
masks. COMMIT: a masked position inside the given region takes the token of
the condition, any other masked position the mask token. The loss covers all
positions: those masked, those refined from the condition, and those copied.

With `transformer.condition_hints` mask tokens show the condition's, too
(hints.py).
"""

from collections.abc import Callable
from collections.abc import Sequence
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
from magvit import optimizer
from magvit.algorithm import TrainState
from magvit.generators import generator
from magvit.generators import hints
from magvit.generators import losses
from magvit.generators import sampling
from magvit.generators import tasks as tasks_lib
from magvit.generators import tokens as tokens_lib
from models import network
from models.tokenizer import tokenizer as tokenizer_network
from models.transformers import masked as masked_transformer


class Masked(struct.PyTreeNode):
  """Masked clips: the input of the transformer, and the targets."""

  parts_BNF: jax.Array  # int32: the true sub-tokens
  input_BNF: jax.Array  # int32: the condition's where chosen, else the true
  masked_BN: jax.Array  # bool: whether the input is the mask token
  class_B: jax.Array  # int32: the class that the transformer is told


@dataclasses.dataclass(frozen=True, eq=False)
class MaskedGenerator(generator.TokenGenerator):
  """A masked transformer on the tokens of a frozen tokenizer."""

  facts: ClassVar = algorithm_lib.Facts(
    kind=algorithm_lib.GENERATOR,
    network="transformer",
    section="transformer",
    leading_metrics=("loss", "masked_accuracy"),
    evaluators=("samples",),
    defining=tokens_lib.DEFINING,
  )

  given_SN: np.ndarray  # bool: latents that a task is given
  fixed_SN: np.ndarray  # bool: latents that keep the condition's token
  hinted_S: np.ndarray  # bool: whether mask tokens show the condition's token
  noise_S: np.ndarray  # float32: factor of guidance and both temperatures

  @classmethod
  def build(
    cls, config: ml_collections.ConfigDict, mesh: Mesh, abstract: bool = False
  ) -> Self:
    """Builds as `Algorithm.build` says, and reads the tokenizer.

    Raises:
      ValueError: no tokenizer, a clip it rejects, or fields that contradict it.
    """
    c = config
    tokens = tokens_lib.open_tokenizer(c, mesh, abstract)
    _check(c, tokens)
    table = tasks_lib.TaskTable.from_config(c)
    region = lambda latents: table.latents(
      latents,
      tokens.latent_shape,
      c.condition_frames,
      tokens.sizes.time,
      tokens.sizes.causal,
    ).reshape(len(table.names), -1)
    given_SN = region(tasks_lib.given_latents)
    return cls(
      config=c,
      tokens=tokens,
      transformer=define_transformer(c, tokens.num, mesh),
      tasks=table,
      given_SN=given_SN,
      hinted_S=np.asarray(given_SN.any(-1) & hints.shown(c)),
      fixed_SN=region(tasks_lib.kept_latents),
      noise_S=noise_of_tasks(c, table.names),
      adam=optimizer.make_optimizer(c.optimizer, c.num_steps),
    )

  def step(
    self, state: TrainState, batch: Any, key: jax.Array
  ) -> tuple[TrainState, algorithm_lib.Metrics]:
    task_key, drop_key, mask_key, dropout_key = jax.random.split(key, 4)
    task = self.tasks.draw(task_key)
    parts_BNF, condition_BNF = self.tokenize(
      state.frozen["tokenizer"], batch, task
    )
    masked = self.mask(
      drop_key, mask_key, task, parts_BNF, condition_BNF, batch["label"]
    )
    gradient, metrics = algorithm_lib.mean_gradient(
      lambda params, masked, key: self.loss(params, masked, task, key),
      state.params["transformer"],
      masked,
      dropout_key,
      self.config.microbatches,
    )
    metrics["masked_accuracy"] /= jnp.maximum(metrics["masked_share"], 1e-9)
    return self.descend(state, gradient, metrics)

  def tokenize(
    self, params: Any, batch: Any, task: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    """Sub-tokens (B, N, F) of a batch's clips, and of their condition clips.

    Args:
      params: the tokenizer's weights.
      batch: clips, or stored tokens.
      task: int32 (), place of the task in `tasks.names`.
    """
    parts_BNF = self.factorize(self.tokens.tokenize_batch(params, batch))
    if "ids" in batch:
      stored = [
        self.tokens.stored_condition(batch, name) for name in self.tasks.names
      ]
      return parts_BNF, self.factorize(jnp.stack(stored)[task])
    video_BTHWC = tokenizer_network.to_float(batch["video"])
    return parts_BNF, self.condition(params, video_BTHWC, parts_BNF, task)

  def condition(
    self,
    params: Any,
    video_BTHWC: jax.Array,
    parts_BNF: jax.Array,
    task: jax.Array,
  ) -> jax.Array:
    """Sub-tokens (B, N, F) of the task's condition clip.

    A task that is given nothing has none: `parts_BNF` stands in for it.
    """
    filled_BTHWC = self.tasks.fill(
      task, video_BTHWC, self.config.condition_frames
    )
    return lax.cond(
      jnp.asarray(self.given_SN.any(-1))[task],
      lambda: self.factorize(self.tokens.encode(params, filled_BTHWC)),
      lambda: parts_BNF,
    )

  def mask(
    self,
    drop_key: jax.Array,
    mask_key: jax.Array,
    task: jax.Array,
    parts_BNF: jax.Array,
    condition_BNF: jax.Array,
    label_B: jax.Array,
  ) -> Masked:
    """Draws `masks_per_clip` masks for each clip, and the labels to drop."""
    c = self.config
    repeat = lambda x: jnp.repeat(x, c.masks_per_clip, axis=0)
    parts_BNF, condition_BNF = repeat(parts_BNF), repeat(condition_BNF)
    label_B = repeat(label_B)
    batch_size = label_B.shape[0]
    dropped_B = jax.random.uniform(drop_key, (batch_size,)) < c.label_drop
    chosen_BN = sampling.training_mask(
      mask_key, batch_size, self.tokens.num, c.mask_ratio_per_clip
    )
    given_1N = jnp.asarray(self.given_SN)[task][None]
    return Masked(
      parts_BNF=parts_BNF,
      # Nothing is seen of an input under the mask, unless it is a hint.
      input_BNF=jnp.where(chosen_BN[..., None], condition_BNF, parts_BNF),
      masked_BN=chosen_BN & ~given_1N,
      class_B=self.classes(task, label_B, dropped_B),
    )

  def loss(
    self,
    params: Any,
    masked: Masked,
    task: jax.Array,
    dropout_key: jax.Array | None,
  ) -> tuple[jax.Array, algorithm_lib.Metrics]:
    """Cross-entropy in nats, mean over tokens and clips, and metrics.

    `masked_accuracy` counts hits among all tokens; `step` divides it by the
    share of masked ones once the microbatches are joined.
    """
    token_B = jnp.broadcast_to(
      jnp.asarray(self.tasks.token_S)[task], masked.class_B.shape
    )
    logits = self.transformer(
      params,
      masked.input_BNF,
      masked.masked_BN,
      masked.class_B,
      token_B,
      dropout_key,
      self._hinted(task, masked.masked_BN),
    )
    everywhere_BN = jnp.ones(masked.masked_BN.shape)
    loss, hits_BN = jnp.zeros(()), jnp.array(True)
    for f, logits_BNV in enumerate(logits):
      target_BN = masked.parts_BNF[..., f]
      loss += losses.masked_cross_entropy(
        logits_BNV, target_BN, everywhere_BN, self.config.label_smoothing
      )
      hits_BN &= logits_BNV.argmax(-1) == target_BN
    return loss, {
      "loss": loss,
      "masked_share": masked.masked_BN.mean(),
      "masked_accuracy": (hits_BN & masked.masked_BN).mean(),
    }

  @property
  def predict(self) -> dict[str, Callable[[Any, Any, Any], Any]]:
    return {**super().predict, "features": self.features}

  def features(self, params: Any, batch: Any, key: jax.Array) -> jax.Array:
    """Mean features of whole clips by depth, float32 (B, L + 1, D)."""
    del key
    parts_BNF, class_B = self.whole_clips(params, batch)
    task_B = jnp.full_like(class_B, self.tasks.token_S[0])
    inputs = (parts_BNF, class_B, task_B)
    return self.transformer(params["transformer"], *inputs, method="depths")

  def sample(
    self, params: Any, batch: Any, key: jax.Array
  ) -> dict[str, jax.Array]:
    settings = self.config.sampling
    task, label_B = batch["task"], batch["label"]
    video = tokenizer_network.to_float(batch["video"])
    factors = len(self.config.transformer.factor_bits)
    nothing_BNF = jnp.zeros(
      (*label_B.shape, self.tokens.num, factors), jnp.int32
    )
    condition_BNF = self.condition(
      params["tokenizer"], video, nothing_BNF, task
    )
    noise = jnp.asarray(self.noise_S)[task]
    parts_BNF = sampling.decode(
      key,
      self._predictor(params["transformer"], task, label_B),
      condition_BNF,
      self._grid(self.fixed_SN, task, label_B),
      settings.steps,
      settings.schedule,
      settings.choice_temperature * noise,
      settings.temperature * noise,
    )
    clips = self.decode(params, parts_BNF)
    clips["video"] = self.finish(params, batch, clips["video"], key)
    return clips

  def _hinted(self, task: jax.Array, masked_BN: jax.Array) -> jax.Array | None:
    """Where a mask token shows the condition's; None if none ever does."""
    if not self.hinted_S.any():
      return None
    return masked_BN & jnp.asarray(self.hinted_S)[task]

  def _grid(self, table_SN, task, label_B) -> jax.Array:
    """The task's row of a table, repeated for each clip, (B, N)."""
    row_N = jnp.asarray(table_SN)[task]
    return jnp.broadcast_to(row_N, (*label_B.shape, self.tokens.num))

  def _predictor(self, params, task, label_B) -> sampling.Predictor:
    """Makes a function to logits of all tokens, with the config's guidance."""
    settings, table = self.config.sampling, self.tasks
    given_BN = self._grid(self.given_SN, task, label_B)
    fixed_BN = self._grid(self.fixed_SN, task, label_B)
    no_class_B = jnp.full_like(label_B, self.config.transformer.num_classes)
    class_B = self.classes(task, label_B, False)
    token_B = jnp.broadcast_to(jnp.asarray(table.token_S)[task], label_B.shape)
    free_token_B = token_B
    if "class_conditional" in table.names:
      free_token = tasks_lib.TASKS["class_conditional"].token
      free_token_B = jnp.full_like(token_B, free_token)

    def predict(parts_BNF, decided_BN, step):
      masked_BN = ~decided_BN & ~given_BN
      if not settings.guidance:
        return self.transformer(
          params,
          parts_BNF,
          masked_BN,
          class_B,
          token_B,
          hinted_BN=self._hinted(task, masked_BN),
        )
      # One pass over both halves; the second sees no class and no condition.
      stack = lambda a, b: jnp.concatenate([a, b])
      logits = self.transformer(
        params,
        stack(parts_BNF, parts_BNF),
        stack(masked_BN, ~decided_BN | fixed_BN),
        stack(class_B, no_class_B),
        stack(token_B, free_token_B),
        hinted_BN=self._hinted(
          task, stack(masked_BN, jnp.zeros_like(masked_BN))
        ),
      )
      halves = [jnp.split(x, 2) for x in logits]
      guidance = sampling.guidance_at(
        step,
        settings.steps,
        settings.guidance,
        settings.guidance_schedule,
        settings.guidance_power,
      )
      return sampling.guide(
        [h[0] for h in halves],
        [h[1] for h in halves],
        guidance * jnp.asarray(self.noise_S)[task],
      )

    return predict


def noise_of_tasks(
  config: ml_collections.ConfigDict, names: Sequence[str]
) -> np.ndarray:
  """Factor of guidance and temperatures for each task, float32 (S,).

  It is 0 for completions that are to be the likeliest.
  """
  likeliest = config.sampling.completion == "likeliest"
  return np.array(
    [
      0.0 if likeliest and tasks_lib.needs_clip(name) else 1.0 for name in names
    ],
    np.float32,
  )


def define_transformer(
  config: ml_collections.ConfigDict, tokens: int, mesh: Mesh | None = None
) -> network.Network:
  """The transformer of a config, for clips of this many tokens.

  It runs on the devices of a mesh; without one, on one device.
  """
  several_tasks = len(tasks_lib.task_names(config)) > 1
  settings, dtype = tokens_lib.transformer_settings(config, tokens, mesh)
  settings.pop(hints.FIELD, None)  # the network takes what it is given
  return network.define(
    lambda rngs: masked_transformer.MaskedTransformer(
      num_tokens=tokens,
      task_slots=tasks_lib.TASK_SLOTS if several_tasks else 0,
      **settings,
      rngs=rngs,
    ),
    dtype,
  )


def _check(
  config: ml_collections.ConfigDict, tokens: tokens_lib.Tokens
) -> None:
  tokens_lib.check_no_images(config)
  hints.check(config)
  tokens.check_factors(config)
  tasks_lib.check_prediction(config, tokens.sizes.time, tokens.sizes.causal)
  tasks_lib.check_detail(config)
  sampling.check_settings(config.sampling)
