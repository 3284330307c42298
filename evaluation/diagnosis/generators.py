"""Signs of generators: a loss below that of a draw, and that stays there."""

import math

from evaluation.diagnosis import any_run
from evaluation.diagnosis.history import Finding
from evaluation.diagnosis.history import History
from evaluation.diagnosis.history import number

# Share of the loss of a uniform draw. The frequencies of the tokens alone are
# learned within the warm-up, and take healthy runs to half of it.
_NO_BETTER = 0.95


def find_uniform(history: History) -> Finding | None:
  """A loss no lower than that of a uniform draw of the tokens."""
  loss = history.level("loss")
  bits = history.field("transformer.factor_bits")
  if loss is None or not bits or loss < _NO_BETTER * sum(bits) * math.log(2):
    return None
  return Finding(
    "learning",
    f"the loss is {number(loss)} at step {history.last_step:,}, and a uniform"
    f" draw of 2^{sum(bits)} tokens has {sum(bits) * math.log(2):.2f}",
    any_run.lower_rate(history),
  )


def find_rising_loss(history: History) -> Finding | None:
  return any_run.find_rising_loss(history, "loss")


def find_rising_gradients(history: History) -> Finding | None:
  return any_run.find_rising_gradients(history, "gradient_norm")
