"""Weights in a workdir or an export: the newest step, parts of a state."""

from collections.abc import Mapping
import os
from typing import Any

import jax
from jax.sharding import Mesh
import orbax.checkpoint as ocp

from magvit import mesh as mesh_lib
from magvit.workdir import commits
from magvit.workdir import exports
from magvit.workdir import steps
from storage import files
from storage import processes
from storage import stores

# Networks that checkpoints of earlier versions have under another name.
_OLD_NAMES = {"tokenizer": "generator"}


def save_average(workdir: str, step: int, params: Any) -> None:
  """Saves a tokenizer's averaged weights alone, without a training state."""
  folder = files.own_folder(stores.absolute(workdir), "checkpoints")
  path = os.path.join(folder, str(step))
  with commits.written(path) as path:
    _save_average(path, params)


def _save_average(path: str, params: Any) -> None:
  with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(
      os.path.join(path, "state"),
      {"ema": {"tokenizer": params}},
      force=True,  # replaces a copy that was cut short
    )
  if processes.is_first():
    steps.write_digests(path)


def latest_step(workdir: str) -> int:
  """Step of the newest whole checkpoint or export; ValueError without any."""
  if exports.is_export(workdir):
    return exports.step(workdir)
  return steps.latest(workdir)


def is_resumed(workdir: str) -> bool:
  """Whether a workdir holds checkpoints to go on from, damaged ones included.

  Those are an error where they are read.
  """
  try:
    return exports.is_export(workdir) or bool(steps.names(workdir))
  except ValueError:
    return False


def restore_part(
  workdir: str, part: Any, mesh: Mesh, rules: mesh_lib.Rules = ()
) -> Any:
  """As `restore_newest`, without the step."""
  return restore_newest(workdir, part, mesh, rules)[1]


def restore_newest(
  workdir: str, part: Any, mesh: Mesh, rules: mesh_lib.Rules = ()
) -> tuple[int, Any]:
  """Restores networks of the newest whole checkpoint: {"ema": {"tokenizer": }}.

  A warning names newer checkpoints that cannot be read.

  Args:
    workdir: a workdir or an export.
    part: shapes of the networks, in nested dicts of `jax.ShapeDtypeStruct`.
    mesh: devices for the arrays.
    rules: how the arrays are split over them.

  Returns:
    (step, the networks).

  Raises:
    ValueError: no checkpoint, none that can be read, or an array that it lacks,
      that has another shape there or that a network does not have; it is named.
  """
  if exports.is_export(workdir):
    restored = exports.restore(workdir, part, mesh, rules)
    return exports.step(workdir), restored

  def read(checkpoint: str) -> Any:
    path = os.path.join(checkpoint, "state")
    tree = steps.stored_tree(path)
    stored_part = rename_as_stored(part, tree)
    _check_arrays(path, stored_part, tree)
    shardings = mesh_lib.state_shardings(stored_part, mesh, rules)
    return steps.read_arrays(path, stored_part, shardings, partial_restore=True)

  step, restored, _ = steps.newest_readable(workdir, read)
  return step, rename_as_now(restored, part)


def _check_arrays(path: str, part: Any, tree: Any) -> None:
  """Raises OtherNetwork unless a checkpoint has just the arrays of a part."""
  stored, wanted = _named(tree), _named(part)
  for name, leaf in wanted.items():
    if name not in stored:
      raise steps.OtherNetwork(f"the checkpoint {path} lacks the array {name}")
    if tuple(stored[name].shape) != leaf.shape:
      raise steps.OtherNetwork(
        f"the checkpoint {path} holds {name} of shape"
        f" {tuple(stored[name].shape)}, expected {leaf.shape}"
      )
  networks = tuple(f"{kind}/{name}/" for kind in part for name in part[kind])
  for name in stored:
    if name.startswith(networks) and name not in wanted:
      raise steps.OtherNetwork(
        f"the checkpoint {path} has an unknown array {name}"
      )


def rename_as_stored(tree: Any, stored: Mapping[str, Any]) -> Any:
  """Renames the networks of {kind: {network: ...}} as a checkpoint has them.

  Args:
    tree: parts of a training state, by the names of this version.
    stored: the checkpoint's tree, which an earlier version may have written.
  """
  return _rename(
    tree,
    lambda kind, name: (
      _OLD_NAMES[name]
      if _OLD_NAMES.get(name) in stored.get(kind, {})
      and name not in stored[kind]
      else name
    ),
  )


def rename_as_now(tree: Any, part: Any) -> Any:
  """Inverse of `rename_as_stored`, whose argument was `part`."""
  now = {old: new for new, old in _OLD_NAMES.items()}
  return _rename(
    tree, lambda kind, name: name if name in part[kind] else now[name]
  )


def _rename(tree: Any, new_name) -> Any:
  return {
    kind: {new_name(kind, name): x for name, x in networks.items()}
    if isinstance(networks, dict)
    else networks
    for kind, networks in tree.items()
  }


def _named(tree: Any) -> dict[str, Any]:
  """Leaves by their path, e.g. "ema/tokenizer/encoder/conv_in/kernel"."""
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  keystr = jax.tree_util.keystr
  return {keystr(p, simple=True, separator="/"): leaf for p, leaf in leaves}
