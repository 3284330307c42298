"""Runs all benchmarks in turn, and writes their results as one JSON.

  python -m benchmarks.run --output=FILE [--only=entropy,generator]

Each benchmark runs in its own process, with its defaults; `--list` prints their
names and commands. One whose peer needs a missing package (torch and the like)
is recorded as skipped. One that fails is recorded as failed, and the exit code
is then 1.
"""

import argparse
from collections.abc import Sequence
from importlib import metadata
import json
import os
import pathlib
import platform
import subprocess
import sys
import tempfile
from typing import Any

_PACKAGES = ("jax", "jaxlib", "flax", "numpy")
_DIGITS = "--config=configs/masked.py:digits"
# Left out are those that have to be given something, like the checkout of a
# peer, a workdir or the shards of the film.
BENCHMARKS = {
  "entropy": ("entropy",),
  "convolution": ("convolution",),
  "steps_tokenizer_digits": ("steps",),
  "steps_generator_digits": ("steps", _DIGITS),
  "generator": ("generator",),
  "features": ("features",),
  "pipeline": ("pipeline",),
  "host_input": ("host_input",),
  "streaming": ("streaming",),
  "kills": ("kills",),
  "restart": ("restart",),
}
# Models of the papers, which are measured only where there is a GPU or TPU.
ON_ACCELERATORS = {
  "steps_tokenizer_ucf101": (
    *("steps", "--config=configs/tokenizer_video.py:ucf101"),
    *("--batch_size=8", "--dtype=bfloat16"),
  ),
  "steps_generator_ucf101": (
    *("steps", "--config=configs/masked.py:ucf101"),
    *("--tokenizer=configs/tokenizer_video.py:ucf101", "--batch_size=8"),
    "--dtype=bfloat16",
  ),
}


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--output", type=pathlib.Path, help="JSON to write")
  parser.add_argument(
    "--only", default="", help="names to run, separated by commas"
  )
  parser.add_argument(
    "--list", action="store_true", help="print names and commands"
  )
  args = parser.parse_args()
  known = BENCHMARKS | ON_ACCELERATORS
  if args.list:
    for name, (module, *flags) in known.items():
      print(f"{name}: python -m benchmarks.{module} {' '.join(flags)}")
    return
  if args.output is None:
    parser.error("give --output=FILE, the JSON to write")
  names = [name for name in args.only.split(",") if name]
  for name in names:
    if name not in known:
      parser.error(f"--only={name}: must be some of {', '.join(known)}")
  if not names:
    names = [*BENCHMARKS, *(ON_ACCELERATORS if _accelerated() else ())]
  report = {"machine": machine(), "benchmarks": {}}
  for name in names:
    print(f"== {name}", flush=True)
    report["benchmarks"][name] = _run(*known[name])
    args.output.write_text(json.dumps(report, indent=2) + "\n")
  print(f"wrote {args.output}")
  failed = [n for n, r in report["benchmarks"].items() if "failed" in r]
  if failed:
    sys.exit(f"failed: {', '.join(failed)}")


def _accelerated() -> bool:
  # Another process asks: a device that is held here is lost to the benchmarks.
  code = "import jax; print(jax.default_backend())"
  answer = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, check=True
  )
  return answer.stdout.strip() != "cpu"


def machine(packages: Sequence[str] = _PACKAGES) -> dict[str, Any]:
  """The machine, its load, and versions of packages; None of a missing one."""
  versions: dict[str, str | None] = {}
  for name in packages:
    try:
      versions[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
      versions[name] = None
  return {
    "processor": platform.processor() or platform.machine(),
    "cores": os.cpu_count(),
    "load": os.getloadavg()[0],
    "python": platform.python_version(),
    **versions,
  }


def _run(module: str, *flags: str):
  with tempfile.TemporaryDirectory() as folder:
    output = pathlib.Path(folder, "result.json")
    command = [sys.executable, "-m", f"benchmarks.{module}", *flags]
    process = subprocess.Popen(
      [*command, f"--output={output}"], stderr=subprocess.PIPE, text=True
    )
    errors = process.stderr.read().strip()
    if process.wait() == 0:
      return {"command": command[1:], "result": json.loads(output.read_text())}
  last = errors.splitlines()[-1] if errors else ""
  kind = "skipped" if last.startswith("ModuleNotFoundError") else "failed"
  print(f"{kind}: {last}")
  return {"command": command[1:], kind: last}


if __name__ == "__main__":
  main()
