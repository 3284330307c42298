"""The mean and deviation of the latents that a generator was trained on.

They are measured once, before step 0 of the first run, and stored beside the
generator's own copy of the tokenizer: weights of the generator mean nothing
without them.
"""

from collections.abc import Mapping
import dataclasses
import os
from typing import Annotated

import numpy as np

from storage import files
from storage import processes
from storage import schema
from storage import stores

FILE = "latents.json"
_POSITIVE = schema.Rule("above 0", lambda value: value > 0)


@dataclasses.dataclass(frozen=True)
class _Statistics:
  """Contents of the file, a number for each channel."""

  mean: tuple[Annotated[float, schema.FINITE], ...]
  std: tuple[Annotated[float, schema.FINITE, _POSITIVE], ...]


def write(folder: str, statistics: Mapping[str, np.ndarray]) -> None:
  """Writes float32 "mean" and "std", (C,) each, exactly."""
  if processes.is_first():
    values = {
      name: np.asarray(statistics[name], np.float32).tolist()
      for name in ("mean", "std")
    }
    files.write_json(os.path.join(folder, FILE), values)


def read(folder: str, channels: int) -> dict[str, np.ndarray] | None:
  """Reads what `write` wrote; None without the file.

  Raises:
    ValueError: a damaged file, or one of another number of channels.
  """
  path = os.path.join(folder, FILE)
  if not stores.is_file(path):
    return None
  remedy = "copy it from the workdir or the export of the generator again"
  stored = schema.load(path, _Statistics, remedy)
  for name in ("mean", "std"):
    count = len(getattr(stored, name))
    if count != channels:
      raise ValueError(
        f"{path} has {count} numbers in {name}, and a latent has {channels}"
        f" channels: {remedy}"
      )
  return {
    "mean": np.array(stored.mean, np.float32),
    "std": np.array(stored.std, np.float32),
  }
