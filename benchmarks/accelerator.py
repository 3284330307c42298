"""Speed and memory on one GPU or TPU, in rows that cannot hold one another up.

  python -m benchmarks.accelerator --output=FILE [--budget=470] [--only=NAMES]
    [--tiny] [--set=FIELD=VALUE,...] [--list]

Each row is measured in its own process with its own time limit, and the JSON is
written anew after each, so that a row that fails, hangs or does not fit costs
no other. One that was not measured says "not run" with the reason.
`benchmarks/accelerator_rows.py` has the rows: programs of the papers' models
with drawn weights, and peers in torch beside them. Rows of products give the
rate that MFU refers to, in the same run. `--tiny` shrinks every model, to check
all rows on a CPU first; `--set` changes a field of the configs.
"""

import argparse
import json
import os
import pathlib
import platform
import signal
import subprocess
import sys
import tempfile
import time

# Names of the rows -> limit in seconds, the start of the process included.
ROWS = {
  "products": 40,
  "masked_train": 100,
  "torch_bert": 60,
  "torch_bert_compiled": 90,
  "attention": 120,
  "masked_sample": 60,
  "reconstruct": 70,
  "autoregressive_train": 150,
  "autoregressive_sample": 70,
  "inception": 40,
  "i3d": 40,
  "entropy": 40,
  "tokenizer_train": 170,
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
  report = {
    "command": sys.argv[1:],
    "machine": {
      "processor": platform.processor() or platform.machine(),
      "cores": os.cpu_count(),
      "load": os.getloadavg()[0],
      "python": platform.python_version(),
    },
    "rows": {},
  }
  end = time.monotonic() + args.budget
  for name in names:
    start = time.monotonic()
    limit = min(ROWS[name], end - start)
    row = (
      _run(name, args, limit)
      if limit >= _LEAST
      else {"not run": f"{limit:.0f} s of --budget={args.budget:g} were left"}
    )
    row["row_seconds"] = time.monotonic() - start
    report["rows"][name] = row
    print(f"{name}: {json.dumps(row)}", flush=True)
    args.output.write_text(json.dumps(report, indent=2) + "\n")
  print(f"wrote {args.output}")


def _run(name: str, args, limit: float) -> dict:
  """Measures a row in a process of its own, which dies with all it started."""
  with tempfile.TemporaryDirectory() as folder:
    output = pathlib.Path(folder, "row.json")
    errors = pathlib.Path(folder, "errors.txt")
    command = [sys.executable, "-m", "benchmarks.accelerator_rows", name]
    command += [f"--output={output}", f"--set={args.set}"]
    command += ["--tiny"] * args.tiny
    # A process takes nearly all of the device's memory, as a training does.
    memory = os.environ.get("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.93")
    with errors.open("w") as stream:
      process = subprocess.Popen(
        command,
        stdout=stream,
        stderr=stream,
        start_new_session=True,
        env={**os.environ, "XLA_PYTHON_CLIENT_MEM_FRACTION": memory},
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
