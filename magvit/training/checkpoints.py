"""Save the state of training, and find it again after any accident.

orbax commits a checkpoint by renaming its directory, so a process that dies at
any moment leaves the complete ones in place.
"""

from collections.abc import Iterable
from collections.abc import Iterator
import contextlib
import glob
import logging
import os
import typing
from typing import Any

import grain
import jax
import ml_collections
import orbax.checkpoint as ocp

from magvit import algorithm as algorithm_lib
from magvit.training import endings
from magvit.training import skips
from magvit.workdir import commits
from magvit.workdir import folder as workdir_lib
from magvit.workdir import steps
from magvit.workdir import weights as weights_lib
from storage import files
from storage import processes
from storage import stores

log = logging.getLogger(__name__)


class Positioned(typing.Protocol):
  """What moves to a position in the data, like an iterator of grain."""

  def set_state(self, position: Any, /) -> None: ...


class Checkpoints:
  """The checkpoints of one workdir: training state and data position."""

  def __init__(self, workdir: str, config: ml_collections.ConfigDict):
    self._directory = stores.absolute(files.own_folder(workdir, "checkpoints"))
    commits.check_alone(self._directory)
    # Where orbax writes: there, or to a disk from which checkpoints are sent.
    self._box = self._directory
    if commits.is_staged(self._directory):
      self._box = stores.Outbox(self._directory).folder
    self._to_keep = config.checkpoints_to_keep
    self._manager: ocp.CheckpointManager | None = None
    self._saving = 0  # newest step whose save has begun
    self._unchecked = False  # whether it may have failed
    self._whole = 0  # newest step whose save was seen to be whole
    self._failed = False

  @property
  def _is_staged(self) -> bool:
    return self._box != self._directory

  def _opened(self) -> ocp.CheckpointManager:
    """The manager, which cannot be made while a checkpoint is damaged."""
    if self._manager is None:
      self._manager = ocp.CheckpointManager(
        self._box,
        options=ocp.CheckpointManagerOptions(
          max_to_keep=1 if self._is_staged else self._to_keep,
          cleanup_tmp_directories=True,  # those that a killed run left
          async_options=ocp.options.AsyncOptions(
            post_finalization_callback=self._before_commit
          ),
        ),
        item_names=("state", "data"),
      )
    return self._manager

  def save(
    self,
    step: int,
    state: algorithm_lib.TrainState,
    data: grain.DatasetIterator,
  ) -> None:
    """Saves in the background; a kill leaves the previous one in place.

    Raises:
      OSError: this or an earlier save failed, or the workdir is gone.
    """
    if not workdir_lib.has_config(os.path.dirname(self._directory)):
      raise OSError(
        f"cannot save step {step}: the workdir of {self._directory} is gone."
        " Put it back, and run the same command again"
      )
    self.wait()
    with self._named_failure():
      self._saving, self._unchecked = step, True
      self._opened().save(
        step,
        args=ocp.args.Composite(
          state=ocp.args.StandardSave(_saved(state)),
          data=ocp.args.JsonSave(data.get_state()),
        ),
      )
    if self._is_staged:
      self.wait()

  def _before_commit(self) -> None:
    """Adds the digests to a checkpoint that is written and not yet renamed."""
    if processes.is_first():
      folder = os.path.join(self._box, str(self._saving))
      if not stores.is_url(folder):
        (folder,) = glob.glob(f"{glob.escape(folder)}.*tmp*")
      steps.write_digests(folder)

  def check(self) -> None:
    """Raises OSError if a save in the background has failed."""
    with self._named_failure():
      self._opened().check_for_errors()

  def newest(self) -> tuple[int, Any] | None:
    """(step, position in the data) that the newest checkpoint says it has.

    None if there is no checkpoint, or its position cannot be read. Its arrays
    may be damaged, so that `restore_newest` takes another one.
    """
    workdir = os.path.dirname(self._directory)
    try:
      step = steps.names(workdir)[0]
      path = os.path.join(self._path(step), "data")
      return step, steps.read_position(path)
    except Exception:  # orbax raises many kinds; whoever restores says which
      return None

  def restore_newest(
    self, state: algorithm_lib.TrainState, data: Positioned
  ) -> tuple[int, algorithm_lib.TrainState]:
    """(step, state) of the newest checkpoint that can be read, or (0, state).

    `state` gives shapes and shardings, of arrays or not; `data` is told the
    checkpoint's position. Newer checkpoints that cannot be read, and others
    that lack a part, are moved to WORKDIR/damaged, with a warning: nothing is
    deleted.

    Raises:
      ValueError: there are checkpoints, and none can be read; all stay.
    """
    workdir = os.path.dirname(self._directory)
    if not stores.is_folder(self._directory) or not steps.names(workdir):
      self._opened()
      return 0, state
    wanted = _saved(state)

    def read(path: str) -> tuple[Any, Any]:
      stored = steps.stored_tree(os.path.join(path, "state"))
      tree = skips.as_stored(wanted, stored)
      tree = weights_lib.rename_as_stored(tree, stored)
      shardings = jax.tree.map(lambda array: array.sharding, tree)
      position = steps.read_position(os.path.join(path, "data"))
      arrays = steps.read_arrays(os.path.join(path, "state"), tree, shardings)
      return arrays, position

    step, (arrays, position), damaged = steps.newest_readable(workdir, read)
    self._put_aside([*damaged, *steps.incomplete(workdir)])
    self._opened()
    data.set_state(position)
    fields = weights_lib.rename_as_now(skips.as_now(arrays, wanted), wanted)
    return step, state.replace(**fields)

  def _path(self, step: int) -> str:
    return os.path.join(self._directory, str(step))

  def _put_aside(self, damaged: Iterable[int]) -> None:
    workdir = os.path.dirname(self._directory)
    folder = files.inside(workdir, "damaged")
    for step in sorted(set(damaged), reverse=True):
      target, copies = os.path.join(folder, str(step)), 1
      while stores.exists(target):
        copies += 1
        target = os.path.join(folder, f"{step}-{copies}")
      if processes.is_first():
        files.own_folder(workdir, "damaged")
        stores.move_folder(self._path(step), target, commits.COMMITTED)
      log.warning(
        "WARNING: the damaged checkpoint of step %d is now %s", step, target
      )
    processes.wait_for_all("damaged checkpoints put aside")

  def wait(self) -> None:
    """Waits for a save under way; OSError if it failed."""
    if not self._unchecked:
      return
    with self._named_failure():
      self._opened().wait_until_finished()
      self._opened().check_for_errors()
      if processes.is_first():
        written = os.path.join(self._box, str(self._saving))
        steps.check_written(written)
        if self._is_staged:
          commits.commit(written, self._path(self._saving))
    self._unchecked, self._whole = False, self._saving
    if self._is_staged:
      self._remove_old()

  def _remove_old(self) -> None:
    """Removes the oldest checkpoints of a store, as orbax does elsewhere."""
    workdir = os.path.dirname(self._directory)
    for step in steps.names(workdir)[self._to_keep :]:
      stores.remove_folder(self._path(step), commits.COMMITTED)

  def close(self) -> None:
    """Waits for saves under way; OSError if one failed."""
    if self._failed:
      # Threads of the save that failed wait for each other, and closing would
      # wait for them: for minutes, to say the same.
      return
    self.wait()
    if self._manager is not None:
      self._manager.close()

  @contextlib.contextmanager
  def _named_failure(self) -> Iterator[None]:
    """Turns errors of a save into an OSError that names the last good step."""
    try:
      yield
    except Exception as error:  # orbax raises many kinds
      self._failed = True
      raise endings.NotSaved(
        f"a checkpoint could not be written to {self._directory}:"
        f" {steps.cause(error)}. The newest complete one:"
        f" {self._newest_complete()}. {self._remedy()}, then run the same"
        " command again"
      ) from error

  def _newest_complete(self) -> str:
    """Words on the checkpoint that a run goes on from after a failed save."""
    try:
      return f"step {steps.latest(os.path.dirname(self._directory))}"
    except ValueError:
      return "none"
    except OSError as error:  # what fails a save may fail a look, too
      known = f", and step {self._whole} was saved" if self._whole else ""
      reason = error.strerror or error
      return f"not known, for none can be looked for now ({reason}){known}"

  def _remedy(self) -> str:
    if stores.is_url(self._directory):
      return "See that the store can be written"
    return "Make room or repair the disk"


def _saved(state: algorithm_lib.TrainState) -> dict[str, Any]:
  """Fields that training changes; frozen networks are kept elsewhere."""
  return {
    "step": state.step,
    "params": state.params,
    "opt_state": state.opt_state,
    "ema": state.ema,
    "extras": state.extras,
  }
