"""--mode=export: a trained model as files that depend on no code of ours.

  FOLDER/model.safetensors  averaged weights, float32, named like our parameters
  FOLDER/config.json        the experiment
  FOLDER/README.md          a model card
  FOLDER/tokenizer/         of a generator: the same of its tokenizer
  FOLDER/programs.json and NAME.stablehlo, if asked for: stablehlo.py

The layout is that of a model on the Hugging Face hub. `load_tokenizer`,
`load_generator` and --workdir read FOLDER as they read a workdir.
"""

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
import json
import logging
import os
import shutil
from typing import Any

import jax
import ml_collections
import numpy as np

from magvit import mesh as mesh_lib
from magvit import trained as trained_lib
from magvit.generators import tasks as tasks_lib
from magvit.modes import stablehlo as stablehlo_lib
from magvit.tokenizer import describe
from magvit.tokenizer import fingerprint
from magvit.workdir import exports
from magvit.workdir import folder as workdir_lib
from magvit.workdir import weights as weights_lib
from models import network
from models.weights import safetensors_file
from storage import files
from storage import processes

log = logging.getLogger(__name__)


def export(workdir: str, output: str, stablehlo: bool = False) -> None:
  """Writes the model of a workdir to a new folder, whole or not at all.

  With `stablehlo` also what it computes: `magvit/modes/stablehlo.py`.

  Raises:
    ValueError: nothing was trained there, or a folder in use.
  """
  config = workdir_lib.read_config(workdir)
  output = os.path.abspath(output)
  if os.path.exists(output) and (
    not os.path.isdir(output) or os.listdir(output)
  ):
    raise ValueError(f"--output={output} is not empty: name a new directory")
  if not processes.is_first():
    return
  parent, name = os.path.split(output)
  temporary = os.path.join(parent, f".{name}.{os.getpid()}.tmp")
  try:
    _write(config, workdir, temporary, stablehlo)
    os.rename(temporary, output)  # fails on a folder that got files meanwhile
  finally:
    shutil.rmtree(temporary, ignore_errors=True)
  log.info("wrote %s", output)


def _write(
  config: ml_collections.ConfigDict, workdir: str, folder: str, stablehlo: bool
) -> exports.Notes:
  """Writes one model; returns what the metadata say."""
  mesh = mesh_lib.local_mesh()
  is_tokenizer = config.algorithm == "tokenizer"
  if is_tokenizer:
    step = weights_lib.latest_step(workdir)
    net, params = describe.restore_generator(workdir, mesh)
    weights = {"generator": params}
    predict = describe.predict_functions(net)
  else:
    own = workdir_lib.own_tokenizer(workdir) or config.tokenizer_workdir
    of_tokens = _write(
      workdir_lib.read_config(own),
      own,
      os.path.join(folder, exports.TOKENIZER),
      stablehlo,
    )
    algorithm, weights, step = trained_lib.open_trained(config, workdir, mesh)
    params, predict = weights["transformer"], algorithm.predict
  sections = exports.SECTIONS[config.algorithm]
  name = fingerprint.fingerprint(config, params, sections)
  notes = exports.Notes(
    config=json.loads(config.to_json()),
    fingerprint=name,
    step=step,
    ids=describe.id_convention(config) if is_tokenizer else of_tokens.ids,
    tokenizer=name if is_tokenizer else of_tokens.fingerprint,
  )
  tensors = {
    k: np.asarray(v) for k, v in safetensors_file.by_name(params).items()
  }
  safetensors_file.save(
    os.path.join(folder, exports.WEIGHTS),
    config.algorithm,
    tensors,
    notes.metadata(),
  )
  workdir_lib.write_config(folder, config)
  card = _card(config, notes, network.count(params))
  files.write_atomically(os.path.join(folder, "README.md"), card)
  if stablehlo:
    stablehlo_lib.write(folder, definitions(config, predict, weights))
  return notes


def definitions(
  config: ml_collections.ConfigDict,
  predict: Mapping[str, Callable],
  weights: Mapping[str, Any],
) -> dict[str, stablehlo_lib.Definition]:
  """encode and decode of a tokenizer, or sample of a generator.

  `weights` is what the functions of `predict` take.
  """
  # In the code a tokenizer's network is the generator of its GAN.
  ours = {"generator": "tokenizer", "transformer": "transformer"}
  shapes = {
    ours[name]: jax.eval_shape(safetensors_file.by_name, tree)
    for name, tree in weights.items()
  }
  of_names = lambda arrays: {
    name: safetensors_file.as_tree(arrays[ours[name]], tree)
    for name, tree in weights.items()
  }
  clip = ("batch", *describe.clip_shape(config), 3)
  video = stablehlo_lib.Argument(clip, "float32", "pixels in [0, 1]")

  if config.algorithm == "tokenizer":
    encode = lambda arrays, inputs: {
      "ids": predict["encode"](of_names(arrays), inputs, None)
    }
    decode = lambda arrays, inputs: {
      "video": predict["decode"](of_names(arrays), inputs, None)
    }
    latent = describe.sizes(config).latent(clip[1:-1])
    below = describe.vocabulary(config) - 1
    ids = stablehlo_lib.Argument(("batch", *latent), "int32", f"in 0..{below}")
    return {
      "encode": stablehlo_lib.Definition(encode, shapes, {"video": video}),
      "decode": stablehlo_lib.Definition(decode, shapes, {"ids": ids}),
    }

  def sample(arrays, inputs):
    batch = {name: inputs[name] for name in ("task", "label", "video")}
    key = jax.random.wrap_key_data(inputs["key"], impl="threefry2x32")
    return predict["sample"](of_names(arrays), batch, key)

  tasks = tasks_lib.task_names(config)
  classes = config.transformer.num_classes
  numbered = ", ".join(f"{n} {name}" for n, name in enumerate(tasks))
  inputs = {
    "key": stablehlo_lib.Argument(
      (2,), "uint32", "jax.random.key_data(jax.random.key(SEED))"
    ),
    "task": stablehlo_lib.Argument((), "int32", numbered),
    "label": stablehlo_lib.Argument(
      ("batch",), "int32", f"class in 0..{classes - 1}; {classes}: none"
    ),
    "video": dataclasses.replace(
      video, meaning=f"{video.meaning}; read where the task is given them"
    ),
  }
  return {"sample": stablehlo_lib.Definition(sample, shapes, inputs)}


def _card(
  config: ml_collections.ConfigDict, notes: exports.Notes, parameters: int
) -> str:
  common = dict(
    name=config.name,
    parameters=f"{parameters:,}",
    step=f"{notes.step:,}",
    fingerprint=notes.fingerprint,
    ids=notes.ids,
    clip=" x ".join(str(n) for n in describe.clip_shape(config)),
  )
  if config.algorithm == "tokenizer":
    settings = json.dumps(config.quantizer.to_dict())
    return _TOKENIZER_CARD.format(**common, quantizer=settings)
  tasks = ", ".join(tasks_lib.task_names(config))
  return _GENERATOR_CARD.format(
    **common,
    kind=config.algorithm,
    tasks=tasks,
    classes=config.transformer.num_classes,
    tokenizer=notes.tokenizer,
  )


_TOKENIZER_CARD = """---
library_name: jax
tags:
- magvit-v2
- video-tokenizer
- image-tokenizer
---

# {name}

A visual tokenizer of MAGVIT-v2 (arXiv 2310.05737): {parameters} parameters, the
moving average at step {step}, trained on clips of {clip}.

- Pixels: float32 in [0, 1], (batch, frames, height, width, RGB).
- Tokens: int32 (batch, t, h, w), {ids}.
- Quantizer: `{quantizer}`
- Fingerprint of settings and weights: `{fingerprint}`

`model.safetensors` holds the weights, `config.json` the settings:

    import magvit
    tokenizer = magvit.load_tokenizer("THIS_FOLDER")
    ids = tokenizer.encode(video)
    video = tokenizer.decode(ids)
"""

_GENERATOR_CARD = """---
library_name: jax
tags:
- magvit-v2
- video-generation
- {kind}
---

# {name}

A generator of MAGVIT-v2 (arXiv 2310.05737), {kind}: {parameters} parameters at
step {step}. It makes clips of {clip}.

- Tasks: {tasks}.
- Classes: {classes}.
- Its tokens are those of `tokenizer/`, {ids};
  fingerprint `{tokenizer}`
- Fingerprint of settings and weights: `{fingerprint}`

`model.safetensors` holds the weights, `config.json` the settings:

    import jax
    import magvit
    generator = magvit.load_generator("THIS_FOLDER")
    video = generator.sample(jax.random.key(0), num=4)
"""
