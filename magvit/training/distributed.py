"""Join the processes of one job."""

import os

import jax

# Time of silence after which a process counts as dead, and the job ends.
HEARTBEAT_SECONDS = 60
_JOINING_SECONDS = 300  # wait for the other processes


def join(
  coordinator: str | None, processes: int | None, process: int | None
) -> None:
  """Connects this process with the others of its job.

  Args:
    coordinator: HOST:PORT of process 0, reachable by all; None for
      JAX_COORDINATOR_ADDRESS, or for the address that JAX detects on Cloud TPU,
      GKE, Slurm and under MPI.
    processes: number of processes in the job; None for JAX_NUM_PROCESSES, or
      for the number that JAX detects.
    process: number of this process, from 0; None for JAX_PROCESS_ID, or for the
      number that JAX detects.

  Raises:
    ValueError: an address or a number that cannot be, or one that is neither
      given nor detected.
    OSError: the other processes did not join within five minutes.
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
  # preemption.py takes signals in place of JAX's service, and Ctrl-C, too.
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
      f"--distributed: {error} JAX detects no Cloud TPU, GKE, Slurm or MPI job"
      " that has these: give --coordinator=HOST:PORT, --processes=N and"
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
