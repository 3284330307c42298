"""Reading of config.json, which somebody else may have written.

The functions of `configs/base.py` are the rule: each field is of the type that
it has there. The sections that define a network have all of their fields and no
others; in the rest, configs of earlier versions may differ.
"""

import difflib
import math
from typing import Any

import ml_collections

from configs import base
from configs import job
from configs import latent_base
from configs import recognition_base
from storage import schema

KNOWN = {
  "tokenizer": base.tokenizer,
  "masked": base.masked,
  "autoregressive": base.autoregressive,
  "masked_diffusion": latent_base.masked_diffusion,
  "next_frame_flow": latent_base.next_frame_flow,
  "diffusion": latent_base.diffusion,
  "recognition": recognition_base.recognition,
}
# Sections with all fields.
_WHOLE = (
  *("tokenizer", "quantizer", "transformer", "latents", "denoiser", "noise"),
  *("recognizer", "pretraining"),
)
# Fields of those sections that configs of earlier versions lack.
_LATER = (
  *("transformer.attention", "transformer.dropout_bits"),
  "transformer.condition_hints",
)
# Fields of training that they lack, and what they stand for there.
_TRAINED_WITH = {
  "optimizer.name": "adam",
  "loss.adversarial_start": 0,
  "loss.pixel_share": 0.0,
}
# The same of all sections. What was kept of clips is found by their `dataset`
# as it was stored, so that nothing is put into it.
SINCE = {
  "dataset.held_out_share": 0.1,
  "dataset.labels": "class",
  "dataset.train_examples": 0,
  "transformer.condition_hints": False,
  "sampling.carry_detail": False,
  **_TRAINED_WITH,
}
_NEEDED = ("name", "batch_size", "dataset", "dataset.frames", "dataset.size")
_REMEDY = "name the directory of a run or of an export"
_LONGEST = 1000  # entries of a list
_WORDS = {
  bool: "true or false",
  int: "a whole number",
  float: "a finite number",
  str: "a text",
}


def read(path: str) -> dict[str, Any]:
  """The fields of a config.json; ValueError if it is damaged or no config."""
  fields = schema.load(path, dict[str, Any], _REMEDY)
  algorithm = fields.get("algorithm")
  if not isinstance(algorithm, str):
    raise ValueError(
      f"{path} is no config of this program (algorithm is {algorithm!r}):"
      f" {_REMEDY}"
    )
  return fields


def check(path: str, fields: dict[str, Any]) -> None:
  """Raises ValueError for a field that is missing or of another type.

  Of the sections that define a network, unknown fields are refused, too.
  """
  if fields["algorithm"] in KNOWN:
    reason = _fault(fields, KNOWN[fields["algorithm"]](), "")
    if reason:
      raise ValueError(
        f"{path} is no config of this program ({reason}): {_REMEDY}"
      )


def complete(fields: dict[str, Any]) -> dict[str, Any]:
  """The fields of a checked config.json, with those of training that it lacks.

  A field comes only into a section that is there: generators have no `loss`. Of
  sections, `watch` is put in whole, as all algorithms have it.
  """
  whole = dict(fields)
  whole.setdefault("watch", job.watch().to_dict())
  for name, value in _TRAINED_WITH.items():
    section, _, field = name.partition(".")
    if section in whole and field not in whole[section]:
      whole[section] = {**whole[section], field: value}
  return whole


def fault(
  given: Any, reference: ml_collections.ConfigDict, more: bool = False
) -> str:
  """Words on the first field that is not as in the reference; "" for none.

  All fields have to be there, and with `more` others, too.
  """
  missing, unknown = _names_apart(given, reference, "")
  if missing:
    return f"the field {missing[0]} is missing"
  if unknown and not more:
    near = difflib.get_close_matches(unknown[0], _names(reference, ""), 1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return f"the field {ascii(schema.brief(unknown[0]))} is unknown{hint}"
  return _fault(given, reference, "")


def _names(node: Any, at: str) -> list[str]:
  """Names of all fields, with dots."""
  names = []
  for key, value in node.items():
    inner = hasattr(value, "items")
    names += _names(value, f"{at}{key}.") if inner else [f"{at}{key}"]
  return names


def _names_apart(
  given: Any, reference: Any, at: str
) -> tuple[list[str], list[str]]:
  """(fields that are missing, fields that are unknown)."""
  there, wanted = _names(given, at), _names(reference, at)
  missing = [name for name in wanted if name not in there]
  return missing, [name for name in there if name not in wanted]


def _fault(given: Any, reference: ml_collections.ConfigDict, at: str) -> str:
  """Words on the first field that is not as in the reference; "" for none."""
  for key in sorted(reference.keys() | given.keys()):
    field = f"{at}{key}"
    whole = field.partition(".")[0] in _WHOLE
    if field in _LATER and key not in given:
      continue
    if key not in given and (whole or field in _NEEDED):
      return f"the field {field} is missing"
    if key not in reference and whole:
      return f"the field {ascii(schema.brief(field))} is unknown"
    if key not in given or key not in reference:
      continue
    value, wanted = given[key], reference[key]
    if isinstance(wanted, ml_collections.ConfigDict):
      if not isinstance(value, dict):
        return f"{field} is no object of fields"
      reason = _fault(value, wanted, f"{field}.")
    else:
      reason = _value_fault(value, wanted, field)
    if reason:
      return reason
  return ""


def _value_fault(value: Any, wanted: Any, field: str) -> str:
  """Words on a value of another type than the reference's."""
  if isinstance(wanted, tuple):
    if not isinstance(value, list) or len(value) > _LONGEST:
      return f"{field} is no list of at most {_LONGEST}"
    # An empty list, or one of lists, tells nothing about the entries.
    if not wanted or not isinstance(wanted[0], bool | int | float | str):
      return ""
    faults = (
      _value_fault(inner, wanted[0], f"{field}[{i}]")
      for i, inner in enumerate(value)
    )
    return next(filter(None, faults), "")
  kind = type(wanted)
  fits = type(value) is kind or (kind is float and type(value) is int)
  if kind in (int, float):
    # Numbers that no machine word holds are no settings of anything.
    fits = fits and math.isfinite(value) and abs(value) < 2**63
  if kind in _WORDS and not fits:
    return f"{field} is {ascii(value)[:60]}, expected {_WORDS[kind]}"
  return ""
