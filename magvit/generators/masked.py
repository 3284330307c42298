"""Algorithm: masked modelling of tokens, many tasks in one model.

MAGVIT (arXiv 2212.05199) on the tokens of MAGVIT-v2 (arXiv 2310.05737). Each
step draws one task, tokenizes the clips and the task's condition clips, and
masks. COMMIT: a masked position inside the given region takes the token of
the condition, any other masked position the mask token. The loss covers all
positions: those masked, those refined from the condition, and those copied.
"""

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
from magvit.generators import losses as generator_losses
from magvit.generators import sampling
from magvit.generators import tasks
from magvit.generators import tokens as tokens_lib
from models import network
from models.quantizers import bits as bits_lib
from models.tokenizer import tokenizer as tokenizer_network
from models.transformers import masked as masked_transformer


def build(
  config: ml_collections.ConfigDict,
  mesh: Mesh,
  tokens: tokens_lib.Tokens | None = None,
) -> algorithm_lib.Algorithm:
  """Checks the config, reads the tokenizer, describes the transformer.

  With `tokens` no tokenizer is read; their weights may be shapes alone.

  Raises:
    ValueError: no tokenizer, a clip it rejects, or fields that contradict it.
  """
  c = config
  tokens = tokens or tokens_lib.open_tokenizer(c, mesh)
  names = _check(c, tokens)
  transformer = define_transformer(c, tokens.num)
  region = lambda latents: np.stack(  # S: tasks
    [
      latents(
        name,
        tokens.latent_shape,
        c.condition_frames,
        tokens.sizes.time,
        tokens.sizes.causal,
      ).reshape(-1)
      for name in names
    ]
  )
  given_SN = region(tasks.given_latents)
  fixed_SN = region(tasks.kept_latents)
  token_S = jnp.array([tasks.TASKS[n].token for n in names])
  has_class_S = jnp.array([tasks.TASKS[n].class_conditional for n in names])
  weight_S = jnp.array([c.tasks[n] for n in names])
  likeliest = c.sampling.completion == "likeliest"
  noise_S = jnp.array(  # scales guidance and both temperatures
    [0.0 if likeliest and tasks.needs_clip(n) else 1.0 for n in names]
  )
  adam = optimizer.make_optimizer(c.optimizer, c.num_steps)

  def init(key: jax.Array) -> TrainState:
    params = transformer.init(key)
    return algorithm_lib.of_one_network("transformer", params, adam)

  def factorize(ids_BN) -> jax.Array:
    """Sub-tokens (B, N, F)."""
    return bits_lib.factorize(ids_BN, c.transformer.factor_bits)

  def condition_of(params, video_BTHWC, parts_BNF, task) -> jax.Array:
    """Sub-tokens of the task's condition clip; anything where none is given."""
    filled_BTHWC = lax.switch(
      task,
      [
        lambda v, name=name: tasks.TASKS[name].fill(
          v,
          tasks.given_pixels(name, v.shape[1:4], c.condition_frames),
        )
        for name in names
      ],
      video_BTHWC,
    )
    return lax.cond(
      jnp.asarray(given_SN.any(-1))[task],
      lambda: factorize(tokens.encode(params, filled_BTHWC)),
      lambda: parts_BNF,
    )

  def step(state: TrainState, batch, key: jax.Array):
    task_key, drop_key, mask_key, dropout_key = jax.random.split(key, 4)
    task = jax.random.categorical(task_key, jnp.log(weight_S))
    frozen = state.frozen["generator"]
    parts_BNF = factorize(tokens.of_batch(frozen, batch))
    if "ids" in batch:
      stored = [tokens.stored_condition(batch, name) for name in names]
      condition_BNF = factorize(jnp.stack(stored)[task])
    else:
      video = tokenizer_network.to_float(batch["video"])
      condition_BNF = condition_of(frozen, video, parts_BNF, task)
    repeat = lambda x: jnp.repeat(x, c.masks_per_clip, axis=0)
    parts_BNF, condition_BNF = repeat(parts_BNF), repeat(condition_BNF)
    label_B = repeat(batch["label"])
    batch_size = label_B.shape[0]
    dropped_B = jax.random.uniform(drop_key, (batch_size,)) < c.label_drop
    no_class = c.transformer.num_classes
    class_B = jnp.where(dropped_B | ~has_class_S[task], no_class, label_B)
    chosen_BN = sampling.training_mask(
      mask_key, batch_size, tokens.num, c.mask_ratio_per_clip
    )
    given_N = jnp.asarray(given_SN)[task]
    input_BNF = jnp.where(
      (chosen_BN & given_N)[..., None], condition_BNF, parts_BNF
    )
    masked_BN = chosen_BN & ~given_N

    def loss_fn(params, inputs, dropout_key):
      parts_BNF, input_BNF, masked_BN, class_B = inputs
      token_B = jnp.broadcast_to(token_S[task], class_B.shape)
      logits = transformer(
        params, input_BNF, masked_BN, class_B, token_B, dropout_key
      )
      everywhere_BN = jnp.ones(masked_BN.shape)
      loss, hits_BN = 0.0, True
      for f, logits_BNV in enumerate(logits):
        target_BN = parts_BNF[..., f]
        loss += generator_losses.masked_cross_entropy(
          logits_BNV, target_BN, everywhere_BN, c.label_smoothing
        )
        hits_BN &= logits_BNV.argmax(-1) == target_BN
      return loss, {
        "loss": loss,
        "masked_share": masked_BN.mean(),
        "masked_accuracy": (hits_BN & masked_BN).mean(),  # not yet of those
      }

    gradient, metrics = algorithm_lib.mean_gradient(
      loss_fn,
      state.params["transformer"],
      (parts_BNF, input_BNF, masked_BN, class_B),
      dropout_key,
      c.microbatches,
    )
    metrics["masked_accuracy"] /= jnp.maximum(metrics["masked_share"], 1e-9)
    metrics["gradient_norm"] = optax.tree.norm(gradient)
    state = algorithm_lib.descend(state, "transformer", gradient, adam)
    return state, metrics

  def sample(params, batch, key):
    """Generates clips: {"video": float32 in [0, 1], "ids": (B, t, h, w)}.

    batch: {"task": int32 (), place of the task in the config's list of tasks;
    "label": int32 (B,); "video": (B, T, H, W, 3), read where given}.
    """
    task = batch["task"]
    label_B = batch["label"]
    video = tokenizer_network.to_float(batch["video"])
    parts_BNF = jnp.zeros(
      (*label_B.shape, tokens.num, len(c.transformer.factor_bits)), jnp.int32
    )
    condition_BNF = condition_of(params["generator"], video, parts_BNF, task)
    grid = lambda table: jnp.broadcast_to(
      jnp.asarray(table)[task], (*label_B.shape, tokens.num)
    )
    given_BN, fixed_BN = grid(given_SN), grid(fixed_SN)
    no_class_B = jnp.full_like(label_B, c.transformer.num_classes)
    class_B = jnp.where(has_class_S[task], label_B, no_class_B)
    token_B = jnp.broadcast_to(token_S[task], label_B.shape)
    free_token = tasks.TASKS["class_conditional"].token
    free_token_B = (
      jnp.full_like(token_B, free_token)
      if "class_conditional" in names
      else token_B
    )

    def predict(parts_BNF, decided_BN, step):
      masked_BN = ~decided_BN & ~given_BN
      if not c.sampling.guidance:
        return transformer(
          params["transformer"], parts_BNF, masked_BN, class_B, token_B
        )
      # One pass over both halves; the second sees no class and no condition.
      stack = lambda a, b: jnp.concatenate([a, b])
      logits = transformer(
        params["transformer"],
        stack(parts_BNF, parts_BNF),
        stack(masked_BN, ~decided_BN | fixed_BN),
        stack(class_B, no_class_B),
        stack(token_B, free_token_B),
      )
      halves = [jnp.split(x, 2) for x in logits]
      guidance = sampling.guidance_at(
        step,
        c.sampling.steps,
        c.sampling.guidance,
        c.sampling.guidance_schedule,
        c.sampling.guidance_power,
      )
      return sampling.guide(
        [h[0] for h in halves],
        [h[1] for h in halves],
        guidance * noise_S[task],
      )

    parts_BNF = sampling.decode(
      key,
      predict,
      condition_BNF,
      fixed_BN,
      c.sampling.steps,
      c.sampling.schedule,
      c.sampling.choice_temperature * noise_S[task],
      c.sampling.temperature * noise_S[task],
    )
    ids_BN = bits_lib.defactorize(parts_BNF, c.transformer.factor_bits)
    completed = tokens.decode(params["generator"], ids_BN)
    if c.sampling.replace_condition_pixels:
      given_STHW = np.stack(
        [
          tasks.given_pixels(name, video.shape[1:4], c.condition_frames)
          for name in names
        ]
      )
      given_THW = jnp.asarray(given_STHW)[task]
      completed = jnp.where(given_THW[..., None], video, completed)
    return {
      "video": completed,
      "ids": ids_BN.reshape(*label_B.shape, *tokens.latent_shape),
    }

  return algorithm_lib.Algorithm(
    init=init,
    step=step,
    predict={"sample": sample},
    predict_networks=("transformer",),
    sharding_rules=c.mesh.rules,
    frozen={"generator": tokens.params},
  )


def define_transformer(
  config: ml_collections.ConfigDict, tokens: int
) -> network.Network:
  """The transformer of a config, for clips of this many tokens."""
  several_tasks = len(tasks.task_names(config)) > 1
  settings, dtype = tokens_lib.transformer_settings(config)
  return network.define(
    lambda rngs: masked_transformer.MaskedTransformer(
      num_tokens=tokens,
      task_slots=tasks.TASK_SLOTS if several_tasks else 0,
      **settings,
      rngs=rngs,
    ),
    dtype,
  )


def _check(config, tokens: tokens_lib.Tokens) -> list[str]:
  names = tasks.task_names(config)
  tokens.check_factors(config)
  if any("frame_prediction" in name for name in names):
    tasks.check_condition_frames(
      config.condition_frames,
      config.dataset.frames,
      tokens.sizes.time if tokens.sizes.causal else 1,
    )
  sampling.check_settings(config.sampling)
  return names
