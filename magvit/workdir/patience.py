"""Event loops that let every read end, so that one error is told, not many."""

import asyncio
from collections.abc import Iterator
import contextlib
from typing import Any


class _PatientLoop(asyncio.SelectorEventLoop):
  """Event loop that lets all reads end before it is closed."""

  def close(self) -> None:
    if not self.is_closed() and not self.is_running():
      left = asyncio.all_tasks(self)
      if left:
        everything = asyncio.gather(*left, return_exceptions=True)
        self.run_until_complete(everything)
    super().close()

  def call_exception_handler(self, context: dict[str, Any]) -> None:
    """Drops the errors of reads beside the one that is reported."""


class _PatientLoops(asyncio.DefaultEventLoopPolicy):
  def new_event_loop(self) -> asyncio.AbstractEventLoop:
    return _PatientLoop()


@contextlib.contextmanager
def patient_loops() -> Iterator[None]:
  """Suppresses the tracebacks of arrays that are read beside a damaged one.

  orbax closes its event loop at the first error. The other arrays are still
  being read then, and each would print what became of it.
  """
  before = asyncio.get_event_loop_policy()
  asyncio.set_event_loop_policy(_PatientLoops())
  try:
    yield
  finally:
    asyncio.set_event_loop_policy(before)
