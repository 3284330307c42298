"""The generation tasks, and the region of a clip that each is given (COMMIT).

MAGVIT, arXiv 2212.05199, section 3.2 and appendix; google-research/magvit
`cond_utils.py`, `task_registry.py`. A task says which region of a clip is
given, on the pixels and, by the same formula, on the grid of latents, and how
the rest of the condition clip is filled before it is tokenized.

Given latents are treated in one of two ways when sampling. Those whose tokens
the condition clip is sure to have in common with the true clip are kept. That
is so where a causal tokenizer has seen given frames only: all of frame
prediction, the first latent of interpolation. The others start from the
condition's tokens and are predicted like the rest (COMMIT), since a latent
there has also seen what was filled in: in interpolation the last one, through
time; in inpainting and outpainting every one, through the convolutions in
space. With a tokenizer that is not causal, none is kept.
"""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
from typing import Self

import jax
from jax import lax
import jax.numpy as jnp
import ml_collections
import numpy as np

from magvit.generators import detail
from magvit.tokenizer import describe

TASK_SLOTS = 16  # rows of the task table; new tasks take free ones

# Rows of the task table, never reused. As in v1 one row is for all outpainting,
# and one for frame prediction with and without a class. Inpainting has a row of
# its own, where v1's released code takes that of outpainting.
_GENERATION, _PREDICTION, _INPAINTING, _INTERPOLATION, _OUTPAINTING = range(5)

# Function (shape (T, H, W), frames given to frame prediction) -> bool (T, H, W)
# for pixels and for latents alike.
Region = Callable[[Sequence[int], int], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Task:
  """One generation task."""

  token: int  # row of the task table
  class_conditional: bool  # whether the model is told the class, or "no class"
  given: Region  # pixels or latents that the task is given
  # Function (video, given) -> the condition clip that is tokenized.
  fill: Callable[[jax.Array, np.ndarray], jax.Array]
  kept: Region  # given latents whose tokens are exact under causality

  @property
  def exact(self) -> bool:
    """Whether the condition clip has the true tokens wherever it is given."""
    return self.kept is self.given


def _nothing(shape: Sequence[int], frames: int) -> np.ndarray:
  del frames
  return np.zeros(shape, bool)


def _first_frames(shape: Sequence[int], frames: int) -> np.ndarray:
  given = np.zeros(shape, bool)
  given[:frames] = True
  return given


def _first_frame(shape: Sequence[int], frames: int) -> np.ndarray:
  del frames
  return _first_frames(shape, 1)


def _both_ends(shape: Sequence[int], frames: int) -> np.ndarray:
  given = _first_frame(shape, frames)
  given[-1] = True
  return given


def _rows(shape: Sequence[int], frames: int) -> np.ndarray:
  given = _nothing(shape, frames)
  given[:, shape[1] // 4 : 3 * shape[1] // 4] = True
  return given


def _columns(shape: Sequence[int], frames: int) -> np.ndarray:
  given = _nothing(shape, frames)
  given[:, :, shape[2] // 4 : 3 * shape[2] // 4] = True
  return given


def _sliding_columns(shape: Sequence[int], frames: int) -> np.ndarray:
  """Half the width, from the left end in frame 0 to the right in the last."""
  given = _nothing(shape, frames)
  half = shape[2] // 2
  starts = np.round(np.linspace(0, half, shape[0])).astype(int)
  for frame, start in zip(given, starts, strict=True):
    frame[:, start : start + half] = True
  return given


def _both(a: Region, b: Region) -> Region:
  return lambda shape, frames: a(shape, frames) & b(shape, frames)


def _all_but(region: Region) -> Region:
  return lambda shape, frames: ~region(shape, frames)


def _with_zeros(video_BTHWC: jax.Array, given_THW: np.ndarray) -> jax.Array:
  return jnp.where(given_THW[None, ..., None], video_BTHWC, 0)


def _with_last_frame(
  video_BTHWC: jax.Array, given_THW: np.ndarray
) -> jax.Array:
  frames = int(given_THW.all((1, 2)).sum())
  last = np.minimum(np.arange(len(given_THW)), frames - 1)
  return video_BTHWC[:, last]


def _interpolated(video_BTHWC: jax.Array, given_THW: np.ndarray) -> jax.Array:
  """Makes hidden frame k of n k / (n + 1) of the way from first to last."""
  way_T = np.linspace(0, 1, len(given_THW), dtype=np.float32)
  way_1T111 = way_T[None, :, None, None, None]
  first_B1HWC, last_B1HWC = video_BTHWC[:, :1], video_BTHWC[:, -1:]
  return first_B1HWC * (1 - way_1T111) + last_B1HWC * way_1T111


def _with_edges(video_BTHWC: jax.Array, given_THW: np.ndarray) -> jax.Array:
  """Repeats outwards the border of a box that is the same in all frames."""
  rows, columns = (np.flatnonzero(given_THW[0].any(axis)) for axis in (1, 0))
  _, height, width = given_THW.shape
  rows = np.arange(height).clip(rows[0], rows[-1])
  columns = np.arange(width).clip(columns[0], columns[-1])
  return video_BTHWC[:, :, rows[:, None], columns]


_CENTRE = _both(_rows, _columns)

TASKS: dict[str, Task] = {
  "class_conditional": Task(
    _GENERATION, True, _nothing, _with_zeros, kept=_nothing
  ),
  "frame_prediction": Task(
    _PREDICTION, False, _first_frames, _with_last_frame, kept=_first_frames
  ),
  "class_conditional_frame_prediction": Task(
    _PREDICTION, True, _first_frames, _with_last_frame, kept=_first_frames
  ),
  "interpolation": Task(
    _INTERPOLATION, False, _both_ends, _interpolated, kept=_first_frame
  ),
  "central_outpainting": Task(
    _OUTPAINTING, False, _CENTRE, _with_edges, kept=_nothing
  ),
  "vertical_outpainting": Task(
    _OUTPAINTING, False, _columns, _with_edges, kept=_nothing
  ),
  "horizontal_outpainting": Task(
    _OUTPAINTING, False, _rows, _with_edges, kept=_nothing
  ),
  "dynamic_outpainting": Task(
    _OUTPAINTING, False, _sliding_columns, _with_zeros, kept=_nothing
  ),
  "central_inpainting": Task(
    _INPAINTING, False, _all_but(_CENTRE), _with_zeros, kept=_nothing
  ),
  "dynamic_inpainting": Task(
    _INPAINTING,
    False,
    _all_but(_both(_rows, _sliding_columns)),
    _with_zeros,
    kept=_nothing,
  ),
}


def task_names(config: ml_collections.ConfigDict) -> list[str]:
  """The tasks a config trains, in the order of `TASKS`.

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


@dataclasses.dataclass(frozen=True)
class TaskTable:
  """A config's tasks, to be looked up by a number that a program draws.

  Arrays are over the S tasks, in the order of `names`.
  """

  names: tuple[str, ...]
  token_S: np.ndarray  # int32: rows of the task table
  has_class_S: np.ndarray  # bool: whether the class is told
  weight_S: np.ndarray  # float32: relative frequency in training

  @classmethod
  def from_config(cls, config: ml_collections.ConfigDict) -> Self:
    names = tuple(task_names(config))
    return cls(
      names=names,
      token_S=np.array([TASKS[name].token for name in names], np.int32),
      has_class_S=np.array([TASKS[name].class_conditional for name in names]),
      weight_S=np.array([config.tasks[name] for name in names], np.float32),
    )

  def given_pixels(
    self, video_shape: Sequence[int], condition_frames: int
  ) -> np.ndarray:
    """Pixels that each task is given, bool (S, T, H, W)."""
    return np.stack(
      [given_pixels(name, video_shape, condition_frames) for name in self.names]
    )

  def whole_frames(
    self, video_shape: Sequence[int], condition_frames: int
  ) -> np.ndarray:
    """Whether each task is given whole frames, bool (S,)."""
    frames_ST = self.given_pixels(video_shape, condition_frames).all((2, 3))
    return np.asarray(np.any(frames_ST, axis=1))

  def latents(
    self,
    region: Callable[..., np.ndarray],
    latent_shape: Sequence[int],
    condition_frames: int,
    time_factor: int,
    causal: bool,
  ) -> np.ndarray:
    """`region`, `given_latents` or `kept_latents`, of each task: (S, t, h, w).

    Raises:
      ValueError: a grid so small that all of it is given, or nothing.
    """
    grid = (latent_shape, condition_frames, time_factor, causal)
    return np.stack([region(name, *grid) for name in self.names])

  def fill(
    self,
    task: int | jax.Array,
    video_BTHWC: jax.Array,
    condition_frames: int,
  ) -> jax.Array:
    """The condition clip of the task at this place, float32 like the clip."""
    given_STHW = self.given_pixels(video_BTHWC.shape[1:4], condition_frames)
    fills = [
      lambda video, fill=TASKS[name].fill, given=given: fill(video, given)
      for name, given in zip(self.names, given_STHW, strict=True)
    ]
    return lax.switch(task, fills, video_BTHWC)

  def finish(
    self,
    settings: ml_collections.ConfigDict,
    task: int | jax.Array,
    completed_BTHWC: jax.Array,
    video_BTHWC: jax.Array,
    condition_frames: int,
    tokenize: Callable[[jax.Array], jax.Array],
  ) -> jax.Array:
    """A task's completion with what `config.sampling` puts into its pixels.

    These are `carry_detail` (detail.py) and, after it,
    `replace_condition_pixels`, which some algorithms and configs of before have
    not. All clips are float32 in [0, 1]. `tokenize` encodes and decodes clips;
    its result is without effect for a task without `whole_frames`.
    """
    given_STHW = self.given_pixels(video_BTHWC.shape[1:4], condition_frames)
    if settings.get("carry_detail", False):
      shares_S2TT = np.stack([detail.shares(given) for given in given_STHW])
      filled_BTHWC = self.fill(task, video_BTHWC, condition_frames)
      completed_BTHWC = detail.restore(
        jnp.asarray(shares_S2TT)[task],
        completed_BTHWC,
        filled_BTHWC,
        tokenize(filled_BTHWC),
      )
    if settings.get("replace_condition_pixels", False):
      given_THW = jnp.asarray(given_STHW)[task]
      completed_BTHWC = jnp.where(
        given_THW[None, ..., None], video_BTHWC, completed_BTHWC
      )
    return completed_BTHWC

  def draw(self, key: jax.Array) -> jax.Array:
    """Draws the place of a task, int32 (), as often as the weights say."""
    return jax.random.categorical(key, jnp.log(jnp.asarray(self.weight_S)))


def needs_clip(task: str) -> bool:
  """Whether a task is given pixels."""
  return TASKS[task].given is not _nothing


def given_pixels(
  task: str, video_shape: Sequence[int], condition_frames: int
) -> np.ndarray:
  """Pixels that a task is given, bool (T, H, W)."""
  return TASKS[task].given(video_shape, condition_frames)


def given_frames(
  task: str, video_shape: Sequence[int], condition_frames: int
) -> np.ndarray:
  """Frames that a task is given whole, bool (T,)."""
  given_THW = given_pixels(task, video_shape, condition_frames)
  return np.asarray(given_THW.all((1, 2)))


def given_latents(
  task: str,
  latent_shape: Sequence[int],
  condition_frames: int,
  time_factor: int,
  causal: bool = True,
) -> np.ndarray:
  """Latents that a task is given, bool (t, h, w).

  A causal tokenizer of stride s makes 1 + k latents of 1 + k s frames. With any
  other, the c // s latents that lie wholly inside c frames count, but at least
  one, as in v1.

  Raises:
    ValueError: a grid so small that all of it is given, or nothing.
  """
  frames = _latent_frames(condition_frames, time_factor, causal)
  given_thw = TASKS[task].given(latent_shape, frames)
  if needs_clip(task) and (given_thw.all() or not given_thw.any()):
    raise ValueError(
      f"tasks.{task} is given all or none of {tuple(latent_shape)} latents: set"
      f" tasks.{task}=0, or train on larger clips (dataset.frames,"
      " dataset.size)"
    )
  return given_thw


def kept_latents(
  task: str,
  latent_shape: Sequence[int],
  condition_frames: int,
  time_factor: int,
  causal: bool = True,
) -> np.ndarray:
  """Given latents that sampling keeps, bool (t, h, w)."""
  frames = _latent_frames(condition_frames, time_factor, causal)
  return TASKS[task].kept(latent_shape, frames) & causal


def _latent_frames(frames: int, time_factor: int, causal: bool) -> int:
  if causal:
    return 1 + (frames - 1) // time_factor
  return max(1, frames // time_factor)


def check_prediction(
  config: ml_collections.ConfigDict, time_factor: int, causal: bool
) -> None:
  """Raises ValueError if frame prediction is given no whole latents."""
  if any("frame_prediction" in name for name in task_names(config)):
    check_condition_frames(
      config.condition_frames,
      config.dataset.frames,
      time_factor if causal else 1,
    )


def check_detail(config: ml_collections.ConfigDict) -> None:
  """Raises ValueError for carried detail where no frames have any to give."""
  if not config.sampling.get("carry_detail", False):
    return
  table = TaskTable.from_config(config)
  shape = describe.clip_shape(config)
  if not table.whole_frames(shape, config.condition_frames).any():
    raise ValueError(
      "sampling.carry_detail=True gives completions detail of whole given"
      f" frames, and {list(table.names)} are given none: set it to False"
    )


def check_condition_frames(frames: int, clip_length: int, factor: int) -> None:
  """Raises ValueError unless whole latents stand for the given frames."""
  if not 1 <= frames < clip_length or (frames - 1) % factor:
    raise ValueError(
      f"condition_frames={frames} must be 1 + a multiple of the temporal"
      f" stride {factor}, below the clip length {clip_length}: e.g."
      f" {list(range(1, clip_length, factor))}"
    )
