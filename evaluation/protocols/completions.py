"""Completions of clips by a generator, beside those that need no model.

A task gives whole frames of a real clip, and the others are hidden. A model's
completion and a trivial one (the last given frame repeated, or the given ones
interpolated) are compared with the true clip on the hidden frames alone, which
are the same for both.

Pixels of a trivial completion are true ones, and a model's are its tokenizer's,
with detail that tokens lose where it carries that. What the tokens alone cost
shows in two more clips: the true one and the trivial completion, encoded,
decoded, and finished as the model's are. The first is what a model makes that
predicts each token right, which bounds scores that ask for the true clip, and
not Fréchet distances; the second is what a model of motion has to beat.
"""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses

import numpy as np

from evaluation import evaluators
from evaluation.metrics import frames as frame_metrics
from evaluation.protocols import networks
from evaluation.show import pictures

# Starts of the names of scores: of the model's completion, of the trivial one,
# and of the true clip and the trivial completion through the tokens.
STARTS = ("", "baseline_", "tokenized_", "tokenized_baseline_")


@dataclasses.dataclass(frozen=True)
class Given:
  """The frames of a clip that a task gives.

  Raises:
    ValueError: all of them, or none.
  """

  task: str
  frames: Sequence[bool]

  def __post_init__(self):
    if all(self.frames) or not any(self.frames):
      raise ValueError(
        f"{self.task} gives {sum(self.frames)} of {len(self.frames)} frames,"
        " and some must be given and some hidden to compare completions"
      )

  @property
  def numbers(self) -> list[int]:
    """Numbers of the given frames."""
    return np.flatnonzero(self.frames).tolist()

  @property
  def hidden_T(self) -> np.ndarray:
    """Whether each frame is hidden, bool (T,)."""
    return ~np.asarray(self.frames, bool)

  @property
  def baseline(self) -> str:
    """The trivial completion, in words."""
    return self._trivial(np.zeros((1, len(self.frames), 1, 1, 3)))[0]

  def _trivial(self, video_BTHWC: np.ndarray) -> tuple[str, np.ndarray]:
    shape = video_BTHWC.shape[1:4]
    given_THW = np.broadcast_to(~self.hidden_T[:, None, None], shape)
    return evaluators.trivial_completion(video_BTHWC, given_THW)

  def fill(self, video_BTHWC: np.ndarray) -> np.ndarray:
    """The trivial completion of clips, uint8 like them."""
    filled = self._trivial(video_BTHWC / np.float64(255.0))[1]
    return pictures.to_uint8(filled, "round", "trivial completions")


def rows(
  video_BTHWC: np.ndarray,
  completed_BTHWC: np.ndarray,
  given: Given,
  network: networks.Extractor,
  tokenize: Callable[[np.ndarray], np.ndarray],
) -> dict[str, np.ndarray]:
  """What the scores are made of, an array (B, ...) by name.

  `pool` are the network's features of the hidden frames in turn,
  `hidden_psnr` and `distance` compare with the true frames; STARTS are how the
  names of each kind of clip begin, and `real_pool` has the features of the true
  frames.

  Args:
    video_BTHWC: true clips, uint8.
    completed_BTHWC: their completions by a model, uint8.
    given: the frames that it was given.
    network: features and perceptual distance of frames.
    tokenize: clips, uint8, encoded and decoded by the model's tokenizer.

  Raises:
    ValueError: clips of another length than `given` has.
  """
  if video_BTHWC.shape[1] != len(given.frames):
    raise ValueError(
      f"clips of {video_BTHWC.shape[1]} frames are to be completed, and the"
      f" model makes {len(given.frames)}: give clips of that length"
    )
  hidden_T = given.hidden_T
  trivial = given.fill(video_BTHWC)
  whole = (completed_BTHWC, trivial, tokenize(video_BTHWC), tokenize(trivial))
  real = video_BTHWC[:, hidden_T]
  made = {"real_pool": _pooled(network, real)}
  for start, clips in zip(STARTS, whole, strict=True):
    fake = clips[:, hidden_T]
    made[f"{start}pool"] = _pooled(network, fake)
    made[f"{start}distance"] = _distances(network, real, fake)
    made[f"{start}hidden_psnr"] = _psnr(real, fake)
  return made


def _psnr(real_BTHWC: np.ndarray, fake_BTHWC: np.ndarray) -> np.ndarray:
  """PSNR of each clip, over all of its pixels, (B, 1)."""
  real, fake = (x / np.float64(255.0) for x in (real_BTHWC, fake_BTHWC))
  everywhere_THW = np.ones(real.shape[1:4], bool)
  return frame_metrics.masked_psnr(real, fake, everywhere_THW)[:, None]


def _pooled(network: networks.Extractor, video_BTHWC: np.ndarray) -> np.ndarray:
  """Features of the frames, in turn, (B, T D)."""
  by_frame = [
    network(video_BTHWC[:, t])["pool"] for t in range(video_BTHWC.shape[1])
  ]
  return np.concatenate(by_frame, axis=1)


def _distances(
  network: networks.Extractor, real_BTHWC: np.ndarray, fake_BTHWC: np.ndarray
) -> np.ndarray:
  """Perceptual distance of each clip, mean over its frames, (B, 1)."""
  by_frame = [
    network.distance(real_BTHWC[:, t], fake_BTHWC[:, t])
    for t in range(real_BTHWC.shape[1])
  ]
  return np.stack(by_frame, axis=1).mean(1, keepdims=True)
