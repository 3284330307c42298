"""Feeds mutated files to one reader, in a process of its own.

  python -m tests.fuzz.child READER FIRST COUNT FOLDER [SECONDS]

FIRST and COUNT number the seeds of the mutations, so that any of them can be
made again alone. FOLDER is new; the reader may write into FOLDER/inside only.
The process prints a line of JSON for each seed that it begins, for each fault,
and for the end: who starts it knows where it hung or broke down.
"""

import faulthandler
import json
import os
import pathlib
import random
import resource
import shutil
import sys
import zlib

_GIB = 2**30
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGING = (
  *("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink"),
  *("os.truncate", "os.chmod"),
)
_LEAVING = ("subprocess.Popen", "os.system", "os.exec", "socket.connect")


class _Writes:
  """Notes what Python code changes outside a folder, while it is active."""

  def __init__(self, inside: pathlib.Path):
    self._inside, self.active, self.faults = str(inside), False, []
    sys.addaudithook(self._hear)

  def _hear(self, event: str, arguments: tuple) -> None:
    if not self.active:
      return
    if event == "open":
      path, mode, flags = arguments
      writes = bool((flags or 0) & _WRITING) or set(mode or "") & set("wax+")
      if not writes or isinstance(path, int):
        return
    elif event in _CHANGING:
      path = arguments[0]
    elif event in _LEAVING:
      self.faults.append(f"{event} {arguments[0]!r}"[:200])
      return
    else:
      return
    path = os.path.realpath(os.fsdecode(path))
    if not path.startswith(self._inside) and path != os.devnull:
      self.faults.append(f"{event} {path}")


def snapshot(folder: pathlib.Path, but: pathlib.Path) -> dict[str, tuple]:
  """(size, time, contents or target) of what is in a folder, by path."""
  held = {}
  for parent, folders, names in os.walk(folder):
    folders[:] = [f for f in folders if pathlib.Path(parent, f) != but]
    for name in (*folders, *names):
      path = pathlib.Path(parent, name)
      status = path.lstat()
      content = path.read_bytes() if path.is_file() else b""
      held[str(path)] = (status.st_mode, status.st_mtime_ns, content)
    held[parent] = (os.stat(parent).st_mode, 0, tuple(sorted(names)))
  return held


def judge(reader, folder: pathlib.Path, target: str, expected) -> str | None:
  """Reads a folder; returns the fault in words, "" for a line of refusal.

  None is a file that was read.
  """
  try:
    got = reader.read(folder)
  except ValueError as error:
    message, cause = str(error), error
    while cause is not None:
      if isinstance(cause, MemoryError):
        return f"too much memory: {message[:300]}"
      cause = cause.__cause__ or cause.__context__
    if "\n" in message.strip() or len(message) > 3000:
      return f"more than a line: {message[:500]!r}"
    if target not in message and str(folder) not in message:
      return f"no name of the file: {message[:300]!r}"
    return ""
  except Exception as error:
    return f"{type(error).__name__}: {str(error)[:300]}{_where(error)}"
  if expected is not None and got != expected:
    return f"another result: {str(got)[:200]} instead of {str(expected)[:200]}"
  return None


def _where(error: BaseException) -> str:
  """The innermost places of our code in a traceback."""
  places, trace = [], error.__traceback__
  while trace is not None:
    code = trace.tb_frame.f_code
    places.append(
      f"{'/'.join(code.co_filename.split('/')[-2:])}:{trace.tb_lineno}"
    )
    trace = trace.tb_next
  return f" at {' > '.join(places[-4:])}"


def _memory(field: str) -> int:
  for line in pathlib.Path("/proc/self/status").read_text().splitlines():
    if line.startswith(field):
      return 1024 * int(line.split()[1])
  raise ValueError(field)


def prepare_case(reader, seed: pathlib.Path, case: pathlib.Path, number: int):
  """Writes a mutated copy of the seed; returns the changed file.

  Also returns whether what is read from it has to be what the seed gives.
  """
  from tests.fuzz import mutate

  rng = random.Random(f"{reader.name} {number}")
  shutil.rmtree(case, ignore_errors=True)
  shutil.copytree(seed, case)
  paths = sorted(p for p in case.rglob("*") if p.is_file())
  targets = [p for p in paths if any(p.match(t) for t in reader.targets)]
  target, other = rng.choice(targets), rng.choice(targets)
  data = mutate.mutate(target.read_bytes(), other.read_bytes(), rng)
  target.write_bytes(data)
  if reader.alone:
    for path in paths:
      if path.stem.split(".")[0] != target.stem.split(".")[0]:
        path.unlink()
  mended = reader.mend is not None and rng.random() < 0.7
  if mended:
    reader.mend(case, target)
  return target, reader.exact and (reader.sealed or not mended)


def run(reader, first: int, count: int, root: pathlib.Path, seconds: float):
  """Yields (seed, fault, or "" where the file was refused in one line)."""
  inside, outside = root / "inside", root / "outside"
  seed, case = inside / "seed", inside / "a" / "case"
  for folder in (seed, case, inside / "tmp", outside / "folder"):
    folder.mkdir(parents=True)
  (outside / "victim").write_text("must stay as it is")
  (outside / "folder" / "victim.npy").write_text("this, too")
  (root / "victim").symlink_to(outside / "victim")
  os.environ["TMPDIR"] = str(inside / "tmp")
  os.chdir(inside)
  reader.make(seed)
  expected = reader.read(seed)
  writes, before = _Writes(inside), snapshot(root, but=inside)
  limit = _memory("VmData") + 3 * _GIB
  resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
  for number in range(first, first + count):
    target, exact = prepare_case(reader, seed, case, number)
    # VmHWM, the highest memory, starts anew.
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    memory = _memory("VmRSS")
    print(json.dumps({"begin": number}), flush=True)
    faulthandler.dump_traceback_later(seconds, exit=True)
    writes.active = True
    fault = judge(reader, case, target.name, expected if exact else None)
    writes.active = False
    faulthandler.cancel_dump_traceback_later()
    grown = _memory("VmHWM") - memory
    if grown > _GIB:
      fault = f"{grown / _GIB:.1f} GiB of memory; {fault}"
    if writes.faults or snapshot(root, but=inside) != before:
      fault = f"writes outside {writes.faults}; {fault}"
      writes.faults, before = [], snapshot(root, but=inside)
    if fault is not None:
      yield number, fault and f"{target.relative_to(case)}: {fault}"


def main(name: str, first: str, count: str, root: str, seconds: str = "60"):
  from tests.fuzz import readers

  reader = readers.READERS[name]
  faults = run(
    reader, int(first), int(count), pathlib.Path(root), float(seconds)
  )
  refused = 0
  for number, fault in faults:
    if fault:
      print(json.dumps({"seed": number, "fault": fault}), flush=True)
    refused += not fault
  print(json.dumps({"refused": refused}), flush=True)


def digest(*arrays) -> int:
  """A number that stands for arrays, with their shapes and types."""
  total = 0
  for array in arrays:
    words = f"{array.dtype} {array.shape}".encode()
    total = zlib.crc32(array.tobytes(), zlib.crc32(words, total))
  return total


if __name__ == "__main__":
  main(*sys.argv[1:])
