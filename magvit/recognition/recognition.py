"""Algorithm: recognition of a clip's class, and pretraining on masked tokens.

MAGVIT-v2 (arXiv 2310.05737, section 4.3) judges tokens by what is recognised
from them as inputs, and as targets of masked modelling. With `pretraining`, the
network predicts the tokens of hidden positions (BEVT, arXiv 2112.01529); a run
from its weights (init_from) then learns the classes with a new head.
"""

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
from typing import Any
from typing import ClassVar
from typing import Self

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
import ml_collections
import optax

from magvit import algorithm as algorithm_lib
from magvit import optimizer
from magvit.algorithm import TrainState
from magvit.generators import losses
from magvit.generators import tokens as tokens_lib
from magvit.recognition import inputs as inputs_lib
from magvit.recognition import tubes
from models import network
from models.quantizers import bits as bits_lib
from models.transformers import attention
from models.transformers import recognizer

_TARGETS = (inputs_lib.OFF, "parts", "bits")


@dataclasses.dataclass(frozen=True, eq=False)
class Recognition(algorithm_lib.Algorithm):
  """A transformer that tells classes, or the tokens of hidden positions."""

  facts: ClassVar = algorithm_lib.Facts(
    kind=algorithm_lib.RECOGNIZER,
    network="recognizer",
    section="recognizer",
    leading_metrics=("loss", "accuracy"),
    evaluators=("recognition",),
    defining=("algorithm", "recognizer", "pretraining"),
  )

  inputs: inputs_lib.Inputs
  recognizer: network.Network
  adam: optax.GradientTransformation

  @classmethod
  def build(
    cls, config: ml_collections.ConfigDict, mesh: Mesh, abstract: bool = False
  ) -> Self:
    """Builds as `Algorithm.build` says, and reads the tokenizer, if any.

    Raises:
      ValueError: no tokenizer, a clip it rejects, or fields that contradict it.
    """
    if config.evaluation.protocols:
      raise ValueError(
        f"evaluation.protocols={tuple(config.evaluation.protocols)} measure"
        " clips that a model makes, and a recognizer makes none: set it to ()"
      )
    inputs = inputs_lib.open_inputs(config, mesh, abstract)
    return cls(
      config=config,
      inputs=inputs,
      recognizer=define_recognizer(config, inputs, mesh),
      adam=optimizer.make_optimizer(config.optimizer, config.num_steps),
    )

  @property
  def pretrains(self) -> bool:
    return self.config.pretraining.targets != inputs_lib.OFF

  @property
  def frozen(self) -> dict[str, Any]:
    tokens = self.inputs.tokens
    return {} if tokens is None else {"tokenizer": tokens.params}

  @property
  def predict(self) -> dict[str, Callable[[Any, Any, Any], Any]]:
    name = "complete" if self.pretrains else "classify"
    return {name: getattr(self, name), "features": self.features}

  def init(self, key: jax.Array) -> TrainState:
    params = self.recognizer.init(key)
    return algorithm_lib.first_state("recognizer", params, self.adam)

  def drawn_anew(self, source: ml_collections.ConfigDict) -> tuple[str, ...]:
    """Heads of this network that the source's has not, or of another size."""
    there, here = (_heads(c, self.inputs) for c in (source, self.config))
    return tuple(
      name for name, size in here.items() if size and there[name] != size
    )

  def step(
    self, state: TrainState, batch: Any, key: jax.Array
  ) -> tuple[TrainState, algorithm_lib.Metrics]:
    mask_key, dropout_key = jax.random.split(key)
    examples = {"x": self.inputs(state.frozen, batch)}
    examples["hidden"] = self.hidden(mask_key, len(examples["x"]))
    if self.pretrains:
      examples["ids"] = self.inputs.ids(state.frozen, batch)
    else:
      examples["label"] = batch["label"]
    gradient, metrics = algorithm_lib.mean_gradient(
      self.masked_loss if self.pretrains else self.class_loss,
      state.params["recognizer"],
      examples,
      dropout_key,
      self.config.microbatches,
    )
    metrics["gradient_norm"] = optax.tree.norm(gradient)
    state = algorithm_lib.descend(state, "recognizer", gradient, self.adam)
    return state, metrics

  def hidden(self, key: jax.Array, batch_size: int) -> jax.Array:
    """Tokens that the network does not see, bool (B, t, h, w).

    In pretraining they are tubes; else none, or all but the first frame's.
    """
    c, shape = self.config, self.inputs.latent_shape
    if self.pretrains:
      p = c.pretraining
      return tubes.draw(key, batch_size, shape, p.share, p.least_span)
    later_t = (jnp.arange(shape[0]) > 0) & c.recognizer.first_frame
    later_1t11 = later_t[None, :, None, None]
    return jnp.broadcast_to(later_1t11, (batch_size, *shape))

  def class_loss(
    self,
    params: Any,
    examples: Mapping[str, jax.Array],
    dropout_key: jax.Array | None,
  ) -> tuple[jax.Array, algorithm_lib.Metrics]:
    """Cross-entropy of the classes in nats, mean over clips, and metrics."""
    logits_BV = self.recognizer(
      params,
      examples["x"],
      examples["hidden"],
      dropout_key,
      method="classify",
    )
    loss = losses.cross_entropy(
      logits_BV, examples["label"], self.config.label_smoothing
    ).mean()
    hits_B = logits_BV.argmax(-1) == examples["label"]
    return loss, {"loss": loss, "accuracy": hits_B.mean()}

  def masked_loss(
    self,
    params: Any,
    examples: Mapping[str, jax.Array],
    dropout_key: jax.Array | None,
  ) -> tuple[jax.Array, algorithm_lib.Metrics]:
    """Loss of the hidden tokens in nats, mean over them and clips; metrics.

    `accuracy` is the share of them of which every part or bit is right.
    """
    logits = self.recognizer(
      params,
      examples["x"],
      examples["hidden"],
      dropout_key,
      method="complete",
    )
    loss_BN, hits_BN = self.target_losses(logits, examples["ids"])
    hidden_BN = examples["hidden"].reshape(loss_BN.shape)
    # Every clip has a hidden token.
    mean = lambda x_BN: ((x_BN * hidden_BN).sum(-1) / hidden_BN.sum(-1)).mean()
    loss = mean(loss_BN)
    return loss, {"loss": loss, "accuracy": mean(hits_BN)}

  def target_losses(
    self, logits: list[jax.Array], ids_BN: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    """(loss in nats, whether it is predicted) of each token, (B, N)."""
    p = self.config.pretraining
    if p.targets == "bits":
      [logits_BNK] = logits
      signs_BNK = bits_lib.ids_to_codes(ids_BN, logits_BNK.shape[-1])
      loss_BN = -jax.nn.log_sigmoid(signs_BNK * logits_BNK).sum(-1)
      return loss_BN, ((logits_BNK > 0) == (signs_BNK > 0)).all(-1)
    parts_BNF = bits_lib.factorize(ids_BN, p.factor_bits)
    loss_BN, hits_BN = jnp.zeros(ids_BN.shape), jnp.ones(ids_BN.shape, bool)
    for f, logits_BNV in enumerate(logits):
      loss_BN += losses.cross_entropy(logits_BNV, parts_BNF[..., f], 0.0)
      hits_BN &= logits_BNV.argmax(-1) == parts_BNF[..., f]
    return loss_BN, hits_BN

  def classify(self, params: Any, batch: Any, key: jax.Array) -> jax.Array:
    """Logits of the classes, float32 (B, classes), of clips."""
    x = self.inputs(params, batch)
    hidden = self.hidden(key, len(x))
    return self.recognizer(params["recognizer"], x, hidden, method="classify")

  def complete(
    self, params: Any, batch: Any, key: jax.Array
  ) -> dict[str, jax.Array]:
    """{"loss": (B, N), "hits": (B, N), "hidden": (B, N)} of clips' tokens."""
    x = self.inputs(params, batch)
    hidden = self.hidden(key, len(x))
    logits = self.recognizer(params["recognizer"], x, hidden, method="complete")
    ids_BN = self.inputs.ids(params, batch)
    loss_BN, hits_BN = self.target_losses(logits, ids_BN)
    hidden_BN = hidden.reshape(ids_BN.shape)
    return {"loss": loss_BN, "hits": hits_BN, "hidden": hidden_BN}

  def features(self, params: Any, batch: Any, key: jax.Array) -> jax.Array:
    """Mean features of clips, float32 (B, 3, D), at `recognizer.DEPTHS`."""
    del key
    x = self.inputs(params, batch)
    nothing = jnp.zeros((len(x), *self.inputs.latent_shape), bool)
    return self.recognizer(params["recognizer"], x, nothing, method="features")


def define_recognizer(
  config: ml_collections.ConfigDict,
  inputs: inputs_lib.Inputs,
  mesh: Mesh | None = None,
) -> network.Network:
  """The network of a config; it runs on the devices of a mesh, or on one.

  Raises:
    ValueError: a field that has not one of its values.
  """
  r = config.recognizer
  dtype = tokens_lib.find_dtype("recognizer", r.dtype)
  heads = _heads(config, inputs)
  _check_first_frame(config)

  def size(num_layers: int, tokens: int) -> attention.TransformerSize:
    return attention.TransformerSize(
      num_layers=num_layers,
      width=r.width,
      mlp_width=r.mlp_width,
      num_heads=r.num_heads,
      dropout=r.dropout,
      **tokens_lib.run_settings(r, tokens, mesh),
    )

  frames, height, width = inputs.latent_shape
  return network.define(
    lambda rngs: recognizer.Recognizer(
      inputs.channels,
      inputs.patch,
      inputs.latent_shape,
      size(r.spatial_layers, height * width),
      size(r.temporal_layers, frames),
      heads["classes"],
      heads["targets"],
      rngs=rngs,
    ),
    dtype,
  )


def _check_first_frame(config: ml_collections.ConfigDict) -> None:
  if config.recognizer.first_frame and config.pretraining.targets != "off":
    raise ValueError(
      "recognizer.first_frame=True hides frames whose tokens"
      f" pretraining.targets={config.pretraining.targets!r} predicts: leave"
      " either out"
    )


def _heads(
  config: ml_collections.ConfigDict, inputs: inputs_lib.Inputs
) -> dict[str, Any]:
  """Number of classes, and of logits of each target: 0 and () for no head.

  Raises:
    ValueError: targets that the tokens do not have.
  """
  p = config.pretraining
  if p.targets not in _TARGETS:
    raise ValueError(
      f"pretraining.targets={p.targets!r} must be one of {_TARGETS}"
    )
  if p.targets == inputs_lib.OFF:
    return {"classes": config.recognizer.num_classes, "targets": ()}
  bits = tuple(p.factor_bits)
  vocabulary = inputs.tokens.vocabulary if inputs.tokens else 2 ** sum(bits)
  if p.targets == "parts":
    if 2 ** sum(bits) != vocabulary:
      raise ValueError(
        f"pretraining.factor_bits={bits} must add up to log2 of the"
        f" {vocabulary} codes of the tokenizer in"
        f" {config.tokenizer_workdir}"
      )
    return {"classes": 0, "targets": tuple(2**b for b in bits)}
  if vocabulary & (vocabulary - 1):
    raise ValueError(
      f"pretraining.targets='bits' needs a power of two of codes, and the"
      f" tokenizer in {config.tokenizer_workdir} has {vocabulary}: set it to"
      " 'parts'"
    )
  return {"classes": 0, "targets": (vocabulary.bit_length() - 1,)}
