"""First weights of a new run: another model's, or random ones.

`config.init_from` names a workdir or an export. The averaged weights there
(those of a generator are not averaged) become the first weights, and average,
of the network of the same name; optimizer and discriminators start anew. A
resumed run does not read the folder, so it may be gone by then.
"""

from collections.abc import Sequence
import json
import logging
from typing import Any

from flax import traverse_util
import jax
from jax.sharding import Mesh
import ml_collections

from magvit import algorithm as algorithm_lib
from magvit import trained as trained_lib
from magvit.tokenizer import describe
from magvit.tokenizer import fingerprint
from magvit.workdir import folder as workdir_lib
from magvit.workdir import stored_config
from magvit.workdir import weights as weights_lib

log = logging.getLogger(__name__)

SCRATCH = "none"


def check(config: ml_collections.ConfigDict, workdir: str) -> None:
  """Checks before anything is written that a new run can start.

  Raises:
    ValueError: `init_from` holds nothing, a model of another kind, or a
      generator of other tokens; or two fields name first weights.
  """
  if config.init_from == SCRATCH or weights_lib.is_resumed(workdir):
    return
  _warn_of_other_settings(config, workdir_lib.read_config(_source(config)))
  facts = trained_lib.find_algorithm(config).facts
  for field, neutral in facts.weight_sources.items():
    if config[field] != neutral:
      raise ValueError(
        f"init_from={config.init_from} and {field}={config[field]} both give"
        f" the first weights: set {field}={neutral}, or init_from={SCRATCH}"
      )
  if not config.get("tokenizer_workdir", ""):
    return
  there = workdir_lib.own_tokenizer(config.init_from)
  if there is None:
    raise ValueError(
      f"init_from={config.init_from} lacks the tokenizer that made the tokens"
      " of its generator: name the whole workdir or export"
    )
  here = workdir_lib.own_tokenizer(workdir) or config.tokenizer_workdir
  names = [fingerprint.read_fingerprint(path) for path in (there, here)]
  if names[0] != names[1]:
    raise ValueError(
      f"init_from={config.init_from} generates the tokens of the tokenizer"
      f" {names[0][:16]}, and tokenizer_workdir={here} holds the tokenizer"
      f" {names[1][:16]}: set tokenizer_workdir={there}"
    )


def first_state(
  config: ml_collections.ConfigDict,
  algorithm: algorithm_lib.Algorithm,
  mesh: Mesh,
  state: algorithm_lib.TrainState,
) -> algorithm_lib.TrainState:
  """The state that a new run starts from; `state` is the random one.

  Raises:
    ValueError: an array of `init_from` that is missing, unknown or of another
      shape; it is named.
  """
  if config.init_from == SCRATCH:
    return algorithm.warm_start(state)
  path = _source(config)
  network = algorithm.facts.network
  kind = "ema" if network in state.ema else "params"
  anew = algorithm.drawn_anew(workdir_lib.read_config(path))
  abstract = jax.eval_shape(lambda x: x, state.params[network])
  if anew:
    abstract = _network_of(path, mesh)
  part = {kind: {network: abstract}}
  try:
    restored = weights_lib.restore_part(
      path, part, mesh, algorithm.sharding_rules
    )
  except ValueError as error:
    raise ValueError(f"init_from={config.init_from}: {error}") from error
  taken = restored[kind][network]
  if anew:
    taken = _with_new_parts(config, taken, state.params[network], anew)
  params = jax.tree.map(
    lambda new, old: jax.device_put(new, old.sharding),
    taken,
    state.params[network],
  )
  ema = {network: algorithm_lib.copy(params)} if kind == "ema" else {}
  log.info(
    "starting from the weights of step %d in %s",
    weights_lib.latest_step(path),
    path,
  )
  return state.replace(
    params={**state.params, network: params}, ema={**state.ema, **ema}
  )


def _network_of(path: str, mesh: Mesh) -> Any:
  """Shapes of the network in a folder, as its own config describes it."""
  source = workdir_lib.read_config(path)
  resolved = trained_lib.resolve(source, path, training=False)
  algorithm = trained_lib.build(resolved, mesh, abstract=True)
  state = jax.eval_shape(algorithm.init, jax.random.key(0))
  return state.params[algorithm.facts.network]


def _with_new_parts(
  config: ml_collections.ConfigDict,
  restored: dict[str, Any],
  drawn: dict[str, Any],
  anew: Sequence[str],
) -> dict[str, Any]:
  """The restored network, but for parts that stay as drawn.

  Raises:
    ValueError: an array of the others that is missing or of another shape.
  """
  taken = {**{k: restored.get(k) for k in drawn}, **{k: drawn[k] for k in anew}}
  shapes_of = lambda tree: {
    name: getattr(leaf, "shape", None)
    for name, leaf in traverse_util.flatten_dict(tree, sep=".").items()
  }
  there = shapes_of(taken)
  for name, expected in shapes_of(drawn).items():
    shape = there.get(name)
    if shape != expected:
      raise ValueError(
        f"init_from={config.init_from}: {name} has shape {shape}, expected"
        f" {expected}: name a model of the same size and input"
      )
  log.info("drawn anew: %s", ", ".join(anew))
  return taken


def _source(config: ml_collections.ConfigDict) -> str:
  """The folder whose weights a run starts from, once `init_from` is checked.

  A tokenizer may start from a generator's folder: from the tokenizer in it.
  """
  path = config.init_from
  if describe.is_tokenizer(config) and workdir_lib.has_config(path):
    path = workdir_lib.own_tokenizer(path) or path
  source = workdir_lib.read_config(path)
  weights_lib.latest_step(path)
  if source.algorithm != config.algorithm:
    raise ValueError(
      f"init_from={config.init_from} holds {source.name!r} of"
      f" algorithm={source.algorithm!r}, and this run has"
      f" algorithm={config.algorithm!r}: name a model of that algorithm"
    )
  return path


def _warn_of_other_settings(config, source) -> None:
  """Warns of settings that differ, which arrays of equal shapes would hide.

  They are no error: to go on with others can be the purpose.
  """
  defining = trained_lib.find_algorithm(config).facts.defining
  there, here = (
    traverse_util.flatten_dict(
      {s: json.loads(c.to_json())[s] for s in defining}, sep="."
    )
    for c in (source, config)
  )
  for field in sorted(there.keys() | here.keys()):
    before = stored_config.SINCE.get(field)  # what its absence stands for
    values = there.get(field, before), here.get(field, before)
    if values[0] != values[1]:
      log.warning(
        "init_from=%s was trained with %s=%s, and this run has %s",
        *(config.init_from, field, *values),
      )
