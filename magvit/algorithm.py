"""What an algorithm is, and the state it trains."""

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

TOKENIZER, GENERATOR = "a tokenizer", "a generator"  # kinds, in messages


class TrainState(struct.PyTreeNode):
  """Everything a step reads and writes; each field is a tree of arrays."""

  step: jax.Array  # int32: steps done
  params: dict[str, Any]  # by network
  opt_state: dict[str, Any]  # by network
  ema: dict[str, Any]  # moving average of `params`, of networks that keep one
  extras: dict[str, Any]  # the algorithm's own running statistics
  frozen: dict[str, Any]  # networks that are read, never trained or saved

  def predict_params(self) -> dict[str, Any]:
    """What predict functions take: averages where kept, frozen networks."""
    return {**self.params, **self.ema, **self.frozen}


@dataclasses.dataclass(frozen=True)
class Facts:
  """What the rest of the program knows of an algorithm before it is built.

  A config says by its own fields what to train; these say how to treat it.
  """

  kind: str  # TOKENIZER or GENERATOR, in the words of messages
  network: str  # the trained network that predicts and is exported
  section: str  # the config section of that network, with `dtype` and `remat`
  leading_metrics: tuple[str, ...]  # shown in progress lines, in this order
  evaluators: tuple[str, ...]  # keys of magvit/scoring/held_out.py EVALUATORS
  # Config sections and fields that decide, beside the weights, what the network
  # computes: fingerprints and exports name a model by them.
  defining: tuple[str, ...]
  # Fields that name where the first weights come from, beside init_from, and
  # their value if they name nothing. A resumed run does not read them.
  weight_sources: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  # Fields of what only training needs, and their value without it.
  training_only: Mapping[str, Any] = dataclasses.field(default_factory=dict)


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
      mesh: the devices that frozen networks are placed on.
      abstract: reads no weights: those of frozen networks are shapes alone.

    Raises:
      ValueError: fields that contradict each other, or weights that are not
        there; the field is named.
    """

  @abc.abstractmethod
  def init(self, key: jax.Array) -> TrainState:
    """The first state, random; the field `frozen` stays empty."""

  @abc.abstractmethod
  def step(
    self, state: TrainState, batch: Any, key: jax.Array
  ) -> tuple[TrainState, Metrics]:
    """One step of training on a global batch of `pipeline.train_batches`."""

  @property
  @abc.abstractmethod
  def predict(self) -> dict[str, Callable[[Any, Any, Any], Any]]:
    """Functions (params, batch, key) by name.

    Params are those of `TrainState.predict_params`. Names with a meaning are
    "reconstruct", "encode" and "decode" of tokenizers, "sample" of generators.
    """

  @property
  def frozen(self) -> dict[str, Any]:
    """Weights for `TrainState.frozen`: networks that are never trained."""
    return {}

  @property
  def sharding_rules(self) -> mesh_lib.Rules:
    """Rules of the state's arrays, beside fsdp."""
    return self.config.mesh.rules

  def warm_start(self, state: TrainState) -> TrainState:
    """The first state of a new run, from a random one; never on resuming."""
    return state


def first_state(
  name: str, params: Any, adam: optax.GradientTransformation
) -> TrainState:
  """The first state of an algorithm of one network that keeps no average."""
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
  """(gradient, metrics) of a loss that is a mean over the batch.

  `loss_fn(params, batch, key)` sees `microbatches` parts of the batch one after
  the other, so its activations are of one part at a time.
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
  """`function` of arrays (B, ...), which sees parts of the batch in turn.

  For functions that do the same to each example: values and gradients are
  those of the whole. On the way backwards each part is computed again, so that
  activations are of one part at a time.
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
  """(microbatches, B / microbatches, ...) of arrays (B, ...).

  Every k-th example makes a part, which leaves each on its device.
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
  """The state of `first_state` after a step along the gradient."""
  updates, opt_state = adam.update(
    gradient, state.opt_state[name], state.params[name]
  )
  params = optax.apply_updates(state.params[name], updates)
  return state.replace(
    step=state.step + 1, params={name: params}, opt_state={name: opt_state}
  )


def create(algorithm: Algorithm, mesh: Mesh, key: jax.Array) -> TrainState:
  """The initial state, born sharded: no device ever holds all of it."""
  shardings = mesh_lib.state_shardings(
    jax.eval_shape(algorithm.init, key), mesh, algorithm.sharding_rules
  )
  # XLA:CPU spends 20 s optimising the random numbers of a small network.
  on_cpu = mesh.devices.flat[0].platform == "cpu"
  state = jax.jit(
    algorithm.init,
    out_shardings=shardings,
    compiler_options={"xla_backend_optimization_level": 0} if on_cpu else None,
  )(key)
  frozen = jax.device_put(
    algorithm.frozen, mesh_lib.state_shardings(algorithm.frozen, mesh)
  )
  return state.replace(frozen=frozen)


def shardings_of(state: TrainState) -> TrainState:
  return jax.tree.map(lambda leaf: leaf.sharding, state)


def update_ema(ema: Any, params: Any, decay: float) -> Any:
  return jax.tree.map(lambda e, p: decay * e + (1.0 - decay) * p, ema, params)


def copy(tree: Any) -> Any:
  """Distinct buffers: a donated state must not hold one array twice."""
  return jax.tree.map(jnp.copy, tree)
