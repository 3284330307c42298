"""The program `python -m magvit.compress`: --mode=compress of main.py."""

from magvit import command_line
from magvit.modes import compress

if __name__ == "__main__":
  command_line.run_alone("compress", compress)
