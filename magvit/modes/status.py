"""--mode=status: says where a run stands, or each run in a folder of them."""

from magvit.modes import table
from magvit.workdir import standing


def run(options: table.Status, config: None, workdir: str) -> None:
  del options, config
  for line in standing.lines(workdir):
    print(line)
