"""--mode=compile: reports what a config costs on TPUs, which need not exist."""

import dataclasses
from typing import ClassVar

import ml_collections

from magvit import command_line
from magvit.cost import report


@dataclasses.dataclass(frozen=True)
class Options:
  NEEDS_CONFIG: ClassVar = True

  topology: str = command_line.option(
    "TPUs to compile for, by libtpu's name for them, like v5e:16x16",
    needed="NAME, like v5e:16x16",
  )


def run(
  options: Options, config: ml_collections.ConfigDict, workdir: str
) -> None:
  report.write(config, workdir, options.topology)
