"""--mode=train: a new run, or the rest of an interrupted one."""

import dataclasses
from typing import ClassVar

import ml_collections

from magvit.training import loop


@dataclasses.dataclass(frozen=True)
class Options:
  """None: an experiment is its config."""

  NEEDS_CONFIG: ClassVar = True


def run(
  options: Options, config: ml_collections.ConfigDict, workdir: str
) -> None:
  del options
  loop.train(config, workdir)
