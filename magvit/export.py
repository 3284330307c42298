"""--mode=export: a trained tokenizer as files that depend on no code of ours.

  FOLDER/model.safetensors  averaged weights, float32, named like our parameters
  FOLDER/config.json        the experiment; its sections `tokenizer` and
                            `quantizer` describe the network
  FOLDER/README.md          a model card

`--mode=import --source=export --input=FOLDER` makes a workdir of them again.
"""

import json
import logging
import os

import jax
import numpy as np

from evaluation import files
from magvit import checkpoint
from magvit import fingerprint
from magvit import mesh as mesh_lib
from magvit import tokenizer
from models import network
from models import pretrained

log = logging.getLogger(__name__)

WEIGHTS = "model.safetensors"
NETWORK = "tokenizer"  # in the metadata of the weights


def export(workdir: str, output: str) -> None:
  """Writes the tokenizer of a workdir, a generator's included, to a folder.

  Raises:
    ValueError: nothing was trained there, or a folder in use.
  """
  workdir = checkpoint.own_tokenizer(workdir) or workdir
  config = checkpoint.read_config(workdir)
  if os.path.isdir(output) and os.listdir(output):
    raise ValueError(f"--output={output} is not empty: name a new directory")
  step = checkpoint.latest_step(workdir)
  _, params = tokenizer.restore_generator(workdir, mesh_lib.local_mesh())
  name = fingerprint.fingerprint(config, params)
  if jax.process_index() != 0:
    return
  tensors = {k: np.asarray(v) for k, v in pretrained.by_name(params).items()}
  path = os.path.join(output, WEIGHTS)
  ids = fingerprint.id_convention(config)
  notes = {"fingerprint": name, "ids": ids, "step": str(step)}
  pretrained.save(path, NETWORK, tensors, notes)
  files.write_atomically(
    os.path.join(output, "README.md"),
    _CARD.format(
      name=config.name,
      parameters=network.count(params),
      fingerprint=name,
      step=step,
      ids=ids,
      quantizer=json.dumps(config.quantizer.to_dict()),
    ),
  )
  # Last: a folder with a config is a complete one.
  checkpoint.write_config(output, config)
  log.info("wrote %s", path)


_CARD = """---
library_name: jax
tags: [video-tokenizer, magvit-v2, lookup-free-quantization]
---

# {name}

A visual tokenizer of MAGVIT-v2 (arXiv 2310.05737): {parameters:,} parameters,
moving average at step {step}.

- Pixels: float32 in [0, 1], (batch, frames, height, width, RGB).
- Tokens: int32 (batch, t, h, w), {ids}.
- Quantizer: `{quantizer}`
- Fingerprint: `{fingerprint}`

`model.safetensors` holds the weights, `config.json` the settings. To use them:

    python main.py --mode=import --source=export --input=THIS_FOLDER \\
      --workdir=DIR

    import magvit
    ids = magvit.load_tokenizer("DIR").encode(video)
"""
