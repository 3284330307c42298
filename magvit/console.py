"""The commands that `pip install` makes: `magvit` and `magvit-report`."""

import runpy

from storage import interrupts

# The package that main.py is in: none in the repository, ours in a wheel.
_WITHIN = interrupts.__name__.removesuffix("storage.interrupts")


def main() -> None:
  """Runs main.py, as a program: absl shows the flags of those alone."""
  interrupts.end_at_once()  # the other imports take a while
  runpy.run_module(f"{_WITHIN}main", run_name="__main__", alter_sys=True)


def report() -> None:
  """Writes one page about experiments, as evaluation/show/report.py says."""
  interrupts.end_at_once()
  from evaluation.show import report as report_lib

  report_lib.main()
