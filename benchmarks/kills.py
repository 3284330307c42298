"""Random `kill -9` of a tiny training run: in steps, saves and start-up.

  python -m benchmarks.kills [--kills=50] [--steps=120] [--seed=0]
    [--output=FILE]

Each killed run is started again in its workdir until it ends. Its last state
and its metrics must equal those of a run that nobody killed, bit for bit. The
program ends with an error if they do not, or if a restart fails.
"""

import argparse
import json
import multiprocessing
import os
import pathlib
import random
import tempfile
import time

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

import jax  # noqa: E402
import numpy as np  # noqa: E402
import orbax.checkpoint as ocp  # noqa: E402

from magvit.training import loop  # noqa: E402
from tests import tiny  # noqa: E402

_SECONDS = 2.0  # longest training between two kills
_START_UP = 0.2  # share of kills before the first step
_SAVE = 0.5  # share of kills that wait for a save, which takes milliseconds
_SAVE_SECONDS = 0.02  # longest time from the begin of a save to a kill


def train_one(workdir: str, steps: int) -> None:
  config = tiny.tokenizer(temporal=False)
  config.num_steps, config.checkpoint_every = steps, 4
  loop.train(config, workdir)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--kills", type=int, default=50, help="kills in all")
  parser.add_argument("--steps", type=int, default=120, help="steps of a run")
  parser.add_argument("--seed", type=int, default=0, help="seed of the moments")
  parser.add_argument(
    "--output", type=pathlib.Path, help="JSON to write as well"
  )
  arguments = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", f"{folder}/xla")
    # Processes start with the libraries loaded, so that kills follow quickly.
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["benchmarks.kills"])
    start = lambda workdir: _start(processes, workdir, arguments.steps)
    whole = f"{folder}/whole"
    _wait(start(whole))
    text = json.dumps(_kill_all(start, folder, whole, arguments), indent=2)
  print(text)
  if arguments.output:
    arguments.output.write_text(text + "\n")


def _kill_all(start, folder: str, whole: str, arguments) -> dict[str, int]:
  rng = random.Random(arguments.seed)
  counts = {"kills": 0, "in a save": 0, "in start-up": 0, "runs": 0}
  while counts["kills"] < arguments.kills:
    workdir = f"{folder}/killed{counts['runs']}"
    process = start(workdir)
    while counts["kills"] < arguments.kills:
      before = _changed(workdir)
      if rng.random() < _SAVE:
        while process.is_alive() and not _saves(workdir):
          time.sleep(0.0005)
        time.sleep(rng.uniform(0, _SAVE_SECONDS))
      else:
        begun = rng.random() >= _START_UP
        while begun and process.is_alive() and _changed(workdir) == before:
          time.sleep(0.001)
        time.sleep(rng.uniform(0, _SECONDS))
      if not process.is_alive():
        break
      process.kill()
      process.join()
      counts["kills"] += 1
      counts["in start-up"] += _changed(workdir) == before
      counts["in a save"] += _saves(workdir)
      print(f"{counts['kills']} of {arguments.kills} kills", flush=True)
      process = start(workdir)
    _wait(process)
    _check_same(workdir, whole, arguments.steps)
    counts["runs"] += 1
  return counts


def _start(processes, workdir: str, steps: int):
  process = processes.Process(target=train_one, args=(workdir, steps))
  process.start()
  return process


def _wait(process) -> None:
  process.join()
  if process.exitcode:
    raise SystemExit(f"a run ended with exit code {process.exitcode}")


def _changed(workdir: str) -> int:
  """Time at which the metrics changed last; 0 if there are none yet."""
  path = pathlib.Path(workdir, "metrics.jsonl")
  return path.stat().st_mtime_ns if path.exists() else 0


def _saves(workdir: str) -> bool:
  """Whether a save is under way, or was when its process was killed."""
  return any(pathlib.Path(workdir, "checkpoints").glob("*tmp*"))


def _metrics(workdir: str) -> list[dict[str, float]]:
  """Metrics of each step, but how fast it was."""
  text = pathlib.Path(workdir, "metrics.jsonl").read_text()
  rows = [json.loads(line) for line in text.splitlines()]
  timed = ("steps_per_second", "data_wait")
  return [{k: v for k, v in row.items() if k not in timed} for row in rows]


def _check_same(workdir: str, whole: str, steps: int) -> None:
  if _metrics(workdir) != _metrics(whole):
    raise SystemExit(f"the metrics of {workdir} differ")
  states = []
  for folder in (workdir, whole):
    path = os.path.abspath(f"{folder}/checkpoints/{steps}/state")
    with ocp.StandardCheckpointer() as checkpointer:
      states.append(checkpointer.restore(path))
  jax.tree.map(np.testing.assert_array_equal, *states)


if __name__ == "__main__":
  main()
