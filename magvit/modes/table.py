"""The modes by name: what --mode takes."""

from magvit.modes import compile
from magvit.modes import compress
from magvit.modes import decompress
from magvit.modes import evaluate
from magvit.modes import export
from magvit.modes import import_weights
from magvit.modes import reconstruct
from magvit.modes import sample
from magvit.modes import tokenize
from magvit.modes import train

MODES = {
  "train": train,
  "evaluate": evaluate,
  "sample": sample,
  "reconstruct": reconstruct,
  "tokenize": tokenize,
  "export": export,
  "import": import_weights,
  "compile": compile,
  "compress": compress,
  "decompress": decompress,
}
