"""What is done again and again beside all else, like signs of life."""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import threading

from storage import interrupts


@contextlib.contextmanager
def repeated(
  act: Callable[[], None], seconds: float, name: str
) -> Iterator[None]:
  """Calls `act` every so many seconds inside a `with`, in a thread of its own.

  The block's end waits for a call under way.
  """
  ended = threading.Event()

  def run() -> None:
    while not ended.wait(seconds):
      act()

  thread = threading.Thread(target=run, name=name, daemon=True)
  thread.start()
  try:
    yield
  finally:
    ended.set()
    thread.join()


@contextlib.contextmanager
def kept(
  beat: Callable[[], None], seconds: float, last: Callable[[], None]
) -> Iterator[None]:
  """Gives signs of life inside a `with`, and does a last act at a signal.

  Args:
    beat: gives a sign of life; called in another thread.
    seconds: time between two calls.
    last: called in another thread before a signal ends the process, as
      `interrupts.before_the_end` says.
  """
  with repeated(beat, seconds, "pulse"), interrupts.before_the_end(last):
    yield
