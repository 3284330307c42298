"""Weights in a workdir or an export: the newest step, parts of a state."""

from collections.abc import Mapping
import os
from typing import Any

import jax
from jax.sharding import Mesh
import orbax.checkpoint as ocp

from magvit import mesh as mesh_lib
from magvit.workdir import exports
from storage import files

# Networks that checkpoints of earlier versions have under another name.
_OLD_NAMES = {"tokenizer": "generator"}


def save_average(workdir: str, step: int, params: Any) -> None:
  """Saves a tokenizer's averaged weights alone, without a training state."""
  folder = files.own_folder(workdir, "checkpoints")
  path = os.path.join(folder, str(step), "state")
  with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(
      os.path.abspath(path),
      {"ema": {"tokenizer": params}},
      force=True,  # replaces a copy that was cut short
    )


def latest_step(workdir: str) -> int:
  """Step of the newest checkpoint or export; ValueError if there is none."""
  if exports.is_export(workdir):
    return exports.step(workdir)
  steps = ocp.path.step.checkpoint_steps(_checkpoint_directory(workdir))
  if not steps:
    raise ValueError(
      f"workdir={workdir} holds no checkpoint yet: train longer than"
      " checkpoint_every steps, or name another workdir"
    )
  return max(steps)


def is_resumed(workdir: str) -> bool:
  """Whether a workdir holds weights to go on from."""
  try:
    latest_step(workdir)
  except ValueError:
    return False
  return True


def _checkpoint_directory(workdir: str) -> str:
  directory = os.path.abspath(os.path.join(workdir, "checkpoints"))
  if not os.path.isdir(directory):
    raise ValueError(
      f"workdir={workdir} holds no checkpoints/: train into it first"
      " (--mode=train), or name another"
    )
  return directory


def restore_part(
  workdir: str, part: Any, mesh: Mesh, rules: mesh_lib.Rules = ()
) -> Any:
  """Restores networks of the newest checkpoint: {"ema": {"tokenizer": ...}}.

  `part` gives their shapes, in nested dicts of `jax.ShapeDtypeStruct`.

  Raises:
    ValueError: no checkpoint, or an array that it lacks, that has another shape
      there or that a network does not have; it is named.
  """
  if exports.is_export(workdir):
    return exports.restore(workdir, part, mesh, rules)
  step = latest_step(workdir)
  path = os.path.join(_checkpoint_directory(workdir), str(step), "state")
  tree = stored_tree(path)
  stored_part = rename_as_stored(part, tree)
  _check_arrays(path, stored_part, tree)
  restore_args = jax.tree.map(
    lambda leaf, sharding: ocp.ArrayRestoreArgs(
      sharding=sharding, global_shape=leaf.shape, dtype=leaf.dtype
    ),
    stored_part,
    mesh_lib.state_shardings(stored_part, mesh, rules),
  )
  with ocp.PyTreeCheckpointer() as checkpointer:
    restored = checkpointer.restore(
      path,
      ocp.args.PyTreeRestore(
        stored_part, restore_args=restore_args, partial_restore=True
      ),
    )
  return rename_as_now(restored, part)


def stored_tree(path: str) -> dict[str, Any]:
  """The arrays of a checkpoint's state as metadata: shapes and dtypes."""
  with ocp.PyTreeCheckpointer() as checkpointer:
    return checkpointer.metadata(path).item_metadata.tree


def _check_arrays(path: str, part: Any, tree: Any) -> None:
  """Raises ValueError unless a checkpoint has just the arrays of a part."""
  stored, wanted = _named(tree), _named(part)
  for name, leaf in wanted.items():
    if name not in stored:
      raise ValueError(f"the checkpoint {path} lacks the array {name}")
    if tuple(stored[name].shape) != leaf.shape:
      raise ValueError(
        f"the checkpoint {path} holds {name} of shape"
        f" {tuple(stored[name].shape)}, expected {leaf.shape}"
      )
  networks = tuple(f"{kind}/{name}/" for kind in part for name in part[kind])
  for name in stored:
    if name.startswith(networks) and name not in wanted:
      raise ValueError(f"the checkpoint {path} has an unknown array {name}")


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
