"""Turns coded tokens into a video, as main.py --mode=decompress does."""

from magvit import command_line
from magvit.modes import decompress

if __name__ == "__main__":
  command_line.run_alone("decompress", decompress)
