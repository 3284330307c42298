"""How a run ends: on request, by an error, and without holding up its job.

Programs import this file before their flags are parsed, and so it imports no
library.
"""

from collections.abc import Iterator
import contextlib
import os
import sys
import traceback

EXIT_CODE = 143  # 128 + SIGTERM, as a shell reports a process that it ended
HUNG = 75  # exit code of a run that hung: EX_TEMPFAIL, "try again later"


class Stopped(Exception):
  """The run was asked to stop, and has saved what it did."""

  def __init__(self, step: int):
    super().__init__(
      f"stopped on request after step {step}, which is saved: run the same"
      " command again to continue"
    )


class NotSaved(OSError):
  """A checkpoint could not be written; the run ends without waiting for it."""


class NonFiniteError(ArithmeticError):
  """A metric became NaN or infinite."""


@contextlib.contextmanager
def errors_end_the_job() -> Iterator[None]:
  """Ends a process at once after an error that would hold it up.

  An ordinary exit would wait for the other processes of a job, and they for
  this one's part of the computation. After an exit at once they miss this one's
  heartbeats, and end with a message. After a save that failed it would also
  wait for its threads, and they for each other: for five minutes.
  """
  try:
    yield
  except BaseException as error:
    code = error.code if isinstance(error, SystemExit) else 1
    saved = code == EXIT_CODE  # all the others have saved, too
    alone = not _in_a_job()
    if saved or (alone and not _stems_from(error, NotSaved)):
      raise
    if not isinstance(error, SystemExit):
      traceback.print_exc()
    elif isinstance(code, str):
      print(code, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 1)


def _in_a_job() -> bool:
  # A process that has not imported JAX has joined none.
  jax = sys.modules.get("jax")
  return jax is not None and jax.distributed.is_initialized()


def _stems_from(error: BaseException | None, kind: type) -> bool:
  """Whether an error, or one that it replaced, is of a kind."""
  while error is not None and not isinstance(error, kind):
    error = error.__context__
  return error is not None
