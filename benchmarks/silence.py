"""How long a command says nothing, and how soon it answers Ctrl-C.

  python -m benchmarks.silence [--longest=10] [--output=FILE] -- COMMAND...
  python -m benchmarks.silence --interrupt_after="compiling the" -- COMMAND...

The command's lines are shown as they come. At the end stand its longest times
without a line, each with the line before. With --interrupt_after=TEXT, the
command gets a Ctrl-C --delay seconds after the first line that holds TEXT, and
the time to its next line and to its end is measured instead.
"""

import argparse
import dataclasses
import json
import pathlib
import queue
import signal
import subprocess
import sys
import threading
import time
from typing import Any


@dataclasses.dataclass(frozen=True)
class Silence:
  """A time without a line."""

  seconds: float
  at: float  # seconds from the start of the command
  after: str  # the line before


def longest(lines: list[tuple[float, str]], count: int) -> list[Silence]:
  """The longest silences between lines, (seconds from the start, text)."""
  gaps = [
    Silence(round(after - before, 1), round(before, 1), text)
    for (before, text), (after, _) in zip(lines, lines[1:], strict=False)
  ]
  return sorted(gaps, key=lambda gap: -gap.seconds)[:count]


def _parse() -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--longest", type=int, default=10, help="silences shown")
  parser.add_argument("--interrupt_after", help="part of a line")
  parser.add_argument(
    "--delay", type=float, default=3.0, help="seconds from that line to Ctrl-C"
  )
  parser.add_argument(
    "--output", type=pathlib.Path, help="JSON to write as well"
  )
  parser.add_argument("command", nargs="+", help="the command and its flags")
  return parser.parse_args()


def main() -> None:
  arguments = _parse()
  start = time.monotonic()
  process = subprocess.Popen(
    arguments.command,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    errors="backslashreplace",
  )
  lines = [(0.0, "(the start)")]
  arrived = _read(process, start)
  interrupted = None
  while True:
    due = None if interrupted is None else max(0, interrupted - _since(start))
    try:
      line = arrived.get(timeout=due)
    except queue.Empty:
      break
    lines.append(line)
    print(f"{line[0]:8.1f} {line[1]}", flush=True)
    if line[1] == _END:
      break
    text = arguments.interrupt_after
    if text and text in line[1] and interrupted is None:
      interrupted = line[0] + arguments.delay
  results: dict[str, Any] = {"command": arguments.command}
  if interrupted is None or process.poll() is not None:
    shown = longest(lines, arguments.longest)
    results["silences"] = [dataclasses.asdict(gap) for gap in shown]
    print("\nseconds  from  after the line")
    for gap in shown:
      print(f"{gap.seconds:7.1f} {gap.at:5.0f}  {gap.after}")
  else:
    results |= _interrupt(process, arrived, start)
  results["exit_code"] = process.wait()
  print(f"exit code {results['exit_code']}")
  if arguments.output:
    arguments.output.write_text(json.dumps(results, indent=2) + "\n")


_END = "(the end)"


def _since(start: float) -> float:
  return time.monotonic() - start


def _read(process: subprocess.Popen, start: float) -> queue.Queue:
  """Lines of a process with the time at which they came."""
  arrived = queue.Queue()

  def read() -> None:
    if process.stdout is not None:
      for line in process.stdout:
        arrived.put((_since(start), line.rstrip("\n")))
    arrived.put((_since(start), _END))

  threading.Thread(target=read, daemon=True).start()
  return arrived


def _interrupt(
  process: subprocess.Popen, arrived: queue.Queue, start: float
) -> dict[str, float]:
  """Sends Ctrl-C; measures the time to the next line and to the end."""
  sent = _since(start)
  process.send_signal(signal.SIGINT)
  print(f"{sent:8.1f} (Ctrl-C)", flush=True)
  answers = []
  while not answers or answers[-1][1] != _END:
    answers.append(arrived.get())
    print(f"{answers[-1][0]:8.1f} {answers[-1][1]}", flush=True)
  times = {
    "answered_after": round(answers[0][0] - sent, 2),
    "ended_after": round(answers[-1][0] - sent, 2),
  }
  print(f"\n{times}", file=sys.stdout)
  return times


if __name__ == "__main__":
  main()
