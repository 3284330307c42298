"""Speed and memory on one GPU or TPU, in rows that cannot hold one another up.

  python -m benchmarks.accelerator --output=FILE [--peer=SEED-VOKEN_FOLDER]
    [--budget=470] [--only=NAMES] [--tiny] [--set=FIELD=VALUE,...] [--list]

Each row is measured in its own process with its own time limit, and the JSON is
written anew after each, so that a row that fails, hangs or does not fit costs
no other. One that was not measured says "not run" with the reason.
`benchmarks/accelerator_rows.py` has the rows: programs of the papers' models
with drawn weights, and peers in torch beside them. Rows of products give the
rate that MFU refers to, in the same run. All share a cache of compiled programs
that is empty at the begin. Two tables end the run: of the rows, and of what
they have to show. `--tiny` shrinks every model, to check all rows on a CPU
first; `--set` changes a field of the configs.
"""

import argparse
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any

from benchmarks import accelerator_measures
from benchmarks import open_magvit2_network
from benchmarks import run

# Names of the rows -> limit in seconds, the start of the process included.
ROWS = {
  "products": 40,
  "masked_train": 110,
  "torch_bert": 60,
  "tokenizer_generator": 130,
  "open_magvit2": 60,
  "autoregressive_train": 100,
  "autoregressive_sample": 60,
  "tokenizer_train": 170,
  "tokenizer_train_warm": 60,
  "reconstruct": 60,
  "masked_sample": 60,
  "ids": 100,
  "entropy": 40,
  "inception": 40,
  "i3d": 40,
  "attention": 120,
  "convolution": 90,
  "torch_bert_compiled": 90,
}
_LEAST = 15  # seconds left below which no row is started


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  add = parser.add_argument
  add("--output", type=pathlib.Path, help="JSON to write")
  add("--budget", type=float, default=470, help="seconds of all rows together")
  add("--only", default="", help="names to run, separated by commas")
  add("--tiny", action="store_true", help="shrink every model")
  add("--set", default="", help="fields of configs: a.b=1,c=2")
  add("--list", action="store_true", help="print names and limits")
  add("--peer", type=pathlib.Path, help="folder of SEED-Voken")
  args = parser.parse_args()
  if args.list:
    for name, limit in ROWS.items():
      print(f"{name}: at most {limit} s")
    return
  if args.output is None:
    parser.error("give --output=FILE, the JSON to write")
  names = [name for name in args.only.split(",") if name] or list(ROWS)
  for name in names:
    if name not in ROWS:
      parser.error(f"--only={name}: must be some of {', '.join(ROWS)}")
  if args.peer is not None:
    try:
      open_magvit2_network.source(args.peer, "video")
    except ValueError as error:
      parser.error(str(error))
  machine = {**run.machine(), "driver": _driver()}
  report = {"command": sys.argv[1:], "machine": machine, "rows": {}}
  end = time.monotonic() + args.budget
  with tempfile.TemporaryDirectory() as cache:
    for name in names:
      start = time.monotonic()
      row = _measure(name, args, min(ROWS[name], end - start), cache)
      row["row_seconds"] = time.monotonic() - start
      report["rows"][name] = row
      report["measures"] = accelerator_measures.judge(report["rows"])
      print(f"{name}: {json.dumps(row)}", flush=True)
      args.output.write_text(json.dumps(report, indent=2) + "\n")
  print(f"\n{accelerator_measures.table(report)}\n")
  if args.tiny:
    print("--tiny: times of shrunk models say nothing about the measures")
  print(f"wrote {args.output}")


def _driver() -> str:
  """Name and driver of each GPU by nvidia-smi; empty without it."""
  query = ("--query-gpu=name,driver_version", "--format=csv,noheader")
  try:
    answer = subprocess.run(
      ["nvidia-smi", *query], capture_output=True, text=True, timeout=20
    )
  except (OSError, subprocess.TimeoutExpired):
    return ""
  return answer.stdout.strip() if answer.returncode == 0 else ""


def _measure(name: str, args, limit: float, cache: str) -> dict[str, Any]:
  """Measures a row, or says why it was not."""
  if name == "open_magvit2" and args.peer is None:
    return {"not run": "--peer=DIR, a checkout of SEED-Voken, was not given"}
  if limit < _LEAST:
    return {"not run": f"{limit:.0f} s of --budget={args.budget:g} were left"}
  return _run(name, args, limit, cache)


def _run(name: str, args, limit: float, cache: str) -> dict[str, Any]:
  """Measures a row in a process of its own, which dies with all it started."""
  with tempfile.TemporaryDirectory() as folder:
    output = pathlib.Path(folder, "row.json")
    errors = pathlib.Path(folder, "errors.txt")
    command = [sys.executable, "-m", "benchmarks.accelerator_rows", name]
    command += [f"--output={output}", f"--set={args.set}", f"--limit={limit}"]
    command += ["--tiny"] * args.tiny
    command += [f"--peer={args.peer}"] * (args.peer is not None)
    # A process takes nearly all of the device's memory, as a training does.
    memory = os.environ.get("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.93")
    with errors.open("w") as stream:
      process = subprocess.Popen(
        command,
        stdout=stream,
        stderr=stream,
        start_new_session=True,
        env={
          **os.environ,
          "XLA_PYTHON_CLIENT_MEM_FRACTION": memory,
          "JAX_COMPILATION_CACHE_DIR": cache,
        },
      )
      try:
        code = process.wait(limit)
      except subprocess.TimeoutExpired:
        code = None
      finally:
        _kill(process)
    row = json.loads(output.read_text()) if output.exists() else {}
    if code is None:
      row["not run"] = f"not done after {limit:.0f} s"
    elif code != 0:
      row["not run"] = _reason(errors.read_text())
    return row


def _kill(process: subprocess.Popen) -> None:
  try:
    os.killpg(process.pid, signal.SIGKILL)
  except ProcessLookupError:
    pass
  process.wait()


def _reason(errors: str) -> str:
  """The last line of an error that says what happened, shortened."""
  lines = [line.strip() for line in errors.splitlines() if line.strip()]
  told = [line for line in lines if "Error" in line or "RESOURCE" in line]
  return (told or lines or ["no message"])[-1][:600]


if __name__ == "__main__":
  main()
