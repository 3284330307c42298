"""--mode=export: writes a trained model as files that need no code of ours.

  FOLDER/model.safetensors  averaged weights, float32, named like our parameters
  FOLDER/config.json        the experiment
  FOLDER/README.md          a model card
  FOLDER/tokenizer/         the same of a generator's tokenizer
  FOLDER/programs.json and NAME.stablehlo, with --stablehlo: stablehlo.py

The layout is that of a model on the Hugging Face hub. `load_tokenizer`,
`load_generator` and --workdir read FOLDER as they read a workdir.
"""

import dataclasses
import json
import logging
import os
from typing import Any

import jax
import ml_collections
import numpy as np

from input_pipeline import pipeline
from magvit import algorithm as algorithm_lib
from magvit import trained as trained_lib
from magvit.generators import tasks as tasks_lib
from magvit.modes import table
from magvit.tokenizer import describe
from magvit.tokenizer import fingerprint
from magvit.workdir import exports
from magvit.workdir import folder as workdir_lib
from magvit.workdir import latent_statistics
from magvit.workdir import stablehlo as stablehlo_lib
from models import network
from models.weights import safetensors_file
from storage import files
from storage import processes
from storage import stores

log = logging.getLogger(__name__)

# What a program holds itself, as it is no network with a file of weights.
_CONSTANTS = ("latents",)


def run(
  options: table.Export, config: ml_collections.ConfigDict | None, workdir: str
) -> None:
  workdir_lib.stored_config(workdir, config)
  export(workdir, options.output, options.stablehlo)


def export(workdir: str, output: str, stablehlo: bool = False) -> None:
  """Writes the model of a workdir to a new folder, whole or not at all.

  With `stablehlo` also the computations: `magvit/workdir/stablehlo.py`.

  Raises:
    ValueError: nothing was trained there, a folder that is not empty, or one
      that another process writes.
  """
  workdir_lib.read_config(workdir)  # raises where nothing was trained
  output = stores.absolute(output)
  label = f"--output={output}"
  with processes.one_writer(output, "--mode=export", beside=True, label=label):
    _export(workdir, output, stablehlo)


def _export(workdir: str, output: str, stablehlo: bool) -> None:
  if stores.exists(output) and (
    not stores.is_folder(output) or stores.names(output)
  ):
    raise ValueError(f"--output={output} is not empty: name a new folder")
  if not processes.is_first():
    return
  # It fails on a folder that got files meanwhile.
  with files.published_folder(output, exports.WEIGHTS) as temporary:
    _write(workdir, str(temporary), stablehlo)
  log.info("wrote %s", output)


def _write(workdir: str, folder: str, stablehlo: bool) -> exports.Notes:
  """Writes one model; returns the notes of its metadata."""
  trained = trained_lib.open_trained(workdir)
  config, facts = trained.config, trained.algorithm.facts
  params = trained.params[facts.network]
  name = fingerprint.fingerprint(config, params, facts.defining)
  latents = ""
  if "tokenizer" in trained.algorithm.frozen:
    source = workdir_lib.own_tokenizer(workdir) or config.tokenizer_workdir
    target = os.path.join(folder, exports.TOKENIZER)
    tokenizer = _write(source, target, stablehlo)
    ids, tokenizer_name = tokenizer.ids, tokenizer.fingerprint
    if "latents" in trained.params:
      latent_statistics.write(target, trained.params["latents"])
      latents = files.sha256(os.path.join(target, latent_statistics.FILE))
  elif describe.is_tokenizer(config):
    ids, tokenizer_name = describe.id_convention(config), name
  else:
    ids, tokenizer_name = "no ids: it reads pixels", name
  notes = exports.Notes(
    config=json.loads(config.to_json()),
    fingerprint=name,
    step=trained.step,
    ids=ids,
    tokenizer=tokenizer_name,
    defining=facts.defining,
    latents=latents,
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
  card = _card(trained, notes)
  files.write_atomically(os.path.join(folder, "README.md"), card)
  if stablehlo:
    stablehlo_lib.write(folder, definitions(trained))
  return notes


def definitions(
  trained: trained_lib.Trained,
) -> dict[str, stablehlo_lib.Definition]:
  """Programs to export: encode and decode of a tokenizer, or sample."""
  trained = _portable(trained)
  predict = trained.algorithm.predict
  made = {}
  if {"encode", "decode"} <= predict.keys():
    made |= _define_coding(trained)
  if "sample" in predict:
    made["sample"] = _define_sampling(trained)
  if "classify" in predict:
    made["classify"] = _define_recognition(trained)
  return made


def _portable(trained: trained_lib.Trained) -> trained_lib.Trained:
  """The model without kernels, which no program for several platforms holds."""
  section = trained.algorithm.facts.section
  if "attention" not in trained.config[section]:
    return trained
  config = trained_lib.with_fields(
    trained.config, {f"{section}.attention": "plain"}
  )
  config = trained_lib.resolve(config, trained.workdir, training=False)
  algorithm = trained_lib.build(config, trained.mesh)
  return dataclasses.replace(trained, algorithm=algorithm)


def _shapes(trained: trained_lib.Trained) -> dict[str, Any]:
  """Shapes of the arrays of weights: network -> name -> shape."""
  return {
    name: jax.eval_shape(safetensors_file.by_name, tree)
    for name, tree in trained.params.items()
    if name not in _CONSTANTS
  }


def _as_params(trained: trained_lib.Trained, arrays: Any) -> dict[str, Any]:
  """Parameters for predict functions, from a program's arrays by name."""
  return {
    name: tree
    if name in _CONSTANTS
    else safetensors_file.as_tree(arrays[name], tree)
    for name, tree in trained.params.items()
  }


def _describe_video(
  config: ml_collections.ConfigDict, more: str = ""
) -> stablehlo_lib.Argument:
  clip = ("batch", *describe.clip_shape(config), 3)
  meaning = f"pixels in [0, 1]{more}"
  return stablehlo_lib.Argument(clip, "float32", meaning, low=0, high=1)


def _define_coding(
  trained: trained_lib.Trained,
) -> dict[str, stablehlo_lib.Definition]:
  config, predict = trained.config, trained.algorithm.predict
  name = describe.coded_name(config)
  encode = lambda arrays, inputs: {
    name: predict["encode"](_as_params(trained, arrays), inputs, None)
  }
  decode = lambda arrays, inputs: {
    "video": predict["decode"](_as_params(trained, arrays), inputs, None)
  }
  shapes, video = _shapes(trained), _describe_video(config)
  coded = {name: _describe_coded(config)}
  return {
    "encode": stablehlo_lib.Definition(encode, shapes, {"video": video}),
    "decode": stablehlo_lib.Definition(decode, shapes, coded),
  }


def _describe_coded(
  config: ml_collections.ConfigDict,
) -> stablehlo_lib.Argument:
  """The ids of clips, or their latents where there are no ids."""
  grid = describe.sizes(config).latent(describe.clip_shape(config))
  if not describe.has_ids(config):
    shape = ("batch", *grid, describe.latent_channels(config))
    return stablehlo_lib.Argument(shape, "float32", "latents of encode")
  below = describe.vocabulary(config) - 1
  return stablehlo_lib.Argument(
    ("batch", *grid), "int32", f"in 0..{below}", low=0, high=below
  )


def _define_sampling(trained: trained_lib.Trained) -> stablehlo_lib.Definition:
  predict = trained.algorithm.predict

  def sample(arrays, inputs):
    batch = {name: inputs[name] for name in ("task", "label", "video")}
    key = jax.random.wrap_key_data(inputs["key"], impl="threefry2x32")
    return predict["sample"](_as_params(trained, arrays), batch, key)

  tasks = tasks_lib.task_names(trained.config)
  classes = trained.num_classes
  numbered = ", ".join(f"{n} {name}" for n, name in enumerate(tasks))
  inputs = {
    "key": stablehlo_lib.Argument(
      (2,), "uint32", "jax.random.key_data(jax.random.key(SEED))"
    ),
    "task": stablehlo_lib.Argument(
      (), "int32", numbered, low=0, high=len(tasks) - 1
    ),
    "label": stablehlo_lib.Argument(
      ("batch",),
      "int32",
      f"class in 0..{classes - 1}; {classes}: none",
      low=0,
      high=classes,
    ),
    "video": _describe_video(
      trained.config, "; read where the task is given some"
    ),
  }
  return stablehlo_lib.Definition(sample, _shapes(trained), inputs)


def _define_recognition(
  trained: trained_lib.Trained,
) -> stablehlo_lib.Definition:
  predict = trained.algorithm.predict
  key = jax.random.key(0)  # nothing is random
  classify = lambda arrays, inputs: {
    "logits": predict["classify"](_as_params(trained, arrays), inputs, key)
  }
  inputs = {"video": _describe_video(trained.config)}
  return stablehlo_lib.Definition(classify, _shapes(trained), inputs)


def _card(trained: trained_lib.Trained, notes: exports.Notes) -> str:
  config, facts = trained.config, trained.algorithm.facts
  common = dict(
    name=config.name,
    parameters=f"{network.count(trained.params[facts.network]):,}",
    step=f"{notes.step:,}",
    fingerprint=notes.fingerprint,
    ids=notes.ids,
    clip=" x ".join(str(n) for n in describe.clip_shape(config)),
  )
  if facts.kind == algorithm_lib.TOKENIZER:
    settings = json.dumps(config.quantizer.to_dict())
    coded = f"Tokens: int32 (batch, t, h, w), {notes.ids}"
    if not describe.has_ids(config):
      channels = describe.latent_channels(config)
      coded = f"Latents: float32 (batch, t, h, w, {channels}), in place of ids"
    return _TOKENIZER_CARD.format(**common, coded=coded, quantizer=settings)
  if facts.kind == algorithm_lib.RECOGNIZER:
    names = pipeline.class_names(config.dataset) or range(trained.num_classes)
    classes = f"Classes: {', '.join(map(str, names))}."
    if "classify" not in trained.algorithm.predict:
      classes = "It was pretrained on masked tokens, and knows no classes."
    return _RECOGNIZER_CARD.format(
      **common, input=config.recognizer.input, classes=classes
    )
  return _GENERATOR_CARD.format(
    **common,
    kind=config.algorithm,
    tasks=", ".join(tasks_lib.task_names(config)),
    classes=trained.num_classes,
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
- {coded}.
- Quantizer: `{quantizer}`
- Fingerprint of settings and weights: `{fingerprint}`

`model.safetensors` holds the weights, `config.json` the settings:

    import magvit
    tokenizer = magvit.load_tokenizer("THIS_FOLDER")
    ids = tokenizer.encode(video)
    video = tokenizer.decode(ids)
"""

_RECOGNIZER_CARD = """---
library_name: jax
tags:
- magvit-v2
- video-classification
---

# {name}

A recognizer on the tokens or pixels of clips (MAGVIT-v2, arXiv 2310.05737,
section 4.3): {parameters} parameters at step {step}. It reads clips of {clip}
as {input}.

- {classes}
- Its tokens: {ids}
- Fingerprint of settings and weights: `{fingerprint}`

`model.safetensors` holds the weights, `config.json` the settings.
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
