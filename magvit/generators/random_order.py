"""Decoding in random order, a part of the tokens at a time.

MAR (arXiv 2406.11838, section 3.4; LTH14/mar `sample_tokens`). A drawn latent
has no confidence, by which MaskGIT chooses what to keep, so that the order is
drawn before anything else. Of each step's tokens alone latents are drawn: a
head runs many times for each, the trunk once a step.
"""

from collections.abc import Callable

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from magvit.generators import sampling

# Function (key, z_BNC, decided_BN, chosen_BM, share decided with them) ->
# latents (B, M, C) of the chosen tokens. Latents not yet decided hold the
# condition where it is given.
Draw = Callable[
  [jax.Array, jax.Array, jax.Array, jax.Array, jax.Array], jax.Array
]


def decode(
  key: jax.Array,
  draw: Draw,
  condition_BNC: jax.Array,
  fixed_BN: jax.Array,
  steps: int,
  schedule: str,
) -> jax.Array:
  """Samples the latents of a batch of clips, float32 (B, N, C).

  Args:
    key: PRNG key.
    draw: draws the latents of some tokens.
    condition_BNC: latents of the condition, anything where none is given.
    fixed_BN: bool, true for tokens that keep those of the condition; as many in
      each clip.
    steps: number of steps; may exceed the number of tokens.
    schedule: name in `sampling.SCHEDULES`.
  """
  batch, tokens = fixed_BN.shape
  left_K = remaining(tokens, steps, schedule)
  most = most_at_once(left_K, tokens)
  order_key, draw_key = jax.random.split(key)
  place_BN = jax.random.uniform(order_key, fixed_BN.shape)
  order_BN = jnp.where(fixed_BN, -1.0, place_BN).argsort(-1)
  rank_BN = order_BN.argsort(-1)
  # Number N is that of no token.
  padding = [(0, 0), (0, most)]
  order_BM = jnp.pad(order_BN, padding, constant_values=tokens)

  def one_step(carry, k):
    z_BNC, decided = carry
    left = tokens - decided
    after = jnp.minimum(jnp.asarray(left_K)[k], jnp.maximum(left - 1, 0))
    chosen_BM = lax.dynamic_slice_in_dim(order_BM, decided, most, axis=1)
    new_1M = jnp.arange(most)[None] < left - after
    chosen_BM = jnp.where(new_1M, chosen_BM, tokens)
    drawn_BMC = draw(
      jax.random.fold_in(draw_key, k),
      z_BNC,
      rank_BN < decided,
      jnp.minimum(chosen_BM, tokens - 1),
      1 - after / tokens,
    )
    clip_B1 = jnp.arange(batch)[:, None]
    z_BNC = z_BNC.at[clip_B1, chosen_BM].set(drawn_BMC, mode="drop")
    return (z_BNC, tokens - after), None

  start = (condition_BNC, fixed_BN[0].sum())
  (z_BNC, _), _ = lax.scan(one_step, start, jnp.arange(steps))
  return z_BNC


def remaining(tokens: int, steps: int, schedule: str) -> np.ndarray:
  """Tokens that are left after each step, int32 (steps,), if all were to do.

  With fewer to do, each step decides one at least, until this many are left.
  """
  progress = (np.arange(steps) + 1) / steps
  # Computed once: a program might round differently from step to step.
  with jax.ensure_compile_time_eval():
    share = sampling.SCHEDULES[schedule](jnp.asarray(progress), tokens)
  left = np.maximum(np.floor(tokens * np.asarray(share)), 1).astype(np.int32)
  left[-1] = 0
  return left


def most_at_once(left_K: np.ndarray, tokens: int) -> int:
  """Most tokens that a step of `decode` decides, however many are fixed."""
  return int(max(1, -np.diff(left_K, prepend=tokens).min()))
