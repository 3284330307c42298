"""Mask schedules, and the geometry of the generation tasks (COMMIT).

MAGVIT, arXiv 2212.05199, section 3.2 and appendix; google-research/magvit
`mask_schedule.py`, `cond_utils.py`, `task_registry.py`. A task says which
region of a clip is given, on the pixels and, by the same formula, on the grid
of latents, and how the rest of the condition clip is filled before it is
tokenized.
"""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
import math

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

# Share of tokens still masked at progress r in [0, 1].
SCHEDULES: dict[str, Callable[[jax.Array], jax.Array]] = {
  "cosine": lambda r: jnp.cos(0.5 * math.pi * r),
  "uniform": lambda r: 1.0 - r,
}

TASK_SLOTS = 16  # rows of the task table; new tasks take free ones


@dataclasses.dataclass(frozen=True)
class Task:
  """One generation task."""

  token: int  # row of the task table; never reused, 0 is full generation
  class_conditional: bool  # else the class is "no class"
  # (shape (T, H, W), frames given) -> bool (T, H, W), True where given
  given: Callable[[Sequence[int], int], np.ndarray]
  # (video, given) -> the condition clip that is tokenized
  fill: Callable[[jax.Array, np.ndarray], jax.Array]
  # The causal tokenizer gives the condition clip the true clip's tokens in
  # the given region, so sampling keeps them; else they are refined.
  exact: bool


def _nothing(shape: Sequence[int], frames: int) -> np.ndarray:
  del frames
  return np.zeros(shape, bool)


def _first_frames(shape: Sequence[int], frames: int) -> np.ndarray:
  given = np.zeros(shape, bool)
  given[:frames] = True
  return given


def _all_but_centre(shape: Sequence[int], frames: int) -> np.ndarray:
  del frames
  _, height, width = shape
  given = np.ones(shape, bool)
  rows = slice(height // 4, 3 * height // 4)
  given[:, rows, width // 4 : 3 * width // 4] = False
  return given


def _with_zeros(video_BTHWC: jax.Array, given_THW: np.ndarray) -> jax.Array:
  return jnp.where(given_THW[..., None], video_BTHWC, 0)


def _with_last_frame(
  video_BTHWC: jax.Array, given_THW: np.ndarray
) -> jax.Array:
  frames = int(given_THW.all((1, 2)).sum())
  last = np.minimum(np.arange(len(given_THW)), frames - 1)
  return video_BTHWC[:, last]


TASKS: dict[str, Task] = {
  "class_conditional": Task(0, True, _nothing, _with_zeros, exact=True),
  "frame_prediction": Task(
    1, False, _first_frames, _with_last_frame, exact=True
  ),
  "central_inpainting": Task(
    2, False, _all_but_centre, _with_zeros, exact=False
  ),
}


def task_names(config: ml_collections.ConfigDict) -> list[str]:
  """The tasks a config trains, in the order of their task tokens.

  Raises:
    ValueError: an unknown task, or none of positive weight.
  """
  names = [name for name in TASKS if config.tasks.get(name, 0.0) > 0]
  if set(config.tasks) - set(TASKS) or not names:
    raise ValueError(
      f"tasks={dict(config.tasks)} must give a positive weight to one or more"
      f" of {sorted(TASKS)}"
    )
  return names


def needs_clip(task: str) -> bool:
  """Whether a task is given pixels."""
  return TASKS[task].given is not _nothing


def given_pixels(
  task: str, video_shape: Sequence[int], condition_frames: int
) -> np.ndarray:
  """bool (T, H, W): the pixels a task is given."""
  return TASKS[task].given(video_shape, condition_frames)


def given_latents(
  task: str,
  latent_shape: Sequence[int],
  condition_frames: int,
  time_factor: int,
) -> np.ndarray:
  """bool (t, h, w): the latents a task is given; 1 + k s frames are 1 + k."""
  latent_frames = 1 + (condition_frames - 1) // time_factor
  return TASKS[task].given(latent_shape, latent_frames)


def check_condition_frames(frames: int, clip_length: int, factor: int) -> None:
  """Raises ValueError unless whole latents stand for the given frames."""
  if not 1 <= frames < clip_length or (frames - 1) % factor:
    raise ValueError(
      f"condition_frames={frames} must be 1 + a multiple of the temporal"
      f" stride {factor}, below the clip length {clip_length}: e.g."
      f" {list(range(1, clip_length, factor))}"
    )


def training_mask(
  key: jax.Array, batch: int, tokens: int, ratio_per_clip: bool
) -> jax.Array:
  """bool (B, N), True where masked: floor(N cos(pi r / 2)) >= 1 of N tokens.

  r ~ U(0, 1), one for the batch as in MAGVIT, or one per clip.
  """
  ratio_key, order_key = jax.random.split(key)
  r_B1 = jax.random.uniform(ratio_key, (batch if ratio_per_clip else 1, 1))
  masked_B1 = jnp.maximum(1, jnp.floor(tokens * SCHEDULES["cosine"](r_B1)))
  order_BN = jax.random.uniform(order_key, (batch, tokens)).argsort(-1)
  return order_BN.argsort(-1) < masked_B1  # by rank: ties mask nothing extra
