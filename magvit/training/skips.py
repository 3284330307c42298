"""Steps that are left out: a metric is not finite, or the loss spikes.

A step that is left out changes no weight, no average and no running statistic.
It counts as done all the same: batches, the learning rate and all else that
follows the number of steps go on. Whether it is left out is decided inside of
the step, so that nothing waits for the host, and the counts are part of the
training state, so that a resumed run decides as one that never stopped.
"""

from collections.abc import Mapping
import dataclasses
import logging
import typing
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from magvit import algorithm as algorithm_lib
from magvit.training import metrics as metrics_lib

log = logging.getLogger(__name__)

LEFT_OUT = "skips/left_out"  # metric: 1 for a step that was left out, or 0
TOTAL = "skips/total"  # metric: steps left out so far
_COUNTS = "skips"  # the counts in `TrainState.extras`
_DECAY = 0.98  # the running average keeps so much of itself in a step
# Steps before a spike is one: the average is of these alone by then, and the
# first losses of a run fall fast.
_SETTLED = 50
_NAMED = 4  # metrics that a line names


def check(
  config: ml_collections.ConfigDict, facts: algorithm_lib.Facts
) -> None:
  """Raises ValueError for a `watch.spike` that cannot be meant."""
  spike, most = config.watch.spike, config.watch.skips
  if not spike:
    return
  if spike <= 1:
    raise ValueError(
      f"watch.spike={spike} must be above 1, as a multiple of the loss that is"
      " usual, or 0 for no spikes"
    )
  if not most:
    raise ValueError(
      f"watch.spike={spike} leaves out no step while watch.skips=0: set"
      " watch.skips to the number of steps that may be left out"
    )
  if not facts.leading_metrics:
    raise ValueError(
      f"watch.spike={spike} needs a loss, and the algorithm"
      f" {config.algorithm!r} names no leading metric: set watch.spike=0"
    )


def guarded(algorithm: algorithm_lib.Algorithm) -> algorithm_lib.Algorithm:
  """The algorithm, with steps that may leave out their change if it says so."""
  if not algorithm.config.watch.skips:
    return algorithm
  return typing.cast(algorithm_lib.Algorithm, _Guarded(algorithm))


@dataclasses.dataclass(frozen=True, eq=False)
class _Guarded:
  """An algorithm whose state has the counts, by which its steps decide."""

  inner: algorithm_lib.Algorithm

  def __getattr__(self, name: str) -> Any:
    return getattr(self.inner, name)

  def init(self, key: jax.Array) -> algorithm_lib.TrainState:
    state = self.inner.init(key)
    counts = {
      "skipped": jnp.zeros((), jnp.int32),
      "settled": jnp.zeros((), jnp.int32),  # steps that made the average
      "usual": jnp.zeros((), jnp.float32),  # the running average of the loss
    }
    return state.replace(extras={**state.extras, _COUNTS: counts})

  def step(
    self, state: algorithm_lib.TrainState, batch: Any, key: jax.Array
  ) -> tuple[algorithm_lib.TrainState, algorithm_lib.Metrics]:
    counts = state.extras[_COUNTS]
    extras = {k: v for k, v in state.extras.items() if k != _COUNTS}
    before = state.replace(extras=extras)
    after, metrics = self.inner.step(before, batch, key)
    is_bad, counts = _judge(counts, metrics, self.inner)
    left_out = is_bad & (counts["skipped"] < self.inner.config.watch.skips)
    counts["skipped"] += left_out
    kept = _without_change(left_out, before, after)
    metrics = {
      **metrics,
      LEFT_OUT: left_out.astype(jnp.float32),
      TOTAL: counts["skipped"],
    }
    return kept.replace(extras={**kept.extras, _COUNTS: counts}), metrics


def _judge(
  counts: Mapping[str, jax.Array],
  metrics: algorithm_lib.Metrics,
  algorithm: algorithm_lib.Algorithm,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """(whether a step is one to leave out, counts after it)."""
  finite = [jnp.isfinite(value).all() for value in metrics.values()]
  is_bad = ~jnp.stack(finite).all()
  spike = algorithm.config.watch.spike
  if not spike:
    return is_bad, dict(counts)
  loss = metrics[algorithm.facts.leading_metrics[0]].astype(jnp.float32)
  usual, settled = counts["usual"], counts["settled"]
  is_bad |= (settled >= _SETTLED) & (loss > spike * usual)
  # The average of the first steps weighs them alike.
  weight = jnp.maximum(1 - _DECAY, 1 / (settled + 1))
  moved = usual + weight * (loss - usual)
  return is_bad, {
    "skipped": counts["skipped"],
    "settled": settled + ~is_bad,
    "usual": jnp.where(is_bad, usual, moved),
  }


def _without_change(
  left_out: jax.Array,
  before: algorithm_lib.TrainState,
  after: algorithm_lib.TrainState,
) -> algorithm_lib.TrainState:
  """The state after a step, or that before it with its counters moved on."""

  def choose(old: Any, new: Any) -> Any:
    return jax.tree.map(lambda o, n: jnp.where(left_out, o, n), old, new)

  # Whole numbers of an optimizer count steps, by which it knows the learning
  # rate.
  opt_state = jax.tree.map(
    lambda o, n: (
      n if jnp.issubdtype(n.dtype, jnp.integer) else jnp.where(left_out, o, n)
    ),
    before.opt_state,
    after.opt_state,
  )
  return after.replace(
    params=choose(before.params, after.params),
    opt_state=opt_state,
    ema=choose(before.ema, after.ema),
    extras=choose(before.extras, after.extras),
  )


def was_left_out(metrics: Mapping[str, Any]) -> bool:
  return bool(metrics.get(LEFT_OUT, 0.0))


def say(step: int, metrics: Mapping[str, Any], most: int) -> None:
  """Logs that a step was left out, with the metrics that say why."""
  bad = metrics_lib.not_finite(metrics)
  why = ", ".join(f"{k}={v}" for k, v in list(bad.items())[:_NAMED])
  log.warning(
    "WARNING: step %d is left out, %d of watch.skips=%d: %s",
    *(step, metrics[TOTAL], most, why or "its loss spikes"),
  )


def as_stored(state: dict[str, Any], stored: Mapping[str, Any]) -> Any:
  """Parts of a training state with the counts just if a checkpoint has them.

  Whether steps may be left out can change between two runs in a workdir.

  Args:
    state: parts of a training state by their names.
    stored: the checkpoint's tree.
  """
  extras = {k: v for k, v in state["extras"].items() if k != _COUNTS}
  there = (stored.get("extras") or {}).get(_COUNTS)
  if there is not None:  # each is a number, as the step is
    counts = state["extras"].get(_COUNTS)
    extras[_COUNTS] = counts or dict.fromkeys(there, state["step"])
  return {**state, "extras": extras}


def as_now(arrays: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
  """Restored parts with the counts just if the run has them, perhaps from 0.

  Args:
    arrays: the parts as restored.
    state: shapes and shardings of the run's, of arrays or not.
  """
  now = state["extras"].get(_COUNTS)
  extras = {k: v for k, v in arrays["extras"].items() if k != _COUNTS}
  if now is not None:
    extras[_COUNTS] = arrays["extras"].get(_COUNTS) or jax.tree.map(
      lambda x: jax.device_put(np.zeros(x.shape, x.dtype), x.sharding), now
    )
  return {**arrays, "extras": extras}
