"""Stop on request, and save first: SIGTERM, or Ctrl-C once.

Clusters send SIGTERM some seconds before they take a machine away. The loop
then finishes the step under way, saves it and raises `endings.Stopped`; the
same command goes on from there. Processes of one job leave after the same step,
whichever of them got the signal.
"""

from collections.abc import Iterator
import contextlib
import logging
import os
import signal

import jax
import numpy as np

from magvit import mesh as mesh_lib
from storage import interrupts

log = logging.getLogger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Listener:
  """Notes signals inside a `with` block instead of dying from them.

  The log says so at once, also while a program is compiled or waited for. A
  second Ctrl-C interrupts at once; that loses the steps since the last save.
  """

  def __init__(self):
    self._received = None
    self._vote = None
    self._restore = contextlib.ExitStack()

  def __enter__(self) -> "Listener":
    self._restore.enter_context(interrupts.answered_later(_announce))
    for number in _SIGNALS:
      previous = signal.signal(number, self._note)
      # None stands for a handler of a library, which Python cannot set again.
      previous = signal.SIG_DFL if previous is None else previous
      self._restore.callback(signal.signal, number, previous)
    return self

  def __exit__(self, *unused) -> None:
    self._restore.close()

  def _note(self, number: int, frame) -> None:
    if self._received == number == signal.SIGINT:
      raise KeyboardInterrupt
    self._received = number

  @contextlib.contextmanager
  def suspended(self) -> Iterator[None]:
    """Lets a signal end the block, long work with nothing to save, at once."""
    self.__exit__()
    if self._received is not None:
      os.kill(os.getpid(), self._received)
    yield
    self.__enter__()

  def should_stop(self) -> bool:
    """Whether to leave after this step; the same in all processes.

    Each process must call it once a step. With several processes the answer is
    that of the step before, which is at hand without waiting.
    """
    received = self._received is not None
    if jax.process_count() == 1:
      return received
    previous, self._vote = self._vote, _any_process(received)
    return previous is not None and bool(previous)


def _announce() -> None:
  log.info(
    "stopping when the step under way has ended and is saved; Ctrl-C once more"
    " ends at once, without the steps since the last save"
  )


def _any_process(here: bool) -> jax.Array:
  """Whether `here` is true in some process; computed on devices, not awaited.

  Programs that communicate run in the order in which they were called, so this
  one runs after the step and holds up nothing.
  """
  mesh = mesh_lib.data_mesh(jax.devices())
  local = np.full(len(jax.local_devices()), here)
  votes = mesh_lib.place_batch(local, mesh)
  return jax.jit(jax.numpy.any, out_shardings=mesh_lib.replicated(mesh))(votes)
