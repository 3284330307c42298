"""Iterative parallel decoding, the whole loop as one program.

MaskGIT / MAGVIT decoding (google-research/magvit `parallel_decode.py`): every
step predicts all tokens at once, keeps the most confident and masks the rest
again, fewer each time.
"""

from collections.abc import Callable
from collections.abc import Sequence

import jax
from jax import lax
import jax.numpy as jnp

from magvit import masking

# (parts_BNF, decided_BN) -> logits (B, N, V) of each of the F sub-tokens; the
# parts that are not decided hold the condition where it is given.
Predictor = Callable[[jax.Array, jax.Array], Sequence[jax.Array]]


def decode(
  key: jax.Array,
  predict: Predictor,
  condition_BNF: jax.Array,
  fixed_BN: jax.Array,
  steps: int,
  schedule: str,
  temperature: float | jax.Array,
) -> jax.Array:
  """Samples the tokens of a batch of clips: int32 (B, N, F).

  Args:
    key: PRNG key.
    predict: logits of all tokens, of the distribution to sample from.
    condition_BNF: sub-tokens of the condition, anything where none is given.
    fixed_BN: bool; these keep their condition token.
    steps: number of predictions.
    schedule: name in `masking.SCHEDULES`.
    temperature: scale of the Gumbel noise added to log-probabilities when
      choosing what to keep; it falls linearly to 0 at the last step.
  """
  check_settings(steps, schedule)
  tokens = fixed_BN.shape[1]

  def one_step(carry, k):
    parts_BNF, decided_BN = carry
    sample_key, choice_key = jax.random.split(jax.random.fold_in(key, k))
    current_BNF = jnp.where(decided_BN[..., None], parts_BNF, condition_BNF)
    logits = predict(current_BNF, decided_BN)
    drawn_BNF, log_p_BN = sample_factors(sample_key, logits)
    sampled_BNF = jnp.where(decided_BN[..., None], parts_BNF, drawn_BNF)
    progress = (k + 1) / steps
    noise_BN = jax.random.gumbel(choice_key, log_p_BN.shape)
    confidence_BN = log_p_BN + temperature * (1.0 - progress) * noise_BN
    confidence_BN = jnp.where(decided_BN, jnp.inf, confidence_BN)
    share = masking.SCHEDULES[schedule](progress)
    undecided_B1 = (~decided_BN).sum(-1, keepdims=True)
    remask_B1 = jnp.clip(jnp.floor(tokens * share), 1, undecided_B1 - 1)
    rank_BN = confidence_BN.argsort(-1).argsort(-1)  # 0: least confident
    return (sampled_BNF, rank_BN >= remask_B1), None

  start = (condition_BNF, fixed_BN)
  (parts_BNF, _), _ = lax.scan(one_step, start, jnp.arange(steps))
  # The last step masks some again, but its sample is complete.
  return parts_BNF


def sample_factors(
  key: jax.Array, logits: Sequence[jax.Array]
) -> tuple[jax.Array, jax.Array]:
  """Draws each sub-token; the log-probabilities of the draws are summed."""
  drawn, total = [], 0.0
  for factor, logits_BNV in enumerate(logits):
    log_p_BNV = jax.nn.log_softmax(logits_BNV)
    token_BN = jax.random.categorical(
      jax.random.fold_in(key, factor), logits_BNV
    )
    drawn.append(token_BN)
    total += jnp.take_along_axis(log_p_BNV, token_BN[..., None], -1)[..., 0]
  return jnp.stack(drawn, -1), total


def guide(
  conditional: Sequence[jax.Array],
  unconditional: Sequence[jax.Array],
  guidance: float | jax.Array,
) -> list[jax.Array]:
  """logits + guidance * (logits - unconditional), per head; 0 is unguided."""
  return [
    c + guidance * (c - u)
    for c, u in zip(conditional, unconditional, strict=True)
  ]


def check_settings(steps: int, schedule: str) -> None:
  if steps < 1:
    raise ValueError(f"sampling.steps={steps} must be at least 1")
  if schedule not in masking.SCHEDULES:
    raise ValueError(
      f"sampling.schedule={schedule!r} must be one of"
      f" {sorted(masking.SCHEDULES)}"
    )


def truncate(logits: jax.Array, top_k: int, top_p: float) -> jax.Array:
  """Minus infinity for the values (..., V) that are not to be drawn.

  Keeps the `top_k` most likely (0: all); then, of what they leave of the
  distribution, the fewest most likely values that hold `top_p` of it (1: all).
  Values as likely as the last one kept are kept, too.
  """
  if 0 < top_k < logits.shape[-1]:
    last = lax.top_k(logits, top_k)[0][..., -1:]
    logits = jnp.where(logits >= last, logits, -jnp.inf)
  if top_p < 1.0:
    falling = -jnp.sort(-logits)
    p = jax.nn.softmax(falling)
    needed = p.cumsum(-1) - p < top_p  # what comes before does not suffice
    last = jnp.where(needed, falling, jnp.inf).min(-1, keepdims=True)
    logits = jnp.where(logits >= last, logits, -jnp.inf)
  return logits


def check_truncation(temperature: float, top_k: int, top_p: float) -> None:
  """Raises ValueError for settings of one draw that cannot work."""
  if temperature <= 0:
    raise ValueError(
      f"sampling.temperature={temperature} must be above 0; to draw the most"
      " likely token always, set sampling.top_k=1"
    )
  if top_k < 0:
    raise ValueError(f"sampling.top_k={top_k} must be at least 1, or 0: off")
  if not 0 < top_p <= 1:
    raise ValueError(
      f"sampling.top_p={top_p} must be above 0 and at most 1, which is off"
    )
