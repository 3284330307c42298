"""--mode=train: trains a new model, or resumes an interrupted run."""

import ml_collections

from magvit.modes import table
from magvit.training import loop


def run(
  options: table.Train, config: ml_collections.ConfigDict, workdir: str
) -> None:
  del options
  loop.train(config, workdir)
