"""The first batch and the compiled step, made beside what else a start does."""

from collections.abc import Callable
import threading
from typing import Any
from typing import Self

import grain
import jax
from jax.sharding import Mesh

from magvit import algorithm as algorithm_lib
from magvit import mesh as mesh_lib
from storage import progress as progress_lib


class Ahead:
  """Reads the first batch and compiles the step, in a thread of its own.

  A start draws the first weights, or reads those of a checkpoint, meanwhile.
  The thread takes the position in the data that the newest checkpoint says;
  where another one is restored in the end, the batch is read again.
  """

  def __init__(
    self,
    step_fn: Callable,
    state: algorithm_lib.TrainState,
    key: jax.Array,
    data: grain.DatasetIterator,
    mesh: Mesh,
  ):
    """Starts nothing yet.

    Args:
      step_fn: the step, by jax.jit.
      state: shapes and shardings of the training state.
      key: key of the steps.
      data: batches of this process.
      mesh: the devices.
    """
    self._step_fn, self._state, self._key = step_fn, state, key
    self._data, self._mesh = data, mesh
    self._thread: threading.Thread | None = None
    self._begun_at: Any = None  # position that the thread reads from
    self._position: Any = None  # position to train from; None: the first
    self._batch: Any = None
    self._error: Exception | None = None

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *unused) -> None:
    """Waits for the thread: a process must not end within a compiler."""
    if self._thread is not None:
      self._thread.join()

  def begin(self, position: Any) -> None:
    """Starts to read from a position in the data; None for the first."""
    self._begun_at = position
    self._thread = threading.Thread(target=self._run, name="ahead", daemon=True)
    self._thread.start()

  def set_state(self, position: Any) -> None:
    """Tells the position in the data of the checkpoint that was restored."""
    self._position = position

  def batch(self) -> Any:
    """The first batch on the mesh, once the step is compiled, too."""
    if self._thread is not None:
      self._thread.join()
      if self._begun_at == self._position:
        if self._error is not None:
          raise self._error
        return self._batch
    self._prepare(self._position)
    return self._batch

  def _run(self) -> None:
    try:
      self._prepare(self._begun_at)
    except Exception as error:  # raised where the batch is wanted
      self._error = error

  def _prepare(self, position: Any) -> None:
    if position is not None:
      self._data.set_state(position)
    with progress_lib.phase("reading the first batch"):
      self._batch = mesh_lib.place_batch(next(self._data), self._mesh)
    with progress_lib.phase(
      "compiling the training step",
      "for minutes, if the model is large; compiled programs are kept for the"
      " next run",
    ):
      # Calls of the step find this program in JAX's cache.
      self._step_fn.lower(
        self._state, self._batch, jax.random.fold_in(self._key, 0)
      ).compile()
