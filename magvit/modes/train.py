"""--mode=train: trains a new model, or resumes an interrupted run."""

import dataclasses
from typing import ClassVar

import ml_collections

from magvit.training import loop


@dataclasses.dataclass(frozen=True)
class Options:
  """No flags: everything about an experiment is in its config."""

  NEEDS_CONFIG: ClassVar = True


def run(
  options: Options, config: ml_collections.ConfigDict, workdir: str
) -> None:
  del options
  loop.train(config, workdir)
