"""Reading of export folders: arrays and settings as written, or an error.

`magvit/modes/export.py` writes them. The weights file says in its metadata
which config it belongs to and what the fingerprint of both is, so a file that
was changed, or put into another folder, does not pass. Only JSON and
safetensors are read here; neither can run code.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import json
import os
from typing import Any

from flax import traverse_util
import jax
from jax.sharding import Mesh
import numpy as np
import safetensors
import safetensors.numpy

from magvit import mesh as mesh_lib
from magvit.workdir import latent_statistics
from magvit.workdir import stored_config
from models.weights import safetensors_file
from storage import files
from storage import schema
from storage import stores
from storage.version import VERSION

WEIGHTS = "model.safetensors"
TOKENIZER = "tokenizer"  # folder in a generator's export, as in a workdir

# `Notes.defining` of exports that earlier versions wrote, which lack it.
_OLD_DEFINING_TOKENIZER = ("tokenizer", "quantizer")
_OLD_DEFINING_GENERATOR = (
  *("algorithm", "transformer", "tasks", "condition_frames"),
)


def is_export(folder: str) -> bool:
  return stores.is_file(os.path.join(folder, WEIGHTS))


def step(folder: str) -> int:
  """Training steps behind the weights."""
  return _read_notes(folder).step


def check_config(folder: str, fields: Mapping[str, Any]) -> None:
  """Checks that config.json is that of the weights beside it.

  Raises:
    ValueError: a field that is unknown, missing or of another value; a
      generator beside another tokenizer than its own, or beside statistics of
      other latents.
  """
  notes = _read_notes(folder)
  path = os.path.join(folder, "config.json")
  given = traverse_util.flatten_dict(dict(fields), sep=".")
  wanted = traverse_util.flatten_dict(notes.config, sep=".")
  for field in sorted(given.keys() | wanted.keys()):
    if field not in wanted:
      value = schema.brief(repr(given[field]))
      raise ValueError(
        f"{path} has an unknown field {schema.brief(field)}={value}, without"
        " which the weights beside it were exported: export the model again"
      )
    if field not in given or given[field] != wanted[field]:
      value = "missing"
      if field in given:
        value = schema.brief(repr(given[field]))
      raise ValueError(
        f"{path}: {schema.brief(field)} is {value}, and the weights beside it"
        f" were exported with {schema.brief(repr(wanted[field]))}: export the"
        " model again"
      )
  if notes.tokenizer == notes.fingerprint:  # the export is a tokenizer
    return
  tokenizer = os.path.join(folder, TOKENIZER)
  if not is_export(tokenizer):
    raise ValueError(f"{tokenizer} lacks {WEIGHTS}: copy the whole export")
  fingerprint = _read_notes(tokenizer).fingerprint
  if fingerprint != notes.tokenizer:
    raise ValueError(
      f"{tokenizer} holds the tokenizer {fingerprint[:16]}, and the generator"
      f" beside it knows the tokens of {notes.tokenizer[:16]}: export the"
      " generator again"
    )
  _check_latents(os.path.join(tokenizer, latent_statistics.FILE), notes)


def restore(
  folder: str, part: Any, mesh: Mesh, rules: mesh_lib.Rules = ()
) -> Any:
  """Restores one network, as `weights.restore_part` restores several.

  Raises:
    ValueError: arrays or settings that are not those that were exported.
  """
  [(kind, networks)] = part.items()
  [(network, abstract)] = networks.items()
  notes = _read_notes(folder)
  path = os.path.join(folder, WEIGHTS)
  params = safetensors_file.load(path, notes.config["algorithm"], abstract)
  _check_fingerprint(path, notes, safetensors_file.by_name(params))
  restored = {kind: {network: params}}
  shardings = mesh_lib.state_shardings(restored, mesh, rules)
  return jax.device_put(restored, shardings)


def tensors(folder: str) -> dict[str, np.ndarray]:
  """The arrays by name, for programs that need no definition of the network.

  Raises:
    ValueError: as `restore`.
  """
  notes = _read_notes(folder)
  path = os.path.join(folder, WEIGHTS)
  arrays = safetensors.numpy.load_file(stores.fetched(path))
  _check_fingerprint(path, notes, arrays)
  return arrays


@dataclasses.dataclass(frozen=True)
class Notes:
  """The metadata of exported weights."""

  config: dict[str, Any]  # the experiment, as config.json has it
  fingerprint: str
  step: int
  ids: str  # words on the meaning of the numbers of tokens
  tokenizer: str  # fingerprint of the tokenizer, which may be this model
  defining: tuple[str, ...]  # `Facts.defining` of the algorithm
  # SHA-256 of the file of the latents' statistics; "" without one, and in
  # exports that earlier versions wrote.
  latents: str

  def metadata(self) -> dict[str, str]:
    fields = {k: str(v) for k, v in dataclasses.asdict(self).items()}
    return {
      **fields,
      "config": json.dumps(self.config, sort_keys=True),
      "defining": json.dumps(self.defining),
      "magvit_version": VERSION,
    }


def _read_notes(folder: str) -> Notes:
  path = os.path.join(folder, WEIGHTS)
  try:
    with safetensors.safe_open(stores.fetched(path), framework="numpy") as f:
      metadata = f.metadata() or {}
  except Exception as error:
    raise ValueError(
      f"{path} is not a whole .safetensors file: {schema.brief(error, 200)}"
    ) from error
  try:
    config = schema.convert(
      schema.parse(metadata["config"], "config"), dict[str, Any], "config"
    )
    old = _OLD_DEFINING_GENERATOR
    if "quantizer" in config:
      old = _OLD_DEFINING_TOKENIZER
    defining = schema.convert(
      schema.parse(metadata.get("defining", json.dumps(old)), "defining"),
      tuple[str, ...],
      "defining",
    )
    schema.convert(config.get("algorithm"), str, "config", "", "algorithm")
    missing = set(defining) - config.keys()
    if missing:
      raise KeyError(*missing)
    notes = Notes(
      config=config,
      fingerprint=metadata["fingerprint"],
      step=_whole_number(metadata["step"]),
      ids=metadata["ids"],
      tokenizer=metadata["tokenizer"],
      defining=defining,
      latents=metadata.get("latents", ""),
    )
  except (KeyError, TypeError, ValueError) as error:
    raise ValueError(
      f"{path} is no export of this program, whose metadata say which config"
      f" and fingerprint it has ({error!r}): write it with --mode=export"
    ) from error
  return notes


def _whole_number(text: str) -> int:
  """The number of steps in metadata; ValueError unless it is 0 or more."""
  if not (text.isascii() and text.isdigit()):
    raise ValueError(f"step {text!r} must be a whole number from 0")
  return int(text)


def named_settings(
  config: Mapping[str, Any], sections: Sequence[str]
) -> list[dict[str, Any]]:
  """The settings, in JSON's types, that a fingerprint covers.

  `tokenizer.remat` changes no token. Configs of before have "off" there as a
  rule, and for them the choices that came later count as that one. Fields that
  came later do not count at the value that their absence stands for.
  """
  settings = [{name: config[name]} for name in sections]
  for section in settings:
    fields = section.get("tokenizer", {})
    if fields.get("remat") not in (None, "all", "dots"):
      section["tokenizer"] = {**fields, "remat": "off"}
    for path, value in stored_config.SINCE.items():
      name, _, field = path.partition(".")
      if name in section and section[name].get(field) == value:
        section[name] = {k: v for k, v in section[name].items() if k != field}
  return settings


def _check_fingerprint(path: str, notes: Notes, arrays) -> None:
  settings = named_settings(notes.config, notes.defining)
  arrays = {k.replace(".", "/"): np.asarray(v) for k, v in arrays.items()}
  fingerprint = safetensors_file.digest(settings, arrays)
  if fingerprint != notes.fingerprint:
    raise ValueError(
      f"{path} has the fingerprint {fingerprint[:16]} and says"
      f" {notes.fingerprint[:16]}: it was changed after the export; get or make"
      " it again"
    )


def _check_latents(path: str, notes: Notes) -> None:
  """Raises ValueError for statistics that are there and were changed."""
  if not notes.latents or not stores.is_file(path):
    return
  if files.sha256(path) != notes.latents:
    raise ValueError(
      f"{path} is not the file that was exported: get it, or export the"
      " generator, again"
    )
