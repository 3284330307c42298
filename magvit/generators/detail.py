"""Detail that tokens lose, given back to completions of clips.

This is no paper's. Two differences tell how much is lost, and where. One is
what a completion lacks of the frames that are given whole, which is nearly as
true a few frames later. The other is what the condition clip, the completion
without a model, loses by its tokens: where a model takes those, it gives the
condition clip itself, and elsewhere that is changed by what the decoder makes
of other tokens. Their mean is nearer to the truth than each (docs/film.md).
"""

import jax
import jax.numpy as jnp
import numpy as np


def shares(given_THW: np.ndarray) -> np.ndarray:
  """Shares of two estimates of the detail in each frame, float32 (2, T, T).

  [0] is for what a completion lacks of whole given frames. Row t is 1/2 for the
  nearest one, if all are before it or all after it. Of two that it is between,
  the nearer one's is larger, by the cube of how near it is: most of the detail
  is one frame's, and so is sharp. [1], 1/2 on the diagonal, is for what the
  condition clip loses by its tokens. In given frames [0] is 1 and [1] is 0.
  Without whole given frames all are 0.
  """
  given_T = np.asarray(given_THW.all((1, 2)))
  numbers = np.flatnonzero(given_T)
  every = np.arange(len(given_T))
  shares_2TT = np.zeros((2, len(given_T), len(given_T)), np.float32)
  if not numbers.size:
    return shares_2TT
  for place, number in enumerate(numbers):
    one_hot = np.arange(len(numbers)) == place
    shares_2TT[0, :, number] = np.interp(every, numbers, one_hot) ** 3
  shares_2TT[0] /= shares_2TT[0].sum(1, keepdims=True)
  shares_2TT[0, ~given_T] *= 0.5
  shares_2TT[1, ~given_T, ~given_T] = 0.5
  return shares_2TT


def restore(
  shares_2TT: jax.Array,
  completed_BTHWC: jax.Array,
  condition_BTHWC: jax.Array,
  tokenized_BTHWC: jax.Array,
) -> jax.Array:
  """Adds both estimates of the lost detail to a completion.

  Given frames become the clip's.

  Args:
    shares_2TT: `shares` of the task.
    completed_BTHWC: float32 in [0, 1].
    condition_BTHWC: the task's condition clip, float32 in [0, 1].
    tokenized_BTHWC: the condition clip encoded and decoded, in [0, 1].
  """
  made_2BTHWC = jnp.stack([completed_BTHWC, tokenized_BTHWC])
  lost_2BTHWC = condition_BTHWC[None] - made_2BTHWC
  # Other precisions round the pixels of given frames, too.
  detail_BTHWC = jnp.einsum(
    "stg,sbghwc->bthwc", shares_2TT, lost_2BTHWC, precision="highest"
  )
  return jnp.clip(completed_BTHWC + detail_BTHWC, 0.0, 1.0)
