"""Save the state of training, and find it again after any accident.

orbax commits a checkpoint by renaming its directory, so a process that dies at
any moment leaves the complete ones in place.
"""

from collections.abc import Iterator
import contextlib
import logging
import os
import shutil
from typing import Any

import grain
import ml_collections
import orbax.checkpoint as ocp

from magvit import algorithm as algorithm_lib
from magvit.training import checkpoint_reader
from magvit.workdir import folder as workdir_lib
from magvit.workdir import weights as weights_lib
from storage import files
from storage import processes

log = logging.getLogger(__name__)


class Checkpoints:
  """The checkpoints of one workdir: training state and data position."""

  def __init__(self, workdir: str, config: ml_collections.ConfigDict):
    self._directory = os.path.abspath(files.own_folder(workdir, "checkpoints"))
    self._manager = ocp.CheckpointManager(
      self._directory,
      options=ocp.CheckpointManagerOptions(
        max_to_keep=config.checkpoints_to_keep,
        cleanup_tmp_directories=True,  # those that a killed run left
      ),
      item_names=("state", "data"),
    )

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
    with self._named_failure():
      self._manager.save(
        step,
        args=ocp.args.Composite(
          state=ocp.args.StandardSave(_saved(state)),
          data=ocp.args.JsonSave(data.get_state()),
        ),
      )

  def check(self) -> None:
    """Raises OSError if a save in the background has failed."""
    with self._named_failure():
      self._manager.check_for_errors()

  def restore_newest(
    self, state: algorithm_lib.TrainState, data: grain.DatasetIterator
  ) -> tuple[int, algorithm_lib.TrainState]:
    """(step, state) of the newest checkpoint that can be read, or (0, state).

    `state` gives shapes and shardings; `data` is moved to the checkpoint's
    position. Newer checkpoints that cannot be read are moved to
    WORKDIR/damaged, with a warning: nothing is deleted.

    Raises:
      ValueError: there are checkpoints, and none can be read; all stay.
    """
    damaged = {}
    for step in sorted(self._manager.all_steps(), reverse=True):
      problem = checkpoint_reader.problem(self._path(step))
      if problem is None:
        break
      damaged[step] = problem
    else:
      if not damaged:
        return 0, state
      raise ValueError(
        f"no checkpoint in {self._directory} can be read: "
        + "; ".join(f"step {step}: {why}" for step, why in damaged.items())
        + ". Put back a good copy, or start anew in another workdir"
      )
    self._put_aside(damaged)
    wanted = _saved(state)
    stored = weights_lib.stored_tree(os.path.join(self._path(step), "state"))
    restored = self._manager.restore(
      step,
      args=ocp.args.Composite(
        state=ocp.args.StandardRestore(
          weights_lib.rename_as_stored(wanted, stored)
        ),
        data=ocp.args.JsonRestore(),
      ),
    )
    data.set_state(restored["data"])
    fields = weights_lib.rename_as_now(restored["state"], wanted)
    return step, state.replace(**fields)

  def _path(self, step: int) -> str:
    return os.path.join(self._directory, str(step))

  def _put_aside(self, damaged: dict[int, str]) -> None:
    workdir = os.path.dirname(self._directory)
    folder = files.inside(workdir, "damaged")
    for step, problem in damaged.items():
      target, copies = os.path.join(folder, str(step)), 1
      while os.path.exists(target):
        copies += 1
        target = os.path.join(folder, f"{step}-{copies}")
      if processes.is_first():
        files.own_folder(workdir, "damaged")
        shutil.move(self._path(step), target)
      log.warning(
        "WARNING: the checkpoint of step %d cannot be read (%s). It is now %s,"
        " and training goes on from the one before",
        *(step, problem, target),
      )
    if damaged:
      processes.wait_for_all("damaged checkpoints put aside")
      self._manager.reload()

  def wait(self) -> None:
    """Waits for a save under way; OSError if it failed."""
    with self._named_failure():
      self._manager.wait_until_finished()
      self._manager.check_for_errors()

  def close(self) -> None:
    """Waits for saves under way; OSError if one failed."""
    try:
      self.wait()
    finally:
      self._manager.close()

  @contextlib.contextmanager
  def _named_failure(self) -> Iterator[None]:
    """Turns errors of a save into an OSError that names the last good step."""
    try:
      yield
    except (OSError, ValueError, RuntimeError) as error:
      steps = ocp.path.step.checkpoint_steps(self._directory)
      kept = f"step {max(steps)}" if steps else "none"
      raise OSError(
        f"a checkpoint could not be written to {self._directory}: {error}."
        f" The newest complete one: {kept}. Make room or repair the disk, then"
        " run the same command again"
      ) from error


def _saved(state: algorithm_lib.TrainState) -> dict[str, Any]:
  """Fields that training changes; frozen networks are kept elsewhere."""
  return {
    "step": state.step,
    "params": state.params,
    "opt_state": state.opt_state,
    "ema": state.ema,
    "extras": state.extras,
  }
