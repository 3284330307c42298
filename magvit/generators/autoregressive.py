"""Algorithm: autoregressive modelling of tokens, one at a time.

The AR-LM that MAGVIT-v2 (arXiv 2310.05737) compares tokenizers with. Each step
draws one task. `class_conditional` predicts every token of the clip from its
class; frame prediction, with a class or without, is given the first latents,
which under the causal tokenizer are those of the first frames alone: they are a
prefix of the sequence, and carry no loss.
"""

from collections.abc import Callable
import dataclasses
from typing import Any
from typing import ClassVar
from typing import Self

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
from magvit.generators import losses as generator_losses
from magvit.generators import sampling
from magvit.generators import tasks as tasks_lib
from magvit.generators import tokens as tokens_lib
from models import network
from models.tokenizer import tokenizer as tokenizer_network
from models.transformers import autoregressive as ar_transformer

# Tasks whose given tokens are a prefix of the sequence, exact under causality.
_TASKS = (
  "class_conditional",
  "frame_prediction",
  "class_conditional_frame_prediction",
)


@dataclasses.dataclass(frozen=True, eq=False)
class AutoregressiveGenerator(generator.TokenGenerator):
  """A causal transformer on the tokens of a frozen tokenizer."""

  facts: ClassVar = algorithm_lib.Facts(
    kind=algorithm_lib.GENERATOR,
    network="transformer",
    section="transformer",
    leading_metrics=("loss",),
    evaluators=("samples",),
    defining=tokens_lib.DEFINING,
  )

  given_S: np.ndarray  # int32: number of leading tokens that a task is given

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
    given = [
      tasks_lib.given_latents(
        name, tokens.latent_shape, c.condition_frames, tokens.sizes.time
      ).sum()
      for name in table.names
    ]
    return cls(
      config=c,
      tokens=tokens,
      transformer=define_transformer(c, tokens.num, mesh),
      tasks=table,
      given_S=np.array(given, np.int32),
      adam=optimizer.make_optimizer(c.optimizer, c.num_steps),
    )

  def step(
    self, state: TrainState, batch: Any, key: jax.Array
  ) -> tuple[TrainState, algorithm_lib.Metrics]:
    task_key, drop_key, dropout_key = jax.random.split(key, 3)
    task = self.tasks.draw(task_key)
    parts_BNF = self.factorize(
      self.tokens.tokenize_batch(state.frozen["tokenizer"], batch)
    )
    label_B = batch["label"]
    label_drop = self.config.label_drop
    dropped_B = jax.random.uniform(drop_key, label_B.shape) < label_drop
    gradient, metrics = algorithm_lib.mean_gradient(
      lambda params, clips, key: self.loss(
        params, clips[0], clips[1], task, key
      ),
      state.params["transformer"],
      (parts_BNF, self.classes(task, label_B, dropped_B)),
      dropout_key,
      self.config.microbatches,
    )
    return self.descend(state, gradient, metrics)

  def loss(
    self,
    params: Any,
    parts_BNF: jax.Array,
    class_B: jax.Array,
    task: jax.Array,
    dropout_key: jax.Array | None,
  ) -> tuple[jax.Array, algorithm_lib.Metrics]:
    """Cross-entropy in nats of the tokens that are not given, and metrics."""
    given = jnp.asarray(self.given_S)[task]
    predicted_1N = jnp.arange(self.tokens.num)[None] >= given
    loss_BN, hits_BN = token_losses(
      self.transformer,
      params,
      parts_BNF,
      class_B,
      given,
      dropout_key,
      self.config.label_smoothing,
      self.config.loss_chunks,
    )
    mean = lambda x_BN: (x_BN * predicted_1N).mean() / predicted_1N.mean()
    return mean(loss_BN), {"loss": mean(loss_BN), "accuracy": mean(hits_BN)}

  def condition(
    self, params: Any, video_BTHWC: jax.Array, batch_size: int
  ) -> jax.Array:
    """Sub-tokens (B, M, F) of the first frames; none if no task is given any.

    By causality these frames alone give the first tokens of the whole clip.
    """
    longest = int(self.given_S.max())
    if not longest:
      return self.factorize(jnp.zeros((batch_size, 0), jnp.int32))
    frames = tokenizer_network.to_float(
      video_BTHWC[:, : self.config.condition_frames]
    )
    ids = self.tokens.network(params, frames, method="encode")
    return self.factorize(ids.reshape(batch_size, longest))

  @property
  def predict(self) -> dict[str, Callable[[Any, Any, Any], Any]]:
    return {**super().predict, "features": self.features}

  def features(self, params: Any, batch: Any, key: jax.Array) -> jax.Array:
    """Mean features of whole clips by depth, float32 (B, L + 1, D)."""
    del key
    inputs = self.whole_clips(params, batch)
    return self.transformer(params["transformer"], *inputs, method="depths")

  def sample(
    self, params: Any, batch: Any, key: jax.Array
  ) -> dict[str, jax.Array]:
    task, label_B = batch["task"], batch["label"]
    parts_BNF = generate(
      self.transformer,
      params["transformer"],
      key,
      self.tokens.num,
      self.classes(task, label_B, False),
      self.condition(params["tokenizer"], batch["video"], label_B.shape[0]),
      jnp.asarray(self.given_S)[task],
      self.config.transformer.num_classes,
      self.config.sampling,
    )
    return self.decode(params, parts_BNF)


def token_losses(
  transformer: network.Network,
  params: Any,
  parts_BNF: jax.Array,
  class_B: jax.Array,
  given: int | jax.Array,
  dropout_key: jax.Array | None,
  label_smoothing: float,
  chunks: int,
) -> tuple[jax.Array, jax.Array]:
  """Loss of each token in nats, summed over the heads, and whether all hit.

  Both are (B, N). Logits of N / chunks tokens exist at a time, also in the
  backward pass, which rematerialises them: those of all tokens, over 2^18
  values, would take 1.3 GB for a clip of 1,280 tokens, and so would each copy.
  """
  x_BND = transformer(
    params, parts_BNF, class_B, given, dropout_key, method="features"
  )
  batch, tokens, factors = parts_BNF.shape

  @jax.checkpoint
  def compute_chunk(chunk):
    x_BnD, parts_BnF = chunk
    loss_Bn, hits_Bn = 0.0, True
    for f in range(factors):
      logits_BnV = transformer(
        params, x_BnD, parts_BnF[..., :f], method="logits"
      )
      target_Bn = parts_BnF[..., f]
      loss_Bn += generator_losses.cross_entropy(
        logits_BnV, target_Bn, label_smoothing
      )
      hits_Bn &= logits_BnV.argmax(-1) == target_Bn
    return loss_Bn, hits_Bn

  in_chunks = (batch, chunks, tokens // chunks)
  split = lambda a: a.reshape(*in_chunks, a.shape[-1]).swapaxes(0, 1)
  join = lambda a: a.swapaxes(0, 1).reshape(batch, tokens)
  loss, hits = lax.map(compute_chunk, (split(x_BND), split(parts_BNF)))
  return join(loss), join(hits)


def generate(
  transformer: network.Network,
  params: Any,
  key: jax.Array,
  num_tokens: int,
  class_B: jax.Array,
  prompt_BMF: jax.Array,
  given: int | jax.Array,
  no_class: int,
  settings: ml_collections.ConfigDict,
) -> jax.Array:
  """Samples the tokens of a batch of clips: int32 (B, N, F).

  One loop over the tokens that are not given, each step on one position and
  the cache of those before. With guidance a step runs on two halves, of which
  the second sees no class; both see the given tokens, which cannot be left out
  of a sequence. Sub-token f of token n is drawn with the key folded with n,
  then f, from the guided logits over the temperature, truncated.

  Args:
    transformer: an `ArTransformer`.
    params: its parameters.
    key: PRNG key.
    num_tokens: N.
    class_B: int32 in 0..no_class.
    prompt_BMF: begins with the given tokens; the rest is ignored.
    given: number of given tokens, at most M and below N.
    no_class: the class that means "no class".
    settings: `guidance`, `temperature`, `top_k` and `top_p`, not traced.
  """
  params = transformer.cast(params)
  batch, prompt, factors = prompt_BMF.shape
  guided = bool(settings.guidance)
  twice = lambda a: jnp.concatenate([a, a]) if guided else a
  classes = class_B
  if guided:
    classes = jnp.concatenate([class_B, jnp.full_like(class_B, no_class)])

  def one_token(n, carry):
    parts_BNF, cache = carry
    previous_BF = twice(parts_BNF[:, n - 1])
    x_B1D, cache = transformer(
      params, previous_BF, classes, n, cache, method="step"
    )
    token_key = jax.random.fold_in(key, n)
    for f in range(factors):
      earlier_B1f = twice(parts_BNF[:, n, :f])[:, None]
      logits_BV = transformer(params, x_B1D, earlier_B1f, method="logits")[:, 0]
      part_key = jax.random.fold_in(token_key, f)
      drawn_B = _draw(part_key, logits_BV, settings)
      parts_BNF = parts_BNF.at[:, n, f].set(drawn_B)
    return parts_BNF, cache

  cache = transformer(params, twice(prompt_BMF), classes, given, method="start")
  parts_BNF = jnp.zeros((batch, num_tokens, factors), jnp.int32)
  parts_BNF = parts_BNF.at[:, :prompt].set(prompt_BMF)
  start = (parts_BNF, cache)
  return lax.fori_loop(given, num_tokens, one_token, start)[0]


def _draw(
  key: jax.Array, logits_BV: jax.Array, settings: ml_collections.ConfigDict
) -> jax.Array:
  """Draws sub-tokens (B,); with guidance, logits are those of both halves."""
  if settings.guidance:
    conditional_BV, unconditional_BV = jnp.split(logits_BV, 2)
    (logits_BV,) = sampling.guide(
      [conditional_BV], [unconditional_BV], settings.guidance
    )
  logits_BV /= settings.temperature
  logits_BV = sampling.truncate(logits_BV, settings.top_k, settings.top_p)
  return jax.random.categorical(key, logits_BV)


def define_transformer(
  config: ml_collections.ConfigDict, tokens: int, mesh: Mesh | None = None
) -> network.Network:
  """The transformer of a config, for clips of this many tokens.

  It runs on the devices of a mesh; without one, on one device.
  """
  settings, dtype = tokens_lib.transformer_settings(config, tokens, mesh)
  return network.define(
    lambda rngs: ar_transformer.ArTransformer(
      num_tokens=tokens, **settings, rngs=rngs
    ),
    dtype,
  )


def _check(
  config: ml_collections.ConfigDict, tokens: tokens_lib.Tokens
) -> None:
  names = tasks_lib.task_names(config)
  if set(names) - set(_TASKS):
    raise ValueError(
      f"tasks={dict(config.tasks)} of an autoregressive model can only be"
      f" {', '.join(_TASKS)}, whose condition is a prefix of the tokens: for"
      " others train a masked model"
    )
  tokens_lib.check_no_images(config)
  tokens.check_factors(config)
  predicts = [name for name in names if tasks_lib.needs_clip(name)]
  if predicts:
    if not tokens.sizes.causal:
      raise ValueError(
        f"tasks.{predicts[0]} needs a causal tokenizer, and that in"
        f" tokenizer_workdir={config.tokenizer_workdir} is not: set"
        f" tasks.{predicts[0]}=0, or name a causal one"
      )
    tasks_lib.check_condition_frames(
      config.condition_frames, config.dataset.frames, tokens.sizes.time
    )
  if config.loss_chunks < 1 or tokens.num % config.loss_chunks:
    raise ValueError(
      f"loss_chunks={config.loss_chunks} must divide the {tokens.num} tokens"
      " of a clip, as 1 does"
    )
  settings = config.sampling
  sampling.check_truncation(
    settings.temperature, settings.top_k, settings.top_p
  )
