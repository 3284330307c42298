"""The trained model that protocols measure, as far as they know it."""

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
  batch_size: int  # clips of one call of the model's programs
  generates: bool  # whether `samples` works; if not, the others do

  def describe(self) -> dict[str, Any]:
    """Which model this is, as JSON: equal for equal features."""
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

  def reconstructions(
    self, protocol: protocol_table.Protocol, originals: clips_lib.Clips
  ) -> clips_lib.Clips:
    """The originals, encoded and decoded."""
    ...

  @property
  def vocabulary(self) -> int:
    """Number of codes."""
    ...

  def bits(self) -> int:
    """Bits of a code; ValueError for codes that are not signs."""
    ...

  def encode(self, video: np.ndarray) -> np.ndarray:
    """uint8 (B, T, H, W, 3) to int32 (B, t, h, w)."""
    ...

  def decode(self, ids: np.ndarray) -> np.ndarray:
    """int32 (B, t, h, w) to float32 (B, T, H, W, 3) in [0, 1]."""
    ...
