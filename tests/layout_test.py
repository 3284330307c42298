"""Tests of the source tree itself: floors, circles, and who may do what."""

import pathlib

_ROOT = pathlib.Path(__file__).parents[1]
# The wings from the roof down, a floor a line. A file imports from its own wing
# and from floors below it.
_FLOORS = (
  ("main",),
  ("magvit/compress", "magvit/decompress"),
  ("magvit/modes",),
  ("magvit/compression",),
  ("magvit/api",),
  ("magvit/training", "magvit/cost"),
  ("magvit/scoring",),
  ("magvit/trained",),
  ("magvit/generators",),
  ("magvit/tokenizer",),
  ("magvit/workdir", "magvit/algorithm"),
  ("magvit/mesh", "magvit/optimizer", "magvit/command_line"),
  ("evaluation",),
  ("models", "input_pipeline"),
  ("storage",),
  ("configs",),
)
