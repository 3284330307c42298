"""--fit: the mesh, microbatches and remat with which a step fits and is fast.

Every way to spread the step is estimated; the config as it is and then the most
promising others are compiled, each of which corrects the estimates.
"""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
import datetime
import functools
import logging
import math
import time
from typing import Any

import jax
from jax.sharding import Mesh
import ml_collections

from magvit import algorithm as algorithm_lib
from magvit import mesh as mesh_lib
from magvit import trained as trained_lib
from magvit.cost import activations
from magvit.cost import chips
from magvit.cost import compiled
from magvit.cost import estimate as estimate_lib
from magvit.cost import flops
from magvit.cost import programs as cost_programs
from magvit.cost import remedies
from models import network
from models import remat as remat_lib

log = logging.getLogger(__name__)

_MOST_COMPILED = 5
_EQUAL = 0.02  # shapes whose times differ by this share count as equally fast
_FULL = 0.97  # share of the memory that an estimate may fill
_TENSORS = (1, 2, 4, 8)
_TILE = 128  # smallest piece of a dimension that a chip sends well


@dataclasses.dataclass(frozen=True)
class Tried:
  """A shape that was compiled: what was expected, and what came out."""

  shape: estimate_lib.Shape
  changes: dict[str, Any]  # fields that differ from the config
  expected: estimate_lib.Estimate
  figures: dict[str, Any]

  @property
  def least(self) -> float:
    return self.figures["seconds"]["least"]


@dataclasses.dataclass(frozen=True)
class Fitted:
  """The outcome of a search.

  best: the fastest that fits, of equally fast ones that with fewest changes.
  """

  tried: list[Tried]
  best: Tried
  memory_gib: float  # memory of a device

  def lines(self) -> list[str]:
    """Lines of text: what was tried, the choice, and the smallest change."""
    lines = [f"fit, {len(self.tried)} ways compiled:"]
    lines += [f"  {describe(one, self.memory_gib)}" for one in self.tried]
    smallest = self._smallest()
    if smallest is not self.best:
      lines.append(f"  smallest change that fits: {flags(smallest.changes)}")
    return [*lines, f"  best: {flags(self.best.changes)}"]

  def describe(self) -> dict[str, Any]:
    """The same for JSON."""
    return {
      "flags": flags(self.best.changes),
      "smallest_change": flags(self._smallest().changes),
      "tried": [
        {
          "flags": flags(one.changes),
          "shape": dataclasses.asdict(one.shape),
          "expected_memory_gib": one.expected.memory_gib,
          "expected_seconds": one.expected.seconds,
          "figures": one.figures,
        }
        for one in self.tried
      ],
    }

  def _smallest(self) -> Tried:
    fits = [t for t in self.tried if t.figures["fits"]]
    return min(fits, key=lambda t: (len(t.changes), t.least))


def flags(changes: dict[str, Any]) -> str:
  """The changes as flags to copy; "the config as it is" if there are none."""
  text = " ".join(f"--config.{name}={x}" for name, x in changes.items())
  return text or "the config as it is"


def changes_to(
  config: ml_collections.ConfigDict, shape: estimate_lib.Shape
) -> dict[str, Any]:
  """Fields of a config, by name, that have to change for a shape."""
  section = trained_lib.find_algorithm(config).facts.section
  wanted = {
    "mesh.fsdp": (config.mesh.fsdp, shape.fsdp),
    "mesh.tensor": (config.mesh.tensor, shape.tensor),
    "microbatches": (config.microbatches, shape.microbatches),
    f"{section}.remat": (_remat(config), shape.remat),
  }
  changes = {name: new for name, (old, new) in wanted.items() if old != new}
  if config.mesh.data not in (-1, shape.data):
    changes["mesh.data"] = -1
  return changes


def search(
  shapes: Sequence[estimate_lib.Shape],
  estimator: estimate_lib.Estimator,
  changes: Callable[[estimate_lib.Shape], dict[str, Any]],
  compile_shape: Callable[[estimate_lib.Shape], dict[str, Any]],
  memory_gib: float,
) -> list[Tried]:
  """Compiles the promising shapes; what was tried, in order.

  It ends when no other shape is expected to be faster than the best one, or to
  fit where none has.

  Args:
    shapes: every shape.
    estimator: gives the order, and learns.
    changes: fields that change for a shape; the fewer the better.
    compile_shape: the report's figures of a shape's step.
    memory_gib: memory of a device.
  """
  tried: list[Tried] = []
  start = time.monotonic()
  while len(tried) < _MOST_COMPILED:
    shape = _next(shapes, estimator, changes, tried, memory_gib)
    if shape is None:
      break
    expected = estimator.estimate(shape)
    log.info(
      "fit: compiling %d of at most %d, %s: about %.1f GiB and %.4f s%s",
      *(len(tried) + 1, _MOST_COMPILED, flags(changes(shape))),
      *(expected.memory_gib, expected.least),
      _time_left(len(tried), time.monotonic() - start),
    )
    figures = compile_shape(shape)
    figures["used_gib"] = (
      figures["memory_gib"]["total"]
      if figures["fits"]
      else remedies.used_gib(figures["error"])
    )
    tried.append(Tried(shape, changes(shape), expected, figures))
    estimator.learn(shape, figures)
    log.info("fit: %s", describe(tried[-1], memory_gib))
  return tried


def _time_left(done: int, seconds: float) -> str:
  if not done:
    return ""
  left = seconds / done * (_MOST_COMPILED - done)
  return f"; at most {datetime.timedelta(seconds=round(left))} left"


def describe(one: Tried, memory_gib: float) -> str:
  """One line about a shape that was compiled."""
  name, figures = flags(one.changes), one.figures
  if not figures["fits"]:
    used = figures["used_gib"]
    needs = f"needs {used:.2f}" if used else "needs more"
    return f"{name}: does not fit, {needs} of {memory_gib} GiB"
  return (
    f"{name}: {figures['used_gib']:.2f} of {memory_gib} GiB,"
    f" {one.least:.4f} s, MFU {figures['mfu']:.0%} at most, bound by"
    f" {figures['bound']}"
  )


def _next(shapes, estimator, changes, tried, memory_gib):
  """The shape to compile next; None where none is worth it."""
  rest = [s for s in shapes if s not in {t.shape for t in tried}]
  as_it_is = [s for s in rest if not changes(s)]
  if as_it_is:
    return as_it_is[0]
  estimates = {s: estimator.estimate(s) for s in rest}
  fitting = [s for s in rest if estimates[s].memory_gib <= _FULL * memory_gib]
  fits = [t for t in tried if t.figures["fits"]]
  if not fitting:
    # The nearest of all is worth a look where nothing fits.
    smallest = lambda s: estimates[s].memory_gib
    return min(rest, key=smallest, default=None) if not fits else None
  best = min(estimates[s].least for s in fitting)
  if fits and min(t.least for t in fits) <= best * (1 + _EQUAL):
    return None
  equal = [s for s in fitting if estimates[s].least <= best * (1 + _EQUAL)]
  spread = lambda s: s.fsdp * s.tensor * s.microbatches
  return min(equal, key=lambda s: (len(changes(s)), spread(s)))


def choose(tried: Sequence[Tried]) -> Tried | None:
  """The fastest that fits, of equally fast ones that with fewest changes."""
  fits = [t for t in tried if t.figures["fits"]]
  if not fits:
    return None
  best = min(t.least for t in fits)
  equal = [t for t in fits if t.least <= best * (1 + _EQUAL)]
  return min(equal, key=lambda t: (len(t.changes), t.least))


def nothing_fits(
  tried: Sequence[Tried], config: ml_collections.ConfigDict, memory_gib: float
) -> str:
  """The message where no shape fits: the nearest, and what would help."""
  section = trained_lib.find_algorithm(config).facts.section
  half = ""
  if config[section].dtype != "bfloat16":
    half = f"{section}.dtype=bfloat16, "
  nearest = ""
  known = [t for t in tried if t.figures["used_gib"]]
  if known:
    one = min(known, key=lambda t: t.figures["used_gib"])
    nearest = (
      f"; the nearest, {flags(one.changes)}, needs"
      f" {one.figures['used_gib']:.2f} of {memory_gib} GiB"
    )
  return (
    f"--fit: none of the {len(tried)} ways that were compiled fits{nearest}."
    f" Take {half}a batch_size below {config.batch_size}, or more or larger"
    " chips"
  )


def run(
  config: ml_collections.ConfigDict,
  devices: Sequence[Any],
  chip: chips.Chip,
) -> Fitted:
  """Searches the shapes of a config's step on these devices.

  Raises:
    ValueError: a batch that the devices cannot share, or no shape that fits.
  """
  slices = chips.slices(devices)
  log.info("fit: estimating the step of %s", config.name)
  facts, state = _facts(config, devices)
  tensors = [
    n
    for n in _TENSORS
    if len(devices) // slices % n == 0 and _splits(config, devices, n, state)
  ]
  shapes = estimate_lib.shapes(
    len(devices), slices, config.batch_size, tensors, list(facts.flops)
  )
  if not shapes:
    raise ValueError(
      f"batch_size={config.batch_size} cannot be split over {len(devices)}"
      f" devices, of which at most {max(_TENSORS)} share a clip (mesh.tensor):"
      f" take a multiple of {len(devices) // max(_TENSORS)}"
    )
  one = chips.links_of(chip, list(mesh_lib.data_mesh(devices).devices.flat))
  tried = search(
    shapes,
    estimate_lib.Estimator(facts, chip, one, len(devices)),
    lambda shape: changes_to(config, shape),
    lambda shape: _compile(config, shape, devices, chip),
    chip.memory_gib,
  )
  best = choose(tried)
  if best is None:
    raise ValueError(nothing_fits(tried, config, chip.memory_gib))
  return Fitted(tried, best, chip.memory_gib)


def _remats(config: ml_collections.ConfigDict) -> tuple[str, ...]:
  """What the steps to try may keep, the config's choice included."""
  remat = _remat(config)
  if remat == "auto":
    return (remat,)
  return tuple(dict.fromkeys((remat, "off", "dots", "all")))


def _remat(config: ml_collections.ConfigDict) -> str:
  """The config's remat; "auto" where it depends on the memory of a shape."""
  facts = trained_lib.find_algorithm(config).facts
  remat = config[facts.section].remat
  if facts.kind == algorithm_lib.TOKENIZER:
    return remat
  return remat_lib.choose(remat, "tpu")


def _facts(
  config: ml_collections.ConfigDict, devices: Sequence[Any]
) -> tuple[estimate_lib.Facts, Any]:
  """What the config's step is made of, and its state as shapes."""
  section = trained_lib.find_algorithm(config).facts.section
  even = config.batch_size % len(devices) == 0
  mesh = mesh_lib.data_mesh(devices if even else devices[:1])
  work, held = {}, {}
  for remat in _remats(config):
    fields = {f"{section}.remat": remat, "microbatches": 1}
    fields |= {"mesh.data": -1, "mesh.fsdp": 1, "mesh.tensor": 1}
    step = _step(trained_lib.with_fields(config, fields), mesh)
    text = jax.make_jaxpr(step.function)(*step.arguments).jaxpr
    work[remat] = flops.count_in(text, "tpu")
    held[remat] = activations.peak(text, "tpu")
  state = step.arguments[0]
  trained = network.count(state.params)
  size = 2 if config[section].dtype == "bfloat16" else 4

  @functools.cache
  def size_of_state(fsdp: int, tensor: int) -> int:
    return remedies.state_bytes(_on_mesh(config, devices, fsdp, tensor, state))

  @functools.cache
  def padding(fsdp: int, tensor: int) -> float:
    return _padding(_on_mesh(config, devices, fsdp, tensor, state).params)

  facts = estimate_lib.Facts(
    flops=work,
    activations=held,
    weights=trained * size,
    gradients=trained * 4,
    state=lambda shape: size_of_state(shape.fsdp, shape.tensor),
    padding=lambda shape: padding(shape.fsdp, shape.tensor),
  )
  return facts, state


def _padding(params: Any) -> float:
  """Bytes of the parts of split arrays in whole tiles, over their own."""
  padded = whole = 0
  for leaf in jax.tree.leaves(params):
    part = leaf.sharding.shard_shape(leaf.shape)
    axes = (*leaf.sharding.spec, *(None,) * len(part))
    sizes = [
      -(-size // _TILE) * _TILE if axis == "fsdp" else size
      for size, axis in zip(part, axes, strict=False)
    ]
    padded, whole = padded + math.prod(sizes), whole + math.prod(part)
  return padded / whole


def _on_mesh(config, devices, fsdp: int, tensor: int, state: Any) -> Any:
  """Shapes of a state with the shardings that a mesh gives it."""
  sizes = {"data": -1, "fsdp": fsdp, "tensor": tensor}
  mesh = mesh_lib.make_mesh(ml_collections.ConfigDict(sizes), devices)
  shardings = mesh_lib.state_shardings(
    state.replace(frozen={}), mesh, config.mesh.rules
  ).replace(frozen=mesh_lib.state_shardings(state.frozen, mesh))
  return jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
    state,
    shardings,
  )


def _splits(config, devices, tensor: int, state: Any) -> bool:
  """Whether the config's rules can split its arrays over `tensor` devices."""
  try:
    _on_mesh(config, devices, 1, tensor, state)
  except ValueError:
    return False
  return True


def _step(
  config: ml_collections.ConfigDict, mesh: Mesh
) -> cost_programs.Program:
  algorithm = cost_programs.describe(config, mesh)
  return cost_programs.programs(config, algorithm, mesh)["train"]


def _compile(
  config: ml_collections.ConfigDict,
  shape: estimate_lib.Shape,
  devices: Sequence[Any],
  chip: chips.Chip,
) -> dict[str, Any]:
  """The report's figures of a shape's step."""
  changed = trained_lib.with_fields(config, changes_to(config, shape))
  mesh = mesh_lib.make_mesh(changed.mesh, devices)
  model_flops = cost_programs.model_flops(changed, mesh, "train")
  return compiled.figures(mesh, chip, model_flops, _step(changed, mesh))
