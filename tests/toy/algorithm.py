"""A generator that draws each token by itself: the smallest algorithm."""

from collections.abc import Callable
import dataclasses
from typing import Any
from typing import ClassVar
from typing import Self

import jax
from jax.sharding import Mesh
import ml_collections
import optax

from magvit import algorithm as algorithm_lib
from magvit import optimizer
from magvit.generators import losses
from magvit.generators import tokens as tokens_lib
from models import network
from tests.toy import network as toy_network


@dataclasses.dataclass(frozen=True, eq=False)
class HistogramGenerator(algorithm_lib.Algorithm):
  facts: ClassVar = algorithm_lib.Facts(
    kind=algorithm_lib.GENERATOR,
    network="histogram",
    section="histogram",
    leading_metrics=("loss",),
    evaluators=("samples",),
    defining=("algorithm", "histogram", "tasks"),
  )

  tokens: tokens_lib.Tokens
  histogram: network.Network
  adam: optax.GradientTransformation

  @classmethod
  def build(
    cls, config: ml_collections.ConfigDict, mesh: Mesh, abstract: bool = False
  ) -> Self:
    tokens = tokens_lib.open_tokenizer(config, mesh, abstract)
    classes = config.histogram.num_classes
    return cls(
      config,
      tokens,
      network.define(
        lambda rngs: toy_network.Histogram(
          tokens.num, tokens.vocabulary, classes, rngs=rngs
        )
      ),
      optimizer.make_optimizer(config.optimizer, config.num_steps),
    )

  @property
  def predict(self) -> dict[str, Callable[[Any, Any, Any], Any]]:
    return {"sample": self.sample}

  @property
  def frozen(self) -> dict[str, Any]:
    return {"tokenizer": self.tokens.params}

  def init(self, key: jax.Array) -> algorithm_lib.TrainState:
    params = self.histogram.init(key)
    return algorithm_lib.first_state("histogram", params, self.adam)

  def step(self, state, batch, key):
    ids_BN = self.tokens.of_batch(state.frozen["tokenizer"], batch)
    gradient, metrics = algorithm_lib.mean_gradient(
      self.loss,
      state.params["histogram"],
      (ids_BN, batch["label"]),
      key,
      self.config.microbatches,
    )
    state = algorithm_lib.descend(state, "histogram", gradient, self.adam)
    return state, metrics

  def loss(self, params, inputs, key):
    del key  # nothing here is random
    ids_BN, label_B = inputs
    logits_BNV = self.histogram(params, label_B)
    loss = losses.cross_entropy(logits_BNV, ids_BN, 0.0).mean()
    return loss, {"loss": loss}

  def sample(self, params, batch, key):
    logits_BNV = self.histogram(params["histogram"], batch["label"])
    ids_BN = jax.random.categorical(key, logits_BNV)
    video = self.tokens.decode(params["tokenizer"], ids_BN)
    shape = (ids_BN.shape[0], *self.tokens.latent_shape)
    return {"video": video, "ids": ids_BN.reshape(shape)}
