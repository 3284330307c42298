"""Signs that any run can show: values, learning rate, gradients, its loss."""

import numpy as np

from evaluation.diagnosis.history import Finding
from evaluation.diagnosis.history import History
from evaluation.diagnosis.history import number

_RATE = "optimizer.peak_learning_rate"
# Late gradients of healthy runs are a tenth of the first ones, or as large; the
# largest late median against the first was 1.6, in 14 runs.
_GRADIENT_GROWTH = 10.0
# A loss whose running median is twice its least has lost what it had learned:
# those of healthy runs, digits to film, stay below 1.5 after the start.
_LOSS_GROWTH = 2.0
# PSNR that held-out clips may lose, in dB: more than evaluations of the same
# clips scatter late in a healthy run.
_HELD_OUT_LOSS = 1.0
HELD_OUT = "eval/held_out_reconstruction/psnr"


def from_now(history: History, field: str) -> str:
  """A field and the value to move it from, like "loss.entropy from 0.02"."""
  value = history.field(field)
  return field if value is None else f"{field} from {value:g}"


def lower_rate(history: History) -> str:
  """The remedy for steps that are too large."""
  remedy = f"lower {from_now(history, _RATE)}"
  if history.field("optimizer.clip_norm"):
    return remedy
  return f"{remedy}, or set optimizer.clip_norm to 1"


def find_not_finite(history: History) -> Finding | None:
  """A metric that became NaN or infinite, in a step that was not left out."""
  first, skipped = {}, history.metrics.get("skips/left_out", {})
  for name, curve in history.training().items():
    bad = [
      step
      for step, value in curve.items()
      if not np.isfinite(value).all() and not skipped.get(step)
    ]
    if bad:
      first[name] = min(bad)
  if not first:
    return None
  step = min(first.values())
  names = [name for name, at in first.items() if at == step]
  more = f" and {len(names) - 2} more" if len(names) > 2 else ""
  said = f"{', '.join(names[:2])}{more} not finite since step {step:,}"
  return Finding("values", said, lower_rate(history))


def find_no_learning_rate(history: History) -> Finding | None:
  """A learning rate that is 0 throughout."""
  curve = history.curve("learning_rate")
  # The first step of a warm-up has the rate 0.
  if len(curve) < 2 or curve.values.max() > 0:
    return None
  return Finding(
    "learning rate",
    f"0 in all {len(curve)} rows up to step {curve.steps[-1]:,}, so that no"
    " weight changes",
    f"raise {from_now(history, _RATE)}",
  )


def find_rising_loss(history: History, name: str) -> Finding | None:
  """A loss, or an error, that lost what it had learned."""
  late, best = history.level(name), history.best(name)
  if late is None or best is None:
    return None
  # A sum with an entropy in it may be negative, where ratios say nothing.
  if best[1] <= 0 or late <= _LOSS_GROWTH * best[1]:
    return None
  return Finding(
    "learning", _rise(history, name, late, best), lower_rate(history)
  )


def find_rising_gradients(history: History, name: str) -> Finding | None:
  """Gradients that grow without end."""
  late, best = history.level(name), history.best(name)
  if late is None or best is None:
    return None
  if late <= _GRADIENT_GROWTH * best[1]:
    return None
  return Finding(
    "gradients", _rise(history, name, late, best), lower_rate(history)
  )


def _rise(history: History, name: str, late: float, best: tuple[int, float]):
  step, lowest = best
  return (
    f"{name} is {number(late)} at step {history.last_step:,}, and was"
    f" {number(lowest)} about step {step:,}"
  )


def find_learned_by_heart(history: History) -> Finding | None:
  """Held-out clips that get worse while training goes on."""
  curve = history.curve(HELD_OUT)
  if not len(curve):
    return None
  best = int(curve.values.argmax())
  if curve.values[best] - curve.values[-1] <= _HELD_OUT_LOSS:
    return None
  training = history.curve("generator/reconstruction")
  before = training.values[training.steps <= curve.steps[best]]
  late = history.level("generator/reconstruction")
  # Otherwise the training itself gets worse, which is another finding.
  if late is None or not len(before) or late > np.median(before[-5:]):
    return None
  return Finding(
    "held out",
    f"PSNR fell from {curve.values[best]:.1f} dB at step"
    f" {curve.steps[best]:,} to {curve.values[-1]:.1f} dB at step"
    f" {curve.steps[-1]:,}, while that of training clips did not",
    f"train on more clips, or lower {from_now(history, 'num_steps')}",
  )
