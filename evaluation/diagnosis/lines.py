"""The lines on the health of a run, for its report and its log."""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import Any

from evaluation.diagnosis import any_run
from evaluation.diagnosis import generators
from evaluation.diagnosis import tokenizers
from evaluation.diagnosis.history import Finding
from evaluation.diagnosis.history import History


@dataclasses.dataclass(frozen=True)
class Check:
  """One sign: where it is looked for, in which metrics, and how."""

  part: str  # as `Finding.part`
  needs: tuple[str, ...]  # metrics without which it sees nothing
  find: Callable[[History], Finding | None]
  at_once: bool = False  # whether it may be read from the first row on


# The first is nearest to the root: wrong inputs explain a wrong codebook.
CHECKS = (
  Check("values", (), any_run.find_not_finite, at_once=True),
  Check(
    "inputs",
    ("health/pixel_low", "health/pixel_high"),
    tokenizers.find_wrong_pixels,
    at_once=True,
  ),
  Check(
    "learning rate",
    ("learning_rate",),
    any_run.find_no_learning_rate,
    at_once=True,
  ),
  Check(
    "learning",
    ("generator/reconstruction", "health/pixel_variance"),
    tokenizers.find_one_colour,
  ),
  Check(
    "learning",
    ("generator/reconstruction",),
    tokenizers.find_rising_reconstruction,
  ),
  Check("learning", ("loss",), generators.find_uniform),
  Check("learning", ("loss",), generators.find_rising_loss),
  Check(
    "gradients",
    ("generator/gradient_norm",),
    tokenizers.find_rising_gradients,
  ),
  Check("gradients", ("gradient_norm",), generators.find_rising_gradients),
  Check("codebook", ("health/positive_share",), tokenizers.find_stuck_bits),
  Check(
    "codebook",
    ("generator/codebook_entropy",),
    tokenizers.find_little_entropy,
  ),
  Check("codebook", ("health/flip_rate",), tokenizers.find_flipping_bits),
  Check("codebook", ("health/mean_magnitude",), tokenizers.find_far_latents),
  Check("codebook", ("health/channel_std",), tokenizers.find_dead_channels),
  Check(
    "discriminator",
    ("discriminator/adversarial", "discriminator/accuracy"),
    tokenizers.find_strong_discriminator,
  ),
  Check(
    "discriminator",
    ("discriminator/r1",),
    tokenizers.find_steep_discriminator,
  ),
  Check(
    "discriminator",
    ("discriminator/real_logit", "discriminator/fake_logit"),
    tokenizers.find_large_logits,
  ),
  Check("held out", (any_run.HELD_OUT,), any_run.find_learned_by_heart),
)


def find(history: History) -> list[Finding]:
  """What is wrong with a run, the nearest to the root first."""
  findings = (check.find(history) for check in CHECKS)
  return [finding for finding in findings if finding is not None]


def lines(
  metrics: Mapping[str, Mapping[int, float | Sequence[float]]],
  config: Mapping[str, Any],
) -> list[str]:
  """A line for each finding, or one that says what was looked at.

  Args:
    metrics: {name: {step: value}}, as `evaluation.records.read_metrics` gives.
    config: the run's config as nested dicts; fields may be missing.

  Returns:
    Lines; none for a run without metrics.
  """
  history = History(metrics, config)
  if not history.last_step:
    return []
  findings = find(history)
  if findings:
    return [str(finding) for finding in findings]
  present = [c for c in CHECKS if all(n in metrics for n in c.needs)]
  judged = [c for c in present if c.at_once or _is_judged(history, c)]
  looked_at = ", ".join(dict.fromkeys(c.part for c in judged))
  line = (
    f"health: nothing unusual up to step {history.last_step:,} ({looked_at})"
  )
  if len(judged) < len(present):
    line += f"; other signs are read from step {history.judged_from:,} on"
  return [line]


def _is_judged(history: History, check: Check) -> bool:
  return all(
    name.startswith("eval/") or len(history.late(name)) for name in check.needs
  )
