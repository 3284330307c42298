"""The program `python -m magvit.decompress`: --mode=decompress of main.py."""

from magvit import command_line
from magvit.modes import decompress

if __name__ == "__main__":
  command_line.run_alone("decompress", decompress)
