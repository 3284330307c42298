"""--mode=train: trains a new model, or resumes an interrupted run."""

import ml_collections

from magvit.modes import table
from magvit.training import loop
from magvit.training import trackers


def run(
  options: table.Train, config: ml_collections.ConfigDict, workdir: str
) -> None:
  loop.train(config, workdir, trackers.load(options.tracker))
