"""Signs of life of a process, and one last act before a signal ends it."""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import threading

from storage import interrupts


@contextlib.contextmanager
def kept(
  beat: Callable[[], None], seconds: float, last: Callable[[], None]
) -> Iterator[None]:
  """Calls `beat` every so many seconds inside a `with`, beside all else.

  Args:
    beat: gives a sign of life; called in another thread.
    seconds: time between two calls.
    last: called in another thread before a signal ends the process, as
      `interrupts.before_the_end` says.
  """
  ended = threading.Event()

  def run() -> None:
    while not ended.wait(seconds):
      beat()

  thread = threading.Thread(target=run, name="pulse", daemon=True)
  thread.start()
  try:
    with interrupts.before_the_end(last):
      yield
  finally:
    ended.set()
    thread.join()
