"""A generator that draws each token by itself: the smallest algorithm."""

import dataclasses
from typing import ClassVar
from typing import Self

import jax
from jax.sharding import Mesh
import ml_collections

from magvit import algorithm as algorithm_lib
from magvit import optimizer
from magvit.generators import generator
from magvit.generators import losses
from magvit.generators import tasks as tasks_lib
from magvit.generators import tokens as tokens_lib
from models import network
from tests.toy import network as toy_network


@dataclasses.dataclass(frozen=True, eq=False)
class HistogramGenerator(generator.TokenGenerator):
  facts: ClassVar = algorithm_lib.Facts(
    kind=algorithm_lib.GENERATOR,
    network="histogram",
    section="histogram",
    leading_metrics=("loss",),
    evaluators=("samples",),
    defining=("algorithm", "histogram", "tasks"),
  )

  @classmethod
  def build(
    cls, config: ml_collections.ConfigDict, mesh: Mesh, abstract: bool = False
  ) -> Self:
    tokens = tokens_lib.open_tokenizer(config, mesh, abstract)
    classes = config.histogram.num_classes
    make = lambda rngs: toy_network.Histogram(
      tokens.num, tokens.vocabulary, classes, rngs=rngs
    )
    return cls(
      config=config,
      tokens=tokens,
      transformer=network.define(make),
      tasks=tasks_lib.TaskTable.from_config(config),
      adam=optimizer.make_optimizer(config.optimizer, config.num_steps),
    )

  def step(self, state, batch, key):
    ids_BN = self.tokens.of_batch(state.frozen["tokenizer"], batch)
    gradient, metrics = algorithm_lib.mean_gradient(
      self.loss,
      state.params["histogram"],
      (ids_BN, batch["label"]),
      key,
      self.config.microbatches,
    )
    return self.descend(state, gradient, metrics)

  def loss(self, params, inputs, key):
    del key  # nothing here is random
    ids_BN, label_B = inputs
    logits_BNV = self.transformer(params, label_B)
    loss = losses.cross_entropy(logits_BNV, ids_BN, 0.0).mean()
    return loss, {"loss": loss}

  def sample(self, params, batch, key):
    logits_BNV = self.transformer(params["histogram"], batch["label"])
    ids_BN = jax.random.categorical(key, logits_BNV)
    return {
      "video": self.tokens.decode(params["tokenizer"], ids_BN),
      "ids": ids_BN.reshape(ids_BN.shape[0], *self.tokens.latent_shape),
    }
