"""One writer for each folder: a file in it names the process that writes there.

A second process is refused at once. The file is made by O_EXCL and has a line
of JSON, so that it holds on network file systems, too, and its time of change
is the last sign of life: the writer sets it every few seconds. A writer that
was killed leaves the file behind. On the machine it ran on it is known to be
dead by its process id and its time of start; elsewhere it counts as dead after
SILENT_SECONDS without a sign of life. The next process then takes over.

In an object store the file is an object, which is made on the condition that
there is none, and a sign of life writes it anew. A store has no other condition
that all of fsspec's kinds share: of two processes that take over from a dead
one within the same moment, `Lock.check` stops one later.
"""

from collections.abc import Iterator
import contextlib
import dataclasses
import datetime
import errno
import json
import logging
import os
import secrets
import socket
import stat
import time

from storage import listing
from storage import pulse
from storage import stores

log = logging.getLogger(__name__)

SILENT_SECONDS = 60.0  # after which a writer on another machine counts as dead
BEAT_SECONDS = 5.0  # between two signs of life
STORE_BEAT_SECONDS = 15.0  # the same in an object store, which bills for each
_NAME = ".lock"
_LONGEST = 4096  # bytes of the file at most
_ATTEMPTS = 10  # each waits for another process that is about to write the file
_WAIT_SECONDS = 0.1


@dataclasses.dataclass(frozen=True)
class Holder:
  """The process that writes in a folder."""

  mode: str  # what it does, like "--mode=train"
  host: str
  machine: str  # the same in all processes that see each other's process ids
  pid: int
  started: str  # when the process started, in the machine's own unit
  since: str  # when it began to write, in words
  token: str  # names this holder alone


@dataclasses.dataclass(frozen=True)
class _Seen:
  """A lock file at one moment."""

  holder: Holder | None  # None: it is being written, or damaged
  changed: float  # time of the last change, by the file system's clock


class Lock:
  """A folder that this process writes in."""

  def __init__(self, path: str, me: Holder):
    self._path, self._me = path, me

  def check(self) -> None:
    """Raises OSError if another process has taken the folder over.

    That happens to a process that was held up for long on a network file
    system.
    """
    if _is_from(self._path, self._me) is False:
      raise OSError(
        f"{self._path} is of another process now, because this one gave no sign"
        f" of life for {SILENT_SECONDS:.0f} s: this one stops without another"
        " write; run the same command again once the other has ended"
      )

  def beat(self) -> None:
    """Gives a sign of life."""
    with contextlib.suppress(OSError):  # the next one may succeed
      held = _is_from(self._path, self._me)
      if held and stores.is_url(self._path):
        stores.write(self._path, _encoded(self._me))
      elif held:
        os.utime(self._path)  # by the clock of the file system
      elif held is None:  # someone removed it
        _create(self._path, self._me)

  def release(self) -> None:
    with contextlib.suppress(OSError):  # the folder may be gone
      if _is_from(self._path, self._me):
        stores.remove(self._path)


@contextlib.contextmanager
def held(
  folder: str, mode: str, *, beside: bool = False, label: str = ""
) -> Iterator[Lock]:
  """Makes this process the only one that writes in a folder, inside a `with`.

  The folder is made, and removed at the end if nothing was written in it. The
  lock is gone after errors and SIGTERM, too.

  Args:
    folder: the folder.
    mode: what the process does, for the error that others get.
    beside: whether the lock is put beside the folder, which stays as it is.
    label: the folder as errors name it, like "workdir=DIR"; its path if empty.

  Raises:
    ValueError: another process writes there, or the folder cannot be written.
  """
  path, mine = _path(folder, beside), this_process(mode)
  label = label or folder
  try:
    is_url = stores.is_url(path)
    made = [] if is_url else _make_folders(os.path.dirname(path))
    taken_from = _take(path, label, mine)
  except OSError as error:
    raise ValueError(
      f"cannot write to {label} ({error.strerror}: {error.filename}): choose a"
      " directory you may write to"
    ) from error
  if taken_from:
    log.warning("WARNING: %s is taken over: %s", label, taken_from)
  lock = Lock(path, mine)
  seconds = STORE_BEAT_SECONDS if is_url else BEAT_SECONDS
  try:
    with pulse.kept(lock.beat, seconds, lock.release):
      yield lock
  finally:
    lock.release()
    with contextlib.suppress(OSError):  # the folder has files
      for parent in made:
        os.rmdir(parent)


def is_lock(name: str) -> bool:
  """Whether a name in a folder is that of its lock, or of one being made."""
  return name == _NAME or name.startswith(f"{_NAME}.")


def _path(folder: str, beside: bool) -> str:
  folder = stores.absolute(folder)
  if not beside:
    return os.path.join(folder, _NAME)
  real = folder if stores.is_url(folder) else os.path.realpath(folder)
  parent, name = os.path.split(real)
  return os.path.join(parent, f".{name}{_NAME}")


def _make_folders(folder: str) -> list[str]:
  """Makes a folder and those above it; returns the new ones, deepest first."""
  made = []
  while not os.path.isdir(folder) and folder not in made:
    made.append(folder)
    folder = os.path.dirname(folder)
  if made:
    os.makedirs(made[0], exist_ok=True)
  return made


def _take(path: str, label: str, mine: Holder) -> str:
  """Makes the lock file; returns words on the dead holder it was taken from.

  Raises:
    ValueError: it is held.
    OSError: it cannot be written.
  """
  for _ in range(_ATTEMPTS):
    if _create(path, mine):
      return ""
    seen = _look(path)
    if seen is None:
      continue
    death = death_of(seen, mine, _now(path, mine))
    if death is not None and _replace(path, seen, mine):
      return f"{_describe(seen.holder)} held it and {death}"
    if death is None and seen.holder is not None:
      raise ValueError(
        f"{label} is in use: {_describe(seen.holder)} writes there, says"
        f" {path}. Wait for its end or stop it, or name another folder; remove"
        " that file if it came with a copy of the folder"
      )
    time.sleep(_WAIT_SECONDS)
  raise ValueError(
    f"{path} was made by a process that does not say who it is, perhaps at this"
    f" moment: run the same command again in {SILENT_SECONDS:.0f} s"
  )


def _describe(holder: Holder | None) -> str:
  if holder is None:
    return "an unknown process"
  words = f"process {holder.pid} on {holder.host}, since {holder.since}"
  # A file of someone else may say anything, also to a terminal.
  words = f"{holder.mode} ({words})".encode(errors="replace").decode()
  return listing.text(words)


def has_died(folder: str, pid: int) -> bool:
  """Whether a process of this machine that wrote in a folder was killed.

  False where that cannot be seen: for processes of other machines, and for
  those that left in order.
  """
  try:
    seen = _look(_path(folder, beside=False))
  except OSError:
    return False
  holder = None if seen is None else seen.holder
  if holder is None or holder.pid != pid or holder.machine != _machine():
    return False
  return _start_of(pid) not in ("", holder.started)


def death_of(seen: _Seen, mine: Holder, now: float) -> str | None:
  """Words on how one knows that a holder is dead; None if it may live."""
  holder = seen.holder
  silent = now - seen.changed
  if holder is None or holder.machine != mine.machine:
    if abs(silent) < SILENT_SECONDS:
      return None
    if silent < 0:  # the clock was set back, or someone else set the time
      return "gave its last sign of life at a time that is still to come"
    return f"has given no sign of life for {silent:.0f} s"
  alive = _start_of(holder.pid) in ("", holder.started)
  return None if alive else "is dead"


def _create(path: str, mine: Holder) -> bool:
  """Makes a file that names this process; False if there is one already."""
  if stores.is_url(path):
    try:
      stores.create(path, _encoded(mine))
    except FileExistsError:
      # The answer to a request can be lost: repeated, it meets its own object.
      return _is_from(path, mine) is True
    return True
  try:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o644)
  except FileExistsError:
    return False
  try:
    os.write(descriptor, _encoded(mine))
  finally:
    os.close(descriptor)
  return True


def _encoded(holder: Holder) -> bytes:
  return json.dumps(dataclasses.asdict(holder)).encode()


def _look(path: str) -> _Seen | None:
  """Reads a lock file; None if there is none.

  Raises:
    OSError: it is a link or no regular file.
  """
  if stores.is_url(path):
    try:
      return _Seen(_holder(stores.read(path)), stores.changed(path) / 1e9)
    except FileNotFoundError:
      return None
  try:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = os.open(path, flags)
  except FileNotFoundError:
    return None
  try:
    # An open file has the times that the server of a network disk has.
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
      raise OSError(errno.EINVAL, "no regular file", path)
    text = os.read(descriptor, _LONGEST)
  finally:
    os.close(descriptor)
  return _Seen(_holder(text), status.st_mtime)


def _holder(text: bytes) -> Holder | None:
  """The process that a lock file names; None for a damaged one."""
  try:
    holder = Holder(**json.loads(text[:_LONGEST]))
    words = (v for k, v in dataclasses.asdict(holder).items() if k != "pid")
    if not isinstance(holder.pid, int) or holder.pid < 1:
      holder = None
    elif not all(isinstance(word, str) for word in words):
      holder = None
  except (ValueError, TypeError, RecursionError):
    holder = None
  return holder


def _is_from(path: str, mine: Holder) -> bool | None:
  """Whether a lock file names this process; None if there is none."""
  seen = _look(path)
  return None if seen is None else seen.holder == mine


def _now(path: str, mine: Holder) -> float:
  """The time by the clock of the file system, which may be another's."""
  probe = f"{path}.{mine.token}"
  _create(probe, mine)
  try:
    return stores.changed(probe) / 1e9
  finally:
    stores.remove(probe)


def _replace(path: str, seen: _Seen, mine: Holder) -> bool:
  """Puts this process in place of a dead holder; False if another was faster.

  The file `path`.next keeps two processes from doing so at once: one of them
  would replace what the other has just written.
  """
  claim = f"{path}.next"
  if not _create(claim, mine):
    other = _look(claim)
    now = _now(path, mine)
    if other is not None and now - other.changed > SILENT_SECONDS:
      stores.remove(claim)  # its process was killed between the next lines
    return False
  try:
    if _look(path) != seen:
      return False
    if stores.is_url(path):
      stores.write(path, _encoded(mine))
    else:
      os.replace(claim, path)
  finally:
    stores.remove(claim, missing_ok=True)
  return _is_from(path, mine) is True


def this_process(mode: str) -> Holder:
  now = datetime.datetime.now(datetime.UTC)
  return Holder(
    mode=mode,
    host=socket.gethostname(),
    machine=_machine(),
    pid=os.getpid(),
    started=_start_of(os.getpid()) or "",
    since=f"{now:%Y-%m-%d %H:%M:%S} UTC",
    token=secrets.token_hex(16),
  )


def _machine() -> str:
  """Names a running kernel and its view of process ids, as containers have."""
  try:
    with open("/proc/sys/kernel/random/boot_id") as f:
      return f"{f.read().strip()} {os.readlink('/proc/self/ns/pid')}"
  except OSError:  # not Linux
    return socket.gethostname()


def _start_of(pid: int) -> str | None:
  """When a process of this machine started; None if it is dead, "" if hidden.

  Process ids are given anew, so that the id alone says little.
  """
  try:
    os.kill(pid, 0)
  except (ProcessLookupError, OverflowError):
    return None
  except PermissionError:  # it is another user's
    pass
  try:
    with open(f"/proc/{pid}/stat") as f:
      fields = f.read().rpartition(")")[2].split()
  except OSError:  # not Linux, or processes of others are hidden
    return ""
  dead = fields[0] in ("Z", "X")  # only its parent does not know yet
  return None if dead else fields[19]
