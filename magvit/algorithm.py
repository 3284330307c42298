"""The interface of an algorithm, and the state that it trains."""

import abc
from collections.abc import Callable
from collections.abc import Mapping
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
import optax

from magvit import mesh as mesh_lib

Metrics = dict[str, jax.Array]

# Kinds, as messages say them.
TOKENIZER, GENERATOR = "a tokenizer", "a generator"
RECOGNIZER = "a recognizer"


class TrainState(struct.PyTreeNode):
  """Everything a step reads and writes; each field is a tree of arrays."""

  step: jax.Array  # int32: number of steps done
  params: dict[str, Any]  # trained weights by network
  opt_state: dict[str, Any]  # state of the optimizer by network
  ema: dict[str, Any]  # moving averages of `params`, for some networks
  extras: dict[str, Any]  # running statistics of the algorithm
  frozen: dict[str, Any]  # weights that are read, never trained or saved

  def predict_params(self) -> dict[str, Any]:
    """Weights for predict functions: averages where kept, frozen networks."""
    return {**self.params, **self.ema, **self.frozen}


@dataclasses.dataclass(frozen=True)
class Facts:
  """Facts about an algorithm that the program needs before it is built.

  The fields of a config say what to train; these say how to treat it.
  """

  kind: str  # TOKENIZER, GENERATOR or RECOGNIZER
  network: str  # name of the trained network that predicts and is exported
  section: str  # config section of that network, with `dtype` and `remat`
  leading_metrics: tuple[str, ...]  # metrics in progress lines, in this order
  evaluators: tuple[str, ...]  # keys of magvit/scoring/held_out.py EVALUATORS
  # Config sections and fields that decide, beside the weights, what the network
  # computes: fingerprints and exports name a model by them.
  defining: tuple[str, ...]
  # Fields that name a source of the first weights, beside init_from -> their
  # value for no source, which a resumed run gives them.
  weight_sources: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  # Fields that name what only training needs -> their value without it.
  training_only: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  # Whether self-attention has a bias by place, which no kernel takes.
  attention_has_bias: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Algorithm(abc.ABC):
  """An algorithm: pure functions of arrays, and the facts about them.

  The training loop runs any of them. A subclass is a frozen dataclass that
  `build` makes from a config; docs/extend.md shows the smallest one.
  """

  facts: ClassVar[Facts]

  config: ml_collections.ConfigDict

  @classmethod
  @abc.abstractmethod
  def build(
    cls, config: ml_collections.ConfigDict, mesh: Mesh, abstract: bool = False
  ) -> Self:
    """Checks the config and describes the networks; allocates nothing large.

    Args:
      config: the whole experiment.
      mesh: devices that frozen networks are placed on.
      abstract: whether to read no weights, so that frozen networks have shapes
        alone.

    Raises:
      ValueError: fields that contradict each other, or weights that are not
        there; the field is named.
    """

  @abc.abstractmethod
  def init(self, key: jax.Array) -> TrainState:
    """Draws the first state; its field `frozen` stays empty."""

  @abc.abstractmethod
  def step(
    self, state: TrainState, batch: Any, key: jax.Array
  ) -> tuple[TrainState, Metrics]:
    """Trains one step on a global batch of `pipeline.train_batches`."""

  @property
  @abc.abstractmethod
  def predict(self) -> dict[str, Callable[[Any, Any, Any], Any]]:
    """Functions of (params, batch, key), by name.

    Params are those of `TrainState.predict_params`. The program calls
    "reconstruct", "encode" and "decode" of tokenizers, "sample" and
    "tokenized" of generators, "classify" of recognizers, and "features" of
    those whose layers are probed.
    """

  @property
  def frozen(self) -> dict[str, Any]:
    """Weights for `TrainState.frozen`: networks that are never trained."""
    return {}

  @property
  def sharding_rules(self) -> mesh_lib.Rules:
    """Rules that split the state's arrays, beside fsdp."""
    return self.config.mesh.rules

  def drawn_anew(self, source: ml_collections.ConfigDict) -> tuple[str, ...]:
    """Parts that a run from another's weights (init_from) does not take.

    They are entries of the parameters of the network, which stay as drawn; the
    network of `source`, a config of this algorithm, may have others instead.
    """
    del source
    return ()

  def measured(self, mesh: Mesh) -> Self:
    """The algorithm with what a new run measures in its data before step 0.

    A resumed run, and whatever opens a trained model, reads it instead.
    """
    del mesh
    return self

  def warm_start(self, state: TrainState) -> TrainState:
    """Changes the first state of a new run; a resumed run does not call it."""
    return state


def first_state(
  name: str, params: Any, adam: optax.GradientTransformation
) -> TrainState:
  """Makes the first state of one network, without a moving average."""
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params={name: params},
    opt_state={name: adam.init(params)},
    ema={},
    extras={},
    frozen={},
  )


def mean_gradient(
  loss_fn: Callable[[Any, Any, jax.Array], tuple[jax.Array, Metrics]],
  params: Any,
  batch: Any,
  key: jax.Array,
  microbatches: int,
) -> tuple[Any, Metrics]:
  """Computes (gradient, metrics) of a loss that is a mean over the batch.

  `loss_fn(params, batch, key)` sees the batch in `microbatches` parts in turn,
  so that activations of one part exist at a time.
  """
  gradient_fn = jax.grad(loss_fn, has_aux=True)
  if microbatches == 1:
    return gradient_fn(params, batch, key)
  parts = _split(batch, microbatches)

  def add(total, inputs):
    part, index = inputs
    new = gradient_fn(params, part, jax.random.fold_in(key, index))
    return jax.tree.map(jnp.add, total, new), None

  zeros = jax.tree.map(
    lambda x: jnp.zeros(x.shape, x.dtype),
    jax.eval_shape(
      gradient_fn, params, jax.tree.map(lambda x: x[0], parts), key
    ),
  )
  total, _ = lax.scan(add, zeros, (parts, jnp.arange(microbatches)))
  return jax.tree.map(lambda x: x / microbatches, total)


def in_parts(function: Callable, microbatches: int) -> Callable:
  """Wraps a function of arrays (B, ...) so that it sees the batch in parts.

  For functions that do the same to each example: values and gradients are
  those of the whole. The backward pass recomputes each part, so that
  activations of one part exist at a time.
  """
  if microbatches == 1:
    return function

  def mapped(*arrays):
    one = jax.checkpoint(lambda part: function(*part), prevent_cse=False)
    outputs = lax.map(one, _split(arrays, microbatches))
    return jax.tree.map(
      lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:]), outputs
    )

  return mapped


def _split(batch: Any, microbatches: int) -> Any:
  """Splits arrays (B, ...) into (microbatches, B / microbatches, ...).

  A part has every k-th example, so that examples stay on their devices.
  """
  return jax.tree.map(
    lambda x: x.reshape(-1, microbatches, *x.shape[1:]).swapaxes(0, 1), batch
  )


def descend(
  state: TrainState,
  name: str,
  gradient: Any,
  adam: optax.GradientTransformation,
) -> TrainState:
  """Takes a step along the gradient from a state like `first_state`'s."""
  updates, opt_state = adam.update(
    gradient, state.opt_state[name], state.params[name]
  )
  params = optax.apply_updates(state.params[name], updates)
  return state.replace(
    step=state.step + 1, params={name: params}, opt_state={name: opt_state}
  )


def described(algorithm: Algorithm, mesh: Mesh) -> TrainState:
  """Shapes and shardings of a state, frozen networks included."""
  drawn = jax.eval_shape(algorithm.init, jax.random.key(0))
  place = lambda tree, rules: jax.tree.map(
    lambda x, sharding: jax.ShapeDtypeStruct(
      x.shape, x.dtype, sharding=sharding
    ),
    tree,
    mesh_lib.state_shardings(tree, mesh, rules),
  )
  frozen = place(algorithm.frozen, ())
  return place(drawn, algorithm.sharding_rules).replace(frozen=frozen)


def place_frozen(algorithm: Algorithm, mesh: Mesh) -> dict[str, Any]:
  """The weights of networks that are never trained, on the mesh."""
  shardings = mesh_lib.state_shardings(algorithm.frozen, mesh)
  return jax.device_put(algorithm.frozen, shardings)


def create(algorithm: Algorithm, mesh: Mesh, key: jax.Array) -> TrainState:
  """Creates the first state in shards: no device ever holds all of it."""
  shardings = shardings_of(described(algorithm, mesh).replace(frozen={}))
  # XLA would spend 20 s on a CPU optimising a small network's random numbers.
  on_cpu = mesh.devices.flat[0].platform == "cpu"
  state = jax.jit(
    algorithm.init,
    out_shardings=shardings,
    compiler_options={"xla_backend_optimization_level": 0} if on_cpu else None,
  )(key)
  return state.replace(frozen=place_frozen(algorithm, mesh))


def shardings_of(state: TrainState) -> TrainState:
  return jax.tree.map(lambda leaf: leaf.sharding, state)


def update_ema(ema: Any, params: Any, decay: float) -> Any:
  return jax.tree.map(lambda e, p: decay * e + (1.0 - decay) * p, ema, params)


def copy(tree: Any) -> Any:
  """Copies to distinct buffers: a donated state must not hold one twice."""
  return jax.tree.map(jnp.copy, tree)
