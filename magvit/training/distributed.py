"""Joining the processes of one job, and leaving it without keeping others."""

from collections.abc import Iterator
import contextlib
import os
import sys
import traceback

import jax

from magvit.training import preemption

# A process that is silent for so long counts as dead, and the job ends.
HEARTBEAT_SECONDS = 60
_JOINING_SECONDS = 300


def join(
  coordinator: str | None, processes: int | None, process: int | None
) -> None:
  """Connects this process with the others of its job.

  Args:
    coordinator: HOST:PORT of process 0, reachable by all; None:
      JAX_COORDINATOR_ADDRESS, or what JAX finds on Cloud TPU, GKE, Slurm and
      under MPI.
    processes: how many; None: JAX_NUM_PROCESSES, or found likewise.
    process: this one's number from 0; None: JAX_PROCESS_ID, or found likewise.

  Raises:
    ValueError: an address or a number that cannot be, or nothing to find.
    OSError: the others did not come within five minutes.
  """
  coordinator = coordinator or os.environ.get("JAX_COORDINATOR_ADDRESS")
  processes = _number("JAX_NUM_PROCESSES", processes)
  process = _number("JAX_PROCESS_ID", process)
  if coordinator and not coordinator.rpartition(":")[2].isdigit():
    raise ValueError(
      f"--coordinator={coordinator} must be HOST:PORT, e.g. 10.0.0.1:1234"
    )
  if processes is not None and processes < 1:
    raise ValueError(f"--processes={processes} must be at least 1")
  if process is not None and not 0 <= process < (processes or process + 1):
    largest = None if processes is None else processes - 1
    raise ValueError(
      f"--process={process} must be from 0 to {largest}, as"
      f" --processes={processes}"
    )
  # magvit/training/preemption.py does its work, for Ctrl-C, too.
  jax.config.update("jax_enable_preemption_service", False)
  given = (coordinator, processes, process)
  try:
    jax.distributed.initialize(
      *given,
      cluster_detection_method=None if None in given else "deactivate",
      initialization_timeout=_JOINING_SECONDS,
      heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
    )
  except (ValueError, TypeError) as error:
    raise ValueError(
      f"--distributed: {error} JAX found no Cloud TPU, GKE, Slurm or MPI job"
      " that says so: give --coordinator=HOST:PORT, --processes=N and"
      " --process=I (or JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and"
      " JAX_PROCESS_ID)"
    ) from error
  except RuntimeError as error:
    raise OSError(f"--distributed: could not join {given}: {error}") from error


def _number(variable: str, given: int | None) -> int | None:
  if given is not None or variable not in os.environ:
    return given
  if not os.environ[variable].isdigit():
    raise ValueError(f"{variable}={os.environ[variable]!r} must be a number")
  return int(os.environ[variable])


@contextlib.contextmanager
def errors_end_the_job() -> Iterator[None]:
  """Ends one of several processes at once after an error.

  An ordinary exit would wait for the others, and they for this one's part of
  the computation. So they miss its heartbeats, and end with a message.
  """
  try:
    yield
  except BaseException as error:
    code = error.code if isinstance(error, SystemExit) else 1
    saved = code == preemption.EXIT_CODE  # as all the others have
    if saved or not jax.distributed.is_initialized():
      raise
    if not isinstance(error, SystemExit):
      traceback.print_exc()
    elif isinstance(code, str):
      print(code, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 1)
