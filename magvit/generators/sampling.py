"""Iterative parallel decoding, the whole loop as one program.

MaskGIT / MAGVIT decoding (google-research/magvit `parallel_decode.py`,
`mask_schedule.py`): every step predicts all tokens at once, keeps the most
confident and masks the rest again, fewer each time.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import math
from typing import Any

import jax
from jax import lax
import jax.numpy as jnp
import ml_collections

from configs import fields

# Function (parts_BNF, decided_BN, step from 0) -> logits (B, N, V) of each of
# the F sub-tokens; parts not yet decided hold the condition's.
Predictor = Callable[[jax.Array, jax.Array, jax.Array], Sequence[jax.Array]]

# Functions (progress from 0 at the first step to 1 at the last, power) -> share
# of the guidance in force. MDT's cosine (arXiv 2303.14389) starts without any.
GUIDANCE_SCHEDULES: dict[str, Callable] = {
  "constant": lambda progress, power: jnp.ones_like(progress),
  "power_cosine": lambda progress, power: (
    0.5 * (1.0 - jnp.cos(math.pi * progress**power))
  ),
  "linear": lambda progress, power: progress,  # Muse's (arXiv 2301.00704)
}

COMPLETIONS = ("sample", "likeliest")  # explained in configs/base.py

# Functions (progress r in [0, 1], N tokens) -> share of tokens still masked.
SCHEDULES: dict[str, Callable[[Any, int], jax.Array]] = {
  "cosine": lambda r, n: jnp.cos(0.5 * math.pi * r),
  "uniform": lambda r, n: 1.0 - r,
  "exp": lambda r, n: 1.0 - 2.0 ** (-math.log2(n) * (1.0 - r)),
  "log": lambda r, n: jnp.minimum(-jnp.log2(r) / math.log2(n), 1.0),
  "pow0.5": lambda r, n: 1.0 - r**0.5,
  "pow2": lambda r, n: 1.0 - r**2,
  "pow3": lambda r, n: 1.0 - r**3,
}


def decode(
  key: jax.Array,
  predict: Predictor,
  condition_BNF: jax.Array,
  fixed_BN: jax.Array,
  steps: int,
  schedule: str,
  choice_temperature: float | jax.Array,
  temperature: float | jax.Array = 1.0,
) -> jax.Array:
  """Samples the tokens of a batch of clips: int32 (B, N, F).

  Args:
    key: PRNG key.
    predict: logits of all tokens, of the distribution to sample from.
    condition_BNF: sub-tokens of the condition, anything where the model sees
      none.
    fixed_BN: bool, true for tokens that keep those of the condition.
    steps: number of predictions; may exceed the number of tokens.
    schedule: name in `SCHEDULES`.
    choice_temperature: scale of the Gumbel noise added to log-probabilities
      when choosing what to keep; it falls linearly to 0 at the last step.
    temperature: scale of the noise when drawing tokens; 0 takes the likeliest.
  """
  tokens = fixed_BN.shape[1]

  def one_step(carry, k):
    parts_BNF, decided_BN = carry
    sample_key, choice_key = jax.random.split(jax.random.fold_in(key, k))
    current_BNF = jnp.where(decided_BN[..., None], parts_BNF, condition_BNF)
    logits = predict(current_BNF, decided_BN, k)
    drawn_BNF, log_p_BN = sample_factors(sample_key, logits, temperature)
    sampled_BNF = jnp.where(decided_BN[..., None], parts_BNF, drawn_BNF)
    progress = (k + 1) / steps
    noise_BN = jax.random.gumbel(choice_key, log_p_BN.shape)
    confidence_BN = log_p_BN + choice_temperature * (1.0 - progress) * noise_BN
    confidence_BN = jnp.where(decided_BN, jnp.inf, confidence_BN)
    share = SCHEDULES[schedule](progress, tokens)
    undecided_B1 = (~decided_BN).sum(-1, keepdims=True)
    remask_B1 = jnp.clip(jnp.floor(tokens * share), 1, undecided_B1 - 1)
    rank_BN = confidence_BN.argsort(-1).argsort(-1)  # rank 0: least confident
    return (sampled_BNF, rank_BN >= remask_B1), None

  start = (condition_BNF, fixed_BN)
  (parts_BNF, _), _ = lax.scan(one_step, start, jnp.arange(steps))
  # The last step masks some again, but its sample is complete.
  return parts_BNF


def sample_factors(
  key: jax.Array,
  logits: Sequence[jax.Array],
  temperature: float | jax.Array = 1.0,
) -> tuple[jax.Array, jax.Array]:
  """Draws each sub-token; the log-probabilities of the draws are summed.

  Log-probabilities are the model's, before the temperature: at temperature 0
  all draws are certain, and would say nothing about which tokens to keep.
  """
  drawn, total = [], jnp.zeros((), logits[0].dtype)
  for factor, logits_BNV in enumerate(logits):
    log_p_BNV = jax.nn.log_softmax(logits_BNV)
    # Like jax.random.categorical, but the temperature may be 0.
    noise_BNV = jax.random.gumbel(
      jax.random.fold_in(key, factor), logits_BNV.shape
    )
    token_BN = (temperature * noise_BNV + logits_BNV).argmax(-1)
    drawn.append(token_BN)
    total += jnp.take_along_axis(log_p_BNV, token_BN[..., None], -1)[..., 0]
  return jnp.stack(drawn, -1), total


def guide(
  conditional: Sequence[jax.Array],
  unconditional: Sequence[jax.Array],
  guidance: float | jax.Array,
) -> list[jax.Array]:
  """Guides each head: logits + guidance * (logits - unconditional).

  Guidance 0 leaves the conditional logits as they are.
  """
  return [
    c + guidance * (c - u)
    for c, u in zip(conditional, unconditional, strict=True)
  ]


def guidance_at(
  step: jax.Array, steps: int, guidance: float, schedule: str, power: float
) -> jax.Array:
  """The guidance of step 0..steps - 1; a single step has all of it."""
  progress = step / (steps - 1) if steps > 1 else jnp.ones(())
  return guidance * GUIDANCE_SCHEDULES[schedule](progress, power)


def guidance_of_scale(scale: float) -> float:
  """Our guidance s for a scale w of the other convention; 1 is unguided.

  u + w (l - u) = l + s (l - u) with s = w - 1: the papers' scale 25 is 24.
  """
  return scale - 1.0


def with_settings(
  config: ml_collections.ConfigDict, settings: Mapping[str, float]
) -> ml_collections.ConfigDict:
  """Sets fields of section `sampling` in a copy of a generator's config.

  Any field but `steps` asks for random samples, so completions are drawn, too.

  Raises:
    ValueError: a setting that this kind of model does not have, or a value out
      of its range.
  """
  config = ml_collections.ConfigDict(config.to_dict())
  for field, value in settings.items():
    if field not in config.sampling:
      raise ValueError(
        f"{field}={value} is no setting of this {config.algorithm} model:"
        f" leave it out; it has {sorted(config.sampling)}"
      )
    fields.RANGES["sampling"][field].check(field, value)
    config.sampling[field] = value
  if set(settings) - {"steps"} and "completion" in config.sampling:
    config.sampling.completion = "sample"
  return config


def check_settings(settings: ml_collections.ConfigDict) -> None:
  """Raises ValueError for a field of `config.sampling` that cannot work."""
  if settings.steps < 1:
    raise ValueError(f"sampling.steps={settings.steps} must be at least 1")
  for field, known in (
    ("schedule", SCHEDULES),
    ("guidance_schedule", GUIDANCE_SCHEDULES),
    ("completion", COMPLETIONS),
  ):
    if field in settings and settings[field] not in known:
      raise ValueError(
        f"sampling.{field}={settings[field]!r} must be one of {sorted(known)}"
      )
  for field in ("choice_temperature", "temperature"):
    if field in settings and settings[field] < 0:
      raise ValueError(
        f"sampling.{field}={settings[field]} must not be negative; 0 is without"
        " noise"
      )
  if settings.guidance_power <= 0:
    raise ValueError(
      f"sampling.guidance_power={settings.guidance_power} must be positive"
    )


def truncate(logits: jax.Array, top_k: int, top_p: float) -> jax.Array:
  """Sets logits (..., V) of values that are not to be drawn to minus infinity.

  Keeps the `top_k` most likely values (0: all); then the fewest most likely of
  these that hold `top_p` of their probability (1: all). Values as likely as the
  last one kept are kept, too.
  """
  if 0 < top_k < logits.shape[-1]:
    last = lax.top_k(logits, top_k)[0][..., -1:]
    logits = jnp.where(logits >= last, logits, -jnp.inf)
  if top_p < 1.0:
    falling = -jnp.sort(-logits)
    p = jax.nn.softmax(falling)
    needed = p.cumsum(-1) - p < top_p  # the likelier values do not suffice
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
    raise ValueError(
      f"sampling.top_k={top_k} must be at least 1, or 0 to keep all values"
    )
  if not 0 < top_p <= 1:
    raise ValueError(
      f"sampling.top_p={top_p} must be above 0 and at most 1 (all values)"
    )


# Functions (key, shape, N tokens) -> how many of them training masks, as floats
# that are clipped to 1..N.
MASK_RATIOS: dict[str, Callable[[jax.Array, tuple[int, int], int], Any]] = {
  # MAGVIT's: floor(N cos(pi r / 2)) with r ~ U(0, 1).
  "cosine": lambda key, shape, tokens: jnp.floor(
    tokens * SCHEDULES["cosine"](jax.random.uniform(key, shape), tokens)
  ),
  # MAR's: ceil(N r) with r ~ N(1, 0.25), truncated to 0.7..1.
  "normal": lambda key, shape, tokens: jnp.ceil(
    tokens * (1 + 0.25 * jax.random.truncated_normal(key, -1.2, 0.0, shape))
  ),
}


def least_masked(tokens: int, ratio: str) -> int:
  """A number of tokens that every mask of a ratio masks at the least."""
  # One fewer than MAR's, lest a rounding mask fewer.
  return 1 if ratio == "cosine" else max(1, math.ceil(0.7 * tokens) - 1)


def training_mask(
  key: jax.Array,
  batch: int,
  tokens: int,
  ratio_per_clip: bool,
  ratio: str = "cosine",
) -> jax.Array:
  """Draws masks, bool (B, N), of 1 to N tokens each, as `MASK_RATIOS` says.

  One number is drawn for the batch as in MAGVIT, or one per clip.
  """
  ratio_key, order_key = jax.random.split(key)
  shape = (batch if ratio_per_clip else 1, 1)
  masked_B1 = MASK_RATIOS[ratio](ratio_key, shape, tokens).clip(1, tokens)
  order_BN = jax.random.uniform(order_key, (batch, tokens)).argsort(-1)
  return order_BN.argsort(-1) < masked_B1  # ranks: ties mask nothing extra
