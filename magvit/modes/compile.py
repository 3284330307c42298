"""--mode=compile: reports what a config costs on TPUs, which need not exist."""

import ml_collections

from magvit.cost import report
from magvit.modes import table
from magvit.training import automatic


def run(
  options: table.Compile, config: ml_collections.ConfigDict, workdir: str
) -> None:
  automatic.check_given(config, "compile")
  report.write(config, workdir, options.topology, options.programs, options.fit)
