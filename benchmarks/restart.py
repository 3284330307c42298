"""Seconds from the start of a killed run's command to its first new step.

  python -m benchmarks.restart [--config=configs/tokenizer_video.py:digits]
    [--before=CHECKOUT] [--repeats=3] [--output=FILE] [--FIELD=VALUE ...]

Trains, kills the process with `kill -9` after the first save, and starts the
same command again, in turn:

- cold: no compiled programs are kept, as on a new machine;
- moved: a new machine, and programs in the workdir (`keep_programs=True`);
- warm: the same machine, with the programs of before.

`--before` names a checkout of another version, timed in turn with this one.
Arguments that are not of the benchmark go to both, like
`--config.batch_size=4`.
"""

import argparse
from collections.abc import Sequence
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

from benchmarks import run

_ROOT = pathlib.Path(__file__).parents[1]
_CACHES = ("cold", "moved", "warm")
_PROGRAMS = "--config.keep_programs=True"


def main() -> None:
  parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
  parser.add_argument("--config", default="configs/tokenizer_video.py:digits")
  parser.add_argument("--before", type=pathlib.Path, help="another checkout")
  parser.add_argument("--repeats", type=int, default=3, help="starts of a kind")
  parser.add_argument("--output", type=pathlib.Path, help="JSON to write")
  args, fields = parser.parse_known_args()
  command = [f"--config={args.config}", *fields]
  versions = {"after": _ROOT}
  if args.before is not None:
    versions = {"before": args.before.absolute(), **versions}
  with tempfile.TemporaryDirectory() as folder:
    runs = {
      name: _Run(root, pathlib.Path(folder, name), command)
      for name, root in versions.items()
    }
    seconds = _measure(runs, args.repeats)
  report = {
    "machine": run.machine(),
    "config": args.config,
    "fields": fields,
    "seconds": seconds,
  }
  print("\n".join(table(seconds)))
  if args.output:
    args.output.write_text(json.dumps(report, indent=2) + "\n")


def _measure(
  runs: "dict[str, _Run]", repeats: int
) -> dict[str, dict[str, list[list[float]]]]:
  """Seconds to (checkpoint, first step) of each start, by version and cache."""
  seconds = {name: {cache: [] for cache in _CACHES} for name in runs}
  for one in runs.values():
    one.begin()
  for repeat in range(repeats):
    for cache in _CACHES:
      for name, one in runs.items():
        if cache == "moved" and name == "before":
          continue  # it keeps no programs in the workdir
        times = one.restart(cache)
        seconds[name][cache].append(times)
        print(
          f"{repeat + 1} of {repeats}: {name}, {cache}, {times}", flush=True
        )
  return {
    name: {cache: times for cache, times in kinds.items() if times}
    for name, kinds in seconds.items()
  }


def table(seconds: dict[str, dict[str, list[list[float]]]]) -> list[str]:
  """Rows of Markdown: medians, smallest and largest."""
  lines = [
    "| start | version | checkpoint read | first step |",
    "|---|---|---|---|",
  ]
  for cache in _CACHES:
    for name, kinds in seconds.items():
      if cache in kinds:
        cells = [_cell(times) for times in zip(*kinds[cache], strict=True)]
        lines.append(f"| {cache} | {name} | {' | '.join(cells)} |")
  return lines


def _cell(times: Sequence[float]) -> str:
  middle = statistics.median(times)
  return f"{middle:.1f} s ({min(times):.1f}-{max(times):.1f})"


class _Run:
  """A run that is killed and started again."""

  def __init__(self, root: pathlib.Path, folder: pathlib.Path, command):
    self._root, self._folder = root, folder
    self._command = [
      *(sys.executable, "main.py", *command, "--config.log_every=1"),
      *("--config.num_steps=1000000", "--config.checkpoint_every=3"),
    ]

  def begin(self) -> None:
    """Trains up to a save, with programs kept in either place."""
    for cache in ("warm", "moved"):
      workdir = self._workdir(cache)
      if cache == "moved":
        shutil.copytree(self._workdir("warm"), workdir)
        if self._root != _ROOT:
          continue
      process = self._start(cache)
      while not _saved(workdir):
        if process.poll() is not None:
          raise SystemExit(f"the run ended: {process.communicate()[0][-2000:]}")
        time.sleep(0.1)
      # The step of a moved run is compiled anew, into the workdir.
      for line in process.stdout or ():
        if _steps(line):
          break
      process.kill()
      process.communicate()
      for checkpoint in _saved(workdir)[1:]:
        shutil.rmtree(checkpoint)

  def restart(self, cache: str) -> list[float]:
    """Seconds until the checkpoint was read, and until the first step."""
    if cache != "warm":
      shutil.rmtree(self._folder / f"cache-{cache}", ignore_errors=True)
    kept = self._folder / "kept"
    shutil.rmtree(kept, ignore_errors=True)
    workdir = self._workdir(cache)
    shutil.copytree(workdir, kept)
    begun, times = time.monotonic(), []
    process = self._start(cache)
    for line in process.stdout or ():
      if not times and "resuming from step" in line:
        times.append(time.monotonic() - begun)
      elif _steps(line):
        times.append(time.monotonic() - begun)
        break
    process.kill()
    process.communicate()
    # Each start goes on from the same step.
    shutil.rmtree(workdir)
    shutil.move(kept, workdir)
    if len(times) < 2:
      raise SystemExit(f"the run in {workdir} did not go on from a checkpoint")
    return [round(x, 2) for x in times]

  def _workdir(self, cache: str) -> pathlib.Path:
    return self._folder / ("moved" if cache == "moved" else "warm")

  def _start(self, cache: str) -> subprocess.Popen:
    environment = dict(os.environ)
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    environment["XDG_CACHE_HOME"] = str(self._folder / f"cache-{cache}")
    return subprocess.Popen(
      [
        *self._command,
        f"--workdir={self._workdir(cache)}",
        *([_PROGRAMS] if cache == "moved" else []),
      ],
      cwd=self._root,
      env=environment,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )


def _steps(line: str) -> bool:
  """Whether a line of the log tells of training steps."""
  return " steps/s, " in line


def _saved(workdir: pathlib.Path) -> list[pathlib.Path]:
  """Checkpoints that are whole, the first one first."""
  folders = workdir.glob("checkpoints/*/_CHECKPOINT_METADATA")
  whole = [file.parent for file in folders if file.parent.name.isdecimal()]
  return sorted(whole, key=lambda folder: int(folder.name))


if __name__ == "__main__":
  main()
