"""Codes videos as files of tokens, as main.py --mode=compress does."""

from storage import interrupts

if __name__ == "__main__":
  interrupts.end_at_once()  # the other imports take seconds

from magvit import command_line
from magvit.modes import table

if __name__ == "__main__":
  command_line.run_alone("compress", table.MODES["compress"])
