"""The workdir: the folder of a run, and the config in it.

A workdir belongs to one experiment. It holds config.json, checkpoints/ (state
and position in the data, committed atomically), metrics.jsonl, results/,
samples/ and report.html; a generator's also tokenizer/, its own copy of the
tokenizer that made its tokens.
"""

import json
import logging
import os
from typing import Any

import ml_collections

from configs import fields
from magvit.workdir import exports
from magvit.workdir import fields as fields_lib
from magvit.workdir import given_config
from magvit.workdir import latent_statistics
from magvit.workdir import stored_config as stored_config_lib
from magvit.workdir import weights as weights_lib
from storage import files
from storage import lock
from storage import processes
from storage import stores

log = logging.getLogger(__name__)

IMPORTED = "imported.json"  # file on where an imported model's weights are from

# Fields that say how to run, not what is trained: they may change between two
# runs in the same workdir.
_FREE_FIELDS = (
  "name",
  "automatic",
  "mesh",
  "log_every",
  "checkpoint_every",
  "checkpoints_to_keep",
  "eval_every",
  "profile_steps",
  "keep_programs",
  "watch",
  "evaluation",
  "sampling",
  "dataset.eval_examples",
  "dataset.held_out",
  "tokenizer.remat",
  "transformer.attention",
  "transformer.remat",
  "transformer.dropout_bits",
  "denoiser.attention",
  "denoiser.remat",
  "denoiser.dropout_bits",
  "recognizer.attention",
  "recognizer.remat",
)


def check_workdir(workdir: str, config: ml_collections.ConfigDict) -> None:
  """Makes sure that `config` may train in `workdir`.

  A run that ended before its first checkpoint may be of another config: a
  warning names the fields, and what was kept for it is removed.

  Raises:
    ValueError: the directory cannot be written, holds files of something else,
      folders of ours that are links, or checkpoints of another config.
  """
  try:
    files.check_writable(workdir)
  except OSError as error:
    raise ValueError(
      f"cannot write to workdir={workdir} ({error.strerror}): choose a"
      " directory you may write to"
    ) from error
  for name in ("results", "samples"):  # what training writes at its end
    files.inside(workdir, name)
  if stores.exists(os.path.join(workdir, IMPORTED)):
    raise ValueError(
      f"workdir={workdir} holds imported weights without a training state:"
      " train in another directory"
    )
  if exports.is_export(workdir):
    raise ValueError(
      f"workdir={workdir} holds an export without a training state: train in"
      f" another directory, from its weights with --config.init_from={workdir}"
    )
  if stores.exists(os.path.join(workdir, "config.json")):
    stored = read_config(workdir)
    if weights_lib.is_resumed(workdir):
      _check_goes_on(stored, config, workdir)
    else:
      _take_new_config(stored, config, workdir)
  elif any(
    not files.is_temporary(name) and not lock.is_lock(name)
    for name in stores.names(workdir)
  ):
    raise ValueError(
      f"workdir={workdir} holds files but no config.json, so it is not a"
      " workdir of this program: choose a new or an empty directory"
    )


def _check_goes_on(
  stored: ml_collections.ConfigDict,
  given: ml_collections.ConfigDict,
  workdir: str,
) -> None:
  """Raises ValueError unless a run with checkpoints may go on with a config.

  `num_steps` may change while the steps done have had the same learning rate:
  up to the peak, before the cosine that ends at the last step.
  """
  if _differing(stored, given) != ["num_steps"]:
    check_same_experiment(stored, given, workdir)
    return
  done = weights_lib.latest_step(workdir)
  if "optimizer" in given and done <= given.optimizer.warmup_steps + 1:
    return
  raise ValueError(
    f"workdir={workdir} has done {done} steps of num_steps={stored.num_steps},"
    f" and --config has {given.num_steps}: their learning rates would have been"
    " others, as one cosine spans the run. To train for longer, start anew"
    f" from its weights: --workdir=NEW --config.init_from={workdir}; to go on,"
    f" leave num_steps at {stored.num_steps}"
  )


def _take_new_config(
  stored: ml_collections.ConfigDict,
  given: ml_collections.ConfigDict,
  workdir: str,
) -> None:
  """Readies a workdir without checkpoints for another config."""
  differ = _differing(stored, given)
  if not differ:
    return
  log.warning(
    "WARNING: workdir=%s holds no checkpoint, so that it takes the new config"
    " (%s)",
    *(workdir, ", ".join(differ)),
  )
  if "tokenizer_workdir" not in differ or own_tokenizer(workdir) is None:
    return
  if "tokenizer_workdir" in given:
    read_config(given.tokenizer_workdir)  # raises before the copy is removed
  if processes.is_first():
    stores.remove_folder(files.inside(workdir, "tokenizer"))
  processes.wait_for_all("old tokenizer removed")


def as_begun(
  workdir: str, config: ml_collections.ConfigDict
) -> ml_collections.ConfigDict:
  """The config with the random bits that a resumed run began with.

  A run whose config lacks the field began before there was a choice.
  """
  if "transformer" not in config or not weights_lib.is_resumed(workdir):
    return config
  began = read_config(workdir).transformer.get("dropout_bits", "threefry")
  if began == config.transformer.dropout_bits:
    return config
  log.info(
    "the run goes on with transformer.dropout_bits=%s, as it began", began
  )
  config = ml_collections.ConfigDict(config.to_dict())
  config.transformer.dropout_bits = began
  return config


def with_stored_numbers(
  stored: ml_collections.ConfigDict, given: ml_collections.ConfigDict
) -> ml_collections.ConfigDict:
  """The given config, with the stored numbers that it leaves to the data."""
  values = _fields(stored)
  known = {n: values[n] for n in fields.automatic(given) if values.get(n)}
  given = ml_collections.ConfigDict(given.to_dict())
  given.update_from_flattened_dict(known)
  return given


def write_config(workdir: str, config: ml_collections.ConfigDict) -> None:
  if processes.is_first():
    text = config.to_json(indent=2) + "\n"
    files.write_atomically(os.path.join(workdir, "config.json"), text)


def has_config(workdir: str) -> bool:
  """Whether something was trained or imported in a directory."""
  return stores.exists(os.path.join(workdir, "config.json"))


def own_tokenizer(workdir: str) -> str | None:
  """The copy of the tokenizer in a generator's workdir, if it has one."""
  path = os.path.join(workdir, "tokenizer")
  return path if stores.exists(os.path.join(path, "config.json")) else None


def keep_tokenizer(
  config: ml_collections.ConfigDict, workdir: str, frozen: dict[str, Any]
) -> None:
  """Copies the tokenizer of a new generator or recognizer into its workdir.

  Tokens mean nothing without the tokenizer that made them, so a generator
  does not depend on another directory that may change or go. Statistics of its
  latents, `frozen["latents"]`, lie beside that tokenizer.
  """
  if "tokenizer" not in frozen:
    return
  path = stores.absolute(files.inside(workdir, "tokenizer"))
  # A run that ended before its first checkpoint has measured others, perhaps.
  if "latents" in frozen and not weights_lib.is_resumed(workdir):
    latent_statistics.write(path, frozen["latents"])
  if own_tokenizer(workdir) is not None:
    return
  step = weights_lib.latest_step(config.tokenizer_workdir)
  weights_lib.save_average(path, step, frozen["tokenizer"])
  # The config is written last: a tokenizer that has one is complete.
  write_config(path, read_config(config.tokenizer_workdir))


def check_same_experiment(
  stored: ml_collections.ConfigDict,
  given: ml_collections.ConfigDict,
  workdir: str,
) -> None:
  """Raises ValueError naming the fields in which two configs differ."""
  differ = _differing(stored, given)
  if differ:
    there, here = _with_since(stored), _with_since(given)
    first = differ[0]
    others = f" (and {', '.join(differ[1:])})" if differ[1:] else ""
    raise ValueError(
      f"workdir={workdir} holds another experiment: {first} is"
      f" {there.get(first)!r} there and {here.get(first)!r} in --config"
      f"{others}; choose another workdir, or the config of this one"
    )


def _differing(
  stored: ml_collections.ConfigDict, given: ml_collections.ConfigDict
) -> list[str]:
  """Names of the fields that make two configs two experiments."""
  there, here = _with_since(stored), _with_since(given)
  return [
    field
    for field in sorted(there.keys() | here.keys())
    if there.get(field) != here.get(field)
    and not any(f"{field}.".startswith(f"{free}.") for free in _FREE_FIELDS)
  ]


def _with_since(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """The fields, and those that came later as what their absence stands for."""
  return {**stored_config_lib.SINCE, **_fields(config)}


def _fields(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """Flat {"a.b": value} as JSON stores it (tuples become lists)."""
  return dict(fields.leaves(json.loads(config.to_json())))


def stored_config(
  workdir: str, given: ml_collections.ConfigDict | None
) -> ml_collections.ConfigDict:
  """The config of a workdir, or the given one if it is of that experiment.

  Raises:
    ValueError: nothing was trained there, or another experiment.
  """
  stored = read_config(workdir)
  if given is None:
    return stored
  given = with_stored_numbers(stored, given)
  check_same_experiment(stored, given, workdir)
  return given


def read_config(workdir: str) -> ml_collections.ConfigDict:
  """The config a workdir was trained with; ValueError if there is none."""
  path = os.path.join(workdir, "config.json")
  if not stores.is_folder(workdir):
    raise ValueError(
      f"workdir={workdir} is not a directory: train into it first"
    )
  if not stores.exists(path):
    raise ValueError(
      f"workdir={workdir} holds no config.json, so nothing was trained there:"
      " train into it first (--mode=train), or name another"
    )
  stored = stored_config_lib.read(path)
  if exports.is_export(workdir):
    exports.check_config(workdir, stored)
  stored_config_lib.check(path, stored)
  stored = stored_config_lib.complete(stored)
  try:
    return fields_lib.resolved(ml_collections.ConfigDict(stored))
  except ValueError as error:
    raise ValueError(f"{path}: {error}") from error


def read_config_file(name: str) -> ml_collections.ConfigDict:
  """The config FILE:ARG; ValueError if there is none."""
  return fields_lib.resolved(given_config.get_config(name))
