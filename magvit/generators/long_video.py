"""Video of any length by frame prediction, clip by clip.

Each clip is conditioned on the last frames of the one before (MAGVIT, arXiv
2212.05199, appendix, long video): one program, and one clip in memory.
"""

from collections.abc import Callable
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from models.tokenizer import tokenizer as tokenizer_network

# Function (clips (B, T, H, W, 3) of which only the first frames are read, key)
# -> clips float32 (B, T, H, W, 3) in [0, 1].
Predict = Callable[[jax.Array, jax.Array], jax.Array]


def roll(
  predict: Predict,
  key: jax.Array,
  condition_BTHWC: jax.Array | np.ndarray,
  frames: int,
  clip_length: int,
) -> Iterator[jax.Array]:
  """Yields chunks (B, n, H, W, 3) after the condition, `frames` frames in all.

  A chunk is a clip without the frames that it was given, which are as many as
  the condition has; the last chunk is cut.
  """
  given_BTHWC = tokenizer_network.to_float(jnp.asarray(condition_BTHWC))
  given = given_BTHWC.shape[1]
  new = clip_length - given
  padding = [(0, 0), (0, new), (0, 0), (0, 0), (0, 0)]
  for place, start in enumerate(range(0, frames, new)):
    clip_BTHWC = jnp.pad(given_BTHWC, padding)
    video_BTHWC = predict(clip_BTHWC, jax.random.fold_in(key, place))
    yield video_BTHWC[:, given : given + frames - start]
    given_BTHWC = video_BTHWC[:, -given:]
