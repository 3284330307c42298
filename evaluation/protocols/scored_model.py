"""The trained model as protocols see it."""

from typing import Any
from typing import Protocol

import ml_collections
import numpy as np

from evaluation.protocols import clips as clips_lib
from evaluation.protocols import table as protocol_table


class ScoredModel(Protocol):
  """A model that makes samples or reconstructions, whatever its algorithm."""

  config: ml_collections.ConfigDict
  step: int  # training steps behind the weights
  batch_size: int  # clips in one call of the model's programs
  generates: bool  # whether `samples` works; if not, the other methods do

  def describe(self) -> dict[str, Any]:
    """Description of the model as JSON; equal models give equal JSON."""
    ...

  def samples(
    self,
    protocol: protocol_table.Protocol,
    given: clips_lib.Clips | None,
    num: int,
    seed: int,
  ) -> clips_lib.Clips:
    """Clips generated for the protocol's task; `given` are continued.

    Raises:
      ValueError: a model that does not generate, or not for this task.
    """
    ...

  def given_frames(self, task: str) -> np.ndarray:
    """Whether each frame of a clip is given whole by a task, bool (T,)."""
    ...

  def reconstructions(
    self, protocol: protocol_table.Protocol, originals: clips_lib.Clips
  ) -> clips_lib.Clips:
    """The originals, encoded and decoded."""
    ...

  def tokenized(self, video: np.ndarray, task: str) -> np.ndarray:
    """Clips, float32 in [0, 1], of a generator's own tokens of uint8 clips.

    What its completions of the task get of the given frames, they get, too.
    """
    ...

  @property
  def vocabulary(self) -> int:
    """Number of codes."""
    ...

  def bits(self) -> int:
    """Bits of a code; ValueError for codes that are not signs."""
    ...

  def encode(self, video: np.ndarray) -> np.ndarray:
    """Ids, int32 (B, t, h, w), of clips, uint8 (B, T, H, W, 3)."""
    ...

  def decode(self, ids: np.ndarray) -> np.ndarray:
    """Clips, float32 (B, T, H, W, 3) in [0, 1], of ids, int32 (B, t, h, w)."""
    ...
