"""Generators: one network on what a frozen tokenizer makes of clips."""

import abc
from collections.abc import Callable
import dataclasses
from typing import Any

import jax
from jax import lax
import jax.numpy as jnp
import optax

from magvit import algorithm as algorithm_lib
from magvit.algorithm import TrainState
from magvit.generators import tasks as tasks_lib
from magvit.generators import tokens as tokens_lib
from models import network
from models.quantizers import bits as bits_lib
from models.tokenizer import tokenizer as tokenizer_network


@dataclasses.dataclass(frozen=True, eq=False)
class Generator(algorithm_lib.Algorithm):
  """A generator of clips by tasks, whatever it models them as.

  A subclass adds `build`, `step`, `sample` and `tokenized`. Arrays over the
  config's tasks have the axis S.
  """

  tasks: tasks_lib.TaskTable
  adam: optax.GradientTransformation

  @property
  def predict(self) -> dict[str, Callable[[Any, Any, Any], Any]]:
    return {"sample": self.sample, "tokenized": self.tokenized}

  @abc.abstractmethod
  def sample(
    self, params: Any, batch: Any, key: jax.Array
  ) -> dict[str, jax.Array]:
    """Generates clips: {"video": float32 in [0, 1]}.

    Where clips have tokens, "ids", int32 (B, t, h, w), are beside them.

    Args:
      params: those of the network and of the tokenizer.
      batch: {"task": int32 (), place of the task in `tasks.names`; "label":
        int32 (B,); "video": (B, T, H, W, 3), read where pixels are given}.
      key: PRNG key.
    """

  @abc.abstractmethod
  def tokenized(
    self, params: Any, batch: Any, key: jax.Array
  ) -> dict[str, jax.Array]:
    """A batch's clips encoded and decoded, {"video": float32 in [0, 1]}.

    No sample shows a clip more faithfully than its own tokens do.
    """

  def finish(
    self, params: Any, batch: Any, completed_BTHWC: jax.Array, key: jax.Array
  ) -> jax.Array:
    """Completions of a batch with what `config.sampling` puts into pixels.

    The arguments are those of `sample`; clips are float32 in [0, 1].
    """
    c = self.config
    video_BTHWC = tokenizer_network.to_float(batch["video"])
    whole_S = self.tasks.whole_frames(
      video_BTHWC.shape[1:4], c.condition_frames
    )
    tokenize = lambda clips: self.tokenized(params, {"video": clips}, key)[
      "video"
    ]
    return self.tasks.finish(
      c.sampling,
      batch["task"],
      completed_BTHWC,
      video_BTHWC,
      c.condition_frames,
      # Tasks without whole frames need no tokens of their condition clip.
      lambda clips: lax.cond(
        jnp.asarray(whole_S)[batch["task"]], tokenize, lambda x: x, clips
      ),
    )

  def classes(
    self, task: jax.Array, label_B: jax.Array, dropped_B: bool | jax.Array
  ) -> jax.Array:
    """The class that each clip is told; "no class" where dropped."""
    has_class = jnp.asarray(self.tasks.has_class_S)[task]
    no_class = self.config[self.facts.section].num_classes
    return jnp.where(dropped_B | ~has_class, no_class, label_B)


@dataclasses.dataclass(frozen=True, eq=False)
class TokenGenerator(Generator):
  """A generator of tokens that keeps no average of its network."""

  tokens: tokens_lib.Tokens
  transformer: network.Network  # `facts.network` is the name in params

  @property
  def frozen(self) -> dict[str, Any]:
    return {"tokenizer": self.tokens.params}

  def init(self, key: jax.Array) -> TrainState:
    params = self.transformer.init(key)
    return algorithm_lib.first_state(self.facts.network, params, self.adam)

  def tokenized(
    self, params: Any, batch: Any, key: jax.Array
  ) -> dict[str, jax.Array]:
    del key
    video_BTHWC = tokenizer_network.to_float(batch["video"])
    ids_BN = self.tokens.encode(params["tokenizer"], video_BTHWC)
    return {"video": self.tokens.decode(params["tokenizer"], ids_BN)}

  def whole_clips(self, params: Any, batch: Any) -> tuple[jax.Array, jax.Array]:
    """Sub-tokens (B, N, F) of a batch's clips, and "no class" (B,) for each."""
    ids_BN = self.tokens.tokenize_batch(params["tokenizer"], batch)
    no_class = self.config[self.facts.section].num_classes
    return self.factorize(ids_BN), jnp.full(len(ids_BN), no_class, jnp.int32)

  def factorize(self, ids: jax.Array) -> jax.Array:
    """Sub-tokens (..., F)."""
    return bits_lib.factorize(ids, self.config[self.facts.section].factor_bits)

  def decode(self, params: Any, parts_BNF: jax.Array) -> dict[str, jax.Array]:
    """Clips and ids, as `sample` returns them, of sub-tokens."""
    factor_bits = self.config[self.facts.section].factor_bits
    ids_BN = bits_lib.defactorize(parts_BNF, factor_bits)
    return {
      "video": self.tokens.decode(params["tokenizer"], ids_BN),
      "ids": ids_BN.reshape(ids_BN.shape[0], *self.tokens.latent_shape),
    }

  def descend(
    self, state: TrainState, gradient: Any, metrics: algorithm_lib.Metrics
  ) -> tuple[TrainState, algorithm_lib.Metrics]:
    """The state after a step against the gradient, whose norm is a metric."""
    metrics = {**metrics, "gradient_norm": optax.tree.norm(gradient)}
    name = self.facts.network
    state = algorithm_lib.descend(state, name, gradient, self.adam)
    return state, metrics
