"""The commands of main.py, one file a mode.

Each file has a frozen dataclass `Options`, whose fields are the mode's flags,
and `run(options, config, workdir)`; `config` is None without --config. Class
variables of Options say more: SUBJECT names the flag without which no other is
read, NEEDS_CONFIG and NEEDS_WORKDIR whether the mode needs that flag.
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
