"""Checkpoints of a workdir by step, and the newest of them that can be read.

A checkpoint is a folder checkpoints/STEP with `state`, the arrays, and, where
training wrote it, `data`, the position in the data. orbax commits it by
renaming it, so one that was cut short has another name. `digests.json` has the
size and sha256 of all other files, against which they are read before use.
Checkpoints of earlier versions lack it; that they are damaged shows in use.
`newest_readable` takes the checkpoint before if one is damaged either way.

An object store cannot rename: see `magvit/workdir/commits.py`.
"""

from collections.abc import Callable
import contextlib
import json
import logging
import os
from typing import Any
from typing import TypeVar

from etils import epath
import jax
from jax.experimental import multihost_utils
import orbax.checkpoint as ocp
import tensorstore

from magvit.workdir import commits
from magvit.workdir import patience
from storage import files
from storage import schema
from storage import stores

log = logging.getLogger(__name__)

_T = TypeVar("_T")
_DIGESTS = "digests.json"
_METADATA = "_CHECKPOINT_METADATA"
# Checkpoints that this process could not read, by path, with their folder's
# identity, so that a copy that was put back counts as new.
_damaged: dict[str, tuple[int, int]] = {}


class OtherNetwork(ValueError):
  """A checkpoint is whole and of another network than the one to restore."""


def directory(workdir: str) -> str:
  """Folder of the checkpoints; ValueError if a workdir has none."""
  path = stores.absolute(os.path.join(workdir, "checkpoints"))
  if not stores.is_folder(path):
    raise ValueError(
      f"workdir={workdir} holds no checkpoints/: train into it first"
      " (--mode=train), or name another"
    )
  return path


def names(workdir: str) -> list[int]:
  """Steps that have a committed checkpoint, damaged or not, newest first."""
  return commits.steps(directory(workdir))


def latest(workdir: str) -> int:
  """The newest step whose checkpoint has all parts.

  Its arrays are not read; but if this process could not read them before, then
  the step does not count.

  Raises:
    ValueError: there is none.
  """
  problems = {}
  for step in names(workdir):
    path = os.path.join(directory(workdir), str(step))
    problem = _missing(path)
    if problem is None and _damaged.get(path) == _identity(path):
      problem = "its arrays cannot be read"
    if problem is None:
      return step
    problems[step] = problem
  raise _none_left(workdir, problems)


def incomplete(workdir: str) -> list[int]:
  """Steps whose checkpoint lacks a part."""
  folder = directory(workdir)
  return [s for s in names(workdir) if _missing(os.path.join(folder, str(s)))]


def check_written(path: str) -> None:
  """Raises ValueError if a checkpoint that was just written lacks an array."""
  problem = _missing(path)
  if problem is not None:
    raise ValueError(problem)
  folder = os.path.join(path, "state")
  base = folder if stores.is_url(folder) else f"file://{folder}"
  spec = {"driver": "ocdbt", "base": f"{base}/"}
  listed = tensorstore.KvStore.open(spec).result().list().result()
  stored = {name.decode().rpartition("/")[0] for name in listed}
  leaves = jax.tree_util.tree_leaves_with_path(stored_tree(folder))
  for place, _ in leaves:
    name = jax.tree_util.keystr(place, simple=True, separator=".")
    if name not in stored:
      raise ValueError(f"{folder} lacks the array {name}")


def newest_readable(
  workdir: str, read: Callable[[str], _T]
) -> tuple[int, _T, dict[int, str]]:
  """Reads the newest checkpoint that can be read; names others in a warning.

  All processes of a job call this together and agree on the checkpoint.

  Args:
    workdir: the workdir.
    read: reads the folder of a checkpoint, without waiting for other processes;
      may raise OtherNetwork, which ends the search.

  Returns:
    (step, what `read` returned, {newer step: what is wrong with it}).

  Raises:
    ValueError: there is no checkpoint, or none can be read; it says why.
    OSError: a store does not answer, or refuses.
  """
  problems = {}
  for step in names(workdir):
    path = os.path.join(directory(workdir), str(step))
    problem, value = _try(path, read)
    if problem is None:
      for newer, why in problems.items():
        log.warning(
          "WARNING: the checkpoint of step %d cannot be read (%s): that of step"
          " %d in %s is taken",
          *(newer, why, step, directory(workdir)),
        )
      return step, value, problems
    problems[step] = problem
    _damaged[path] = _identity(path)
  raise _none_left(workdir, problems)


def _try(path: str, read: Callable[[str], _T]) -> tuple[str | None, Any]:
  """(what is wrong, None) or (None, what `read` returned)."""
  value, problem = None, _missing(path)
  with contextlib.ExitStack() as stack:
    if problem is None and commits.is_staged(path):
      path = stores.fetched_folder(path)
      stack.callback(stores.remove_folder, path)
      problem = _missing(path)
    problem = problem or _changed(path)
    if problem is None:
      value, problem = _read(path, read)
  if jax.process_count() > 1:
    bad = multihost_utils.process_allgather(problem is not None)
    if bad.any() and problem is None:
      problem = f"process {int(bad.argmax())} cannot read it"
  return problem, value


def _read(path: str, read: Callable[[str], _T]) -> tuple[Any, str | None]:
  """(what `read` returned, None) or (None, what is wrong)."""
  try:
    with patience.patient_loops():
      return read(path), None
  except RecursionError:  # a list of arrays may be nested without end
    return None, "its lists of arrays are damaged"
  except (OtherNetwork, RuntimeError, MemoryError):  # no fault of the files
    raise
  except Exception as error:  # orbax fails in many ways at wrong files
    commits.check_answered(path, error, cause(error))
    return None, cause(error)


def cause(error: BaseException) -> str:
  """One line on the error at the root, without the settings of the reader."""
  while error.__cause__ is not None:
    error = error.__cause__
  text = " ".join(str(error).partition("[tensorstore_spec=")[0].split())
  return text or repr(error)


def _none_left(workdir: str, problems: dict[int, str]) -> ValueError:
  if not problems:
    return ValueError(
      f"workdir={workdir} holds no checkpoint yet: train longer than"
      " checkpoint_every steps, or name another workdir"
    )
  return ValueError(
    f"no checkpoint in {directory(workdir)} can be read: "
    + "; ".join(f"step {step}: {why}" for step, why in problems.items())
    + ". Put back a good copy, or name another workdir"
  )


def _missing(path: str) -> str | None:
  """Says what a checkpoint lacks; None if it has all parts, whole or not."""
  if stores.is_url(path):
    return _missing_objects(path)
  parts = ["state", "state/_METADATA"]
  if os.path.isdir(os.path.join(path, "data")):  # training wrote it
    parts.append(_METADATA)
  for part in ["", *parts]:
    if not os.path.exists(os.path.join(path, part)):
      return f"{os.path.join(path, part)} is missing"
    if part in ("", "state") and not os.path.isdir(os.path.join(path, part)):
      return f"{os.path.join(path, part)} is no folder"
  odd = _odd_file(path)
  if odd is not None:
    return odd
  try:
    digests = _digests(path)
  except ValueError:
    return f"{os.path.join(path, _DIGESTS)} is damaged"
  for name, (size, _) in digests.items():
    try:
      actual = os.path.getsize(os.path.join(path, name))
    except OSError:
      return f"{os.path.join(path, name)} is missing"
    if actual != size:
      return f"{os.path.join(path, name)} has {actual} bytes, not {size}"
  for part in parts[1:]:
    try:
      with open(os.path.join(path, part), encoding="utf-8") as f:
        if not isinstance(json.load(f), dict):
          raise ValueError
      if part == _METADATA:
        ocp.metadata.get_step_metadata(path)
    except Exception:  # orbax raises many kinds
      return f"{os.path.join(path, part)} is damaged"
  return None


def _missing_objects(path: str) -> str | None:
  """The same of a checkpoint in a store, where objects are whole or absent."""
  sizes = stores.sizes(path)
  wanted = [commits.COMMITTED, "state/_METADATA"]
  if any(name.startswith("data/") for name in sizes):
    wanted.append(_METADATA)
  try:
    digests = _digests(path) if _DIGESTS in sizes else {}
  except ValueError:
    return f"{path}/{_DIGESTS} is damaged"
  lacks = [name for name in (*wanted, *digests) if name not in sizes]
  if lacks:
    return f"{path}/{lacks[0]} is missing"
  other = [name for name, (size, _) in digests.items() if sizes[name] != size]
  return f"{path}/{other[0]} is of another size" if other else None


def _odd_file(path: str) -> str | None:
  """Names what is neither a file nor a folder; None if there is no such thing.

  A pipe or a device would keep its reader waiting for ever. Links to files are
  read, as caches of downloads have them. A link to a folder could lead to
  pipes, and in circles.
  """
  for folder, folders, others in os.walk(path):
    for name in others:
      file = os.path.join(folder, name)
      if os.path.exists(file) and not os.path.isfile(file):
        return f"{file} is no regular file"
    for name in folders:
      if os.path.islink(os.path.join(folder, name)):
        return f"{os.path.join(folder, name)} is a link to a folder"
  return None


def _digests(path: str) -> dict[str, tuple[int, str]]:
  """(size, sha256) of a checkpoint's files by name; empty if none is stored.

  The sha256 is "" of objects that a store has checksums of.

  Raises:
    ValueError: it is damaged, or names no files below the checkpoint.
  """
  stored = os.path.join(path, _DIGESTS)
  if not (stores.exists(stored) or os.path.lexists(stored)):
    return {}
  digests = schema.load(stored, dict[str, tuple[int, str]])
  for name in digests:
    is_outside = os.path.isabs(name) or ".." in name.split("/")
    if is_outside or b"\0" in os.fsencode(name):
      raise ValueError(f"{stored} names {name!r}")
  return digests


def _changed(path: str) -> str | None:
  """Names a file that is not as it was written; reads a share of all files.

  Each process of a job reads its share.
  """
  share = sorted(_digests(path).items())
  for name, (_, digest) in share[jax.process_index() :: jax.process_count()]:
    file = os.path.join(path, name)
    try:
      if digest and files.sha256(file) != digest:
        return f"{file} is not as it was written"
    except OSError as error:
      return f"{file} cannot be read ({error.strerror})"
  return None


def write_digests(path: str) -> None:
  """Notes what the files of a checkpoint are, once all are written."""
  # orbax adds the time of the commit to its metadata.
  if stores.is_url(path):
    digests = {
      name: (size, "")
      for name, size in stores.sizes(path).items()
      if name not in (_METADATA, commits.COMMITTED)
    }
  else:
    digests = {}
    for folder, _, others in os.walk(path):
      for other in others:
        file = os.path.join(folder, other)
        name = os.path.relpath(file, path)
        if name != _METADATA:
          digests[name] = (os.path.getsize(file), files.sha256(file))
  files.write_json(os.path.join(path, _DIGESTS), digests)


def _identity(path: str) -> tuple[int, int]:
  try:
    if stores.is_url(path):
      return 0, stores.changed(os.path.join(path, commits.COMMITTED))
    status = os.lstat(path)
  except OSError:
    return 0, 0
  return status.st_ino, status.st_ctime_ns


def reader(handler: type) -> ocp.Checkpointer:
  """Makes a checkpointer that does not wait for the other processes."""
  return ocp.Checkpointer(
    handler(multiprocessing_options=_alone()), multiprocessing_options=_alone()
  )


def _alone() -> ocp.options.MultiprocessingOptions:
  """Options to read without the other processes of a job.

  One that fails would otherwise keep them waiting.
  """
  process = jax.process_index()
  return ocp.options.MultiprocessingOptions(
    primary_host=process, active_processes={process}
  )


def stored_tree(path: str) -> dict[str, Any]:
  """The arrays of a checkpoint's `state` as metadata: shapes and dtypes.

  Raises:
    ValueError: the list of arrays is damaged or empty.
  """
  # A Checkpointer would look for a file that `state` never has, and log so.
  handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=_alone())
  with contextlib.closing(handler):
    try:
      stored = handler.metadata(epath.Path(path))
    except (FileNotFoundError, ValueError, TypeError) as error:
      raise ValueError(
        f"{path}: the list of arrays is missing or damaged"
      ) from error
  if not jax.tree.leaves(stored.tree):
    raise ValueError(f"{path} holds no arrays")
  return stored.tree


def read_arrays(path: str, tree: Any, shardings: Any, **options) -> Any:
  """Reads the arrays of a checkpoint's `state`.

  Args:
    path: its folder.
    tree: arrays or their shapes, by the names in the checkpoint.
    shardings: where each goes.
    **options: options of `ocp.args.PyTreeRestore`.
  """
  restore_args = jax.tree.map(
    lambda leaf, sharding: ocp.ArrayRestoreArgs(
      sharding=sharding, global_shape=leaf.shape, dtype=leaf.dtype
    ),
    tree,
    shardings,
  )
  arguments = ocp.args.PyTreeRestore(tree, restore_args=restore_args, **options)
  with reader(ocp.PyTreeCheckpointHandler) as checkpointer:
    return checkpointer.restore(path, arguments)


def read_position(path: str) -> Any:
  """Reads the position in the data from a checkpoint's `data`."""
  path = stores.fetched_folder(path) if commits.is_staged(path) else path
  with reader(ocp.JsonCheckpointHandler) as checkpointer:
    try:
      return checkpointer.restore(path, args=ocp.args.JsonRestore())
    except ValueError as error:
      raise ValueError(f"{path} is damaged ({error})") from error
