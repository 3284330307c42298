"""Codes videos as files of tokens, as main.py --mode=compress does."""

from magvit import command_line
from magvit.modes import compress

if __name__ == "__main__":
  command_line.run_alone("compress", compress)
