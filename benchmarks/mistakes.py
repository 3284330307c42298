"""CPU seconds until each mistake of tests/mistakes.py is refused.

  python -m benchmarks.mistakes

Each is a command of its own. Expected: one line, exit code 1, and at most 5
seconds of CPU after the flags are read.
"""

import os
import pathlib
import subprocess
import sys
import tempfile

from tests import mistakes
from tests import tiny
from tests import untrained

_LIMIT = 5.0  # seconds of CPU after the flags
# Runs main.py; its last line on stdout has CPU seconds in all, and after flags.
_TIMED = """
import atexit, runpy, sys, time
sys.path.insert(0, ".")
from magvit import command_line
parse, ends = command_line.parse_flags, []
def timed(argv):
  rest = parse(argv)
  ends.append(time.process_time())
  return rest
def report():
  total = time.process_time()
  print("CPU", total, total - ends[0] if ends else 0.0)
command_line.parse_flags = timed
atexit.register(report)
sys.argv[0] = "main.py"
runpy.run_path("main.py", run_name="__main__")
"""


def main() -> None:
  with tempfile.TemporaryDirectory() as root:
    folder = pathlib.Path(root)
    folders = {"tmp": str(folder), "run": str(folder / "run")}
    mistakes.prepare(folder)
    for kind in ("tokenizer", "generator"):
      folders[kind] = str(folder / kind)
    untrained.write(folders["tokenizer"], tiny.tokenizer())
    untrained.write(folders["generator"], tiny.masked(folders["tokenizer"]))
    print("| mistake | CPU s | after flags | line |\n|---|---|---|---|")
    for name in mistakes.MISTAKES:
      print(_row(name, mistakes.arguments(name, **folders)), flush=True)


def _row(name: str, arguments: list[str]) -> str:
  result = subprocess.run(
    [sys.executable, "-c", _TIMED, *arguments],
    env={**os.environ, "JAX_PLATFORMS": "cpu"},
    capture_output=True,
    text=True,
    check=False,
  )
  _, total, after = result.stdout.splitlines()[-1].split()
  lines = result.stderr.splitlines()
  good = result.returncode == 1 and len(lines) == 1
  flag = "" if good and float(after) <= _LIMIT else " FAULT"
  line = lines[-1] if lines else ""
  return f"| {name}{flag} | {float(total):.1f} | {float(after):.1f} | {line} |"


if __name__ == "__main__":
  main()
