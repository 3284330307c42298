"""The commands of main.py, one file a mode.

Each file has a frozen dataclass `Options`, whose fields are the mode's flags,
and `run(options, config, workdir)`; `config` is what --config gives, or None.
Class variables of Options say what else a mode needs: SUBJECT is the flag that
all the others belong to, NEEDS_CONFIG and NEEDS_WORKDIR what it cannot lack.
"""

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
