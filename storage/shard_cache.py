"""Parts of the shards of a store, kept on a disk of this machine.

Records are read in random order and each by the range of its bytes, when a
batch needs it: nothing is got beforehand. What was got is kept in blocks of 256
KiB, within a bound, for later epochs and runs. All processes of a machine share
the folder and the bound:

  MAGVIT_SHARD_CACHE     folder; default: magvit/shards in $XDG_CACHE_HOME, or
                         in ~/.cache
  MAGVIT_SHARD_CACHE_GB  bound in GB (10^9 bytes); default 10; 0 keeps nothing

  lock              held by the process that adds or removes blocks
  count             number of blocks
  fetching-017      held by the process that gets a block; others wait for it
  new               block that is being written; renamed when it is whole
  SET/lease         locked (shared) by each process that reads the set; its time
                    of change is that of the set's last use
  SET/00003-000017  block 17 of shard 3

SET is a checksum of the sizes and checksums in the manifest, so that a set that
was made anew has other blocks. Where there is no room, the blocks of sets that
no process reads are removed, those first that were used longest ago. Blocks of
a set that is being read stay: if the set is larger than the bound, then a part
of it is kept and the rest is read from the store each time, in ranges of single
records. That serves training better than to replace the blocks used longest
ago: with room for half of a set, half of the reads of a shuffled epoch find
their block instead of one in seven.

The price: while there is room, a read gets at least a block, so that small
records bring their neighbours along. A block that a cut of power has damaged is
known by the checksums of the records in it (`forget`).
"""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import dataclasses
import fcntl
import logging
import math
import os
import shutil
import threading
import time
import zlib

from storage import paths

log = logging.getLogger(__name__)

FOLDER, GIGABYTES = "MAGVIT_SHARD_CACHE", "MAGVIT_SHARD_CACHE_GB"
BLOCK_BYTES = 2**18
_NAME_BYTES = 2**12  # counted with each block, for its name in the file system
_DEFAULT_GIGABYTES = 10.0
_STRIPES = 256  # number of the files fetching-...
_LOCK_SECONDS = 10.0  # wait for `lock`; then a block is not kept
_FETCH_SECONDS = 120.0  # wait for another process; then the block is got twice
_FULL_SECONDS = 60.0  # for which no room is looked for after none was there
_POLL_SECONDS = 0.01


@dataclasses.dataclass(frozen=True)
class Settings:
  """Where blocks are kept, and how many bytes they and their names may take."""

  folder: str
  most_bytes: int

  @property
  def most_blocks(self) -> int:
    return self.most_bytes // (BLOCK_BYTES + _NAME_BYTES)


def settings() -> Settings:
  """The settings of this machine; ValueError that names a variable."""
  default = os.path.join(paths.user_cache(), "magvit", "shards")
  folder = os.environ.get(FOLDER) or default
  if not os.path.isabs(folder):
    raise ValueError(
      f"{FOLDER}={folder} must be an absolute path, for all processes of the"
      " machine share that folder"
    )
  text = os.environ.get(GIGABYTES) or str(_DEFAULT_GIGABYTES)
  try:
    gigabytes = float(text)
  except ValueError:
    gigabytes = math.nan
  made = Settings(folder, int(gigabytes * 1e9) if gigabytes < 1e9 else -1)
  if not gigabytes >= 0 or made.most_bytes < 0:
    raise ValueError(
      f"{GIGABYTES}={text} must be a number of GB, like 10, or 0 to keep no"
      " shards of stores on this machine"
    )
  if made.most_bytes and not made.most_blocks:
    raise ValueError(
      f"{GIGABYTES}={text} has no room for one block of"
      f" {BLOCK_BYTES + _NAME_BYTES} bytes: set it to 0, or to 0.001 at least"
    )
  return made


class Reader:
  """Reads ranges of the shards of one set, through the blocks at hand."""

  def __init__(
    self,
    name: str,
    sizes: list[int],
    fetch: Callable[[int, int, int], bytes],
    settings: Settings,
  ):
    """Opens nothing yet.

    Args:
      name: name of the set's folder, other for other contents.
      sizes: bytes of each shard.
      fetch: returns the bytes of a shard's number from a start to an end.
      settings: where blocks are kept.
    """
    self._folder = os.path.join(settings.folder, name)
    self._sizes, self._fetch, self._settings = sizes, fetch, settings
    self._lease: _Lease | None = None
    self._full_until = -math.inf if settings.most_blocks else math.inf
    self._opening = threading.Lock()

  def __getstate__(self):
    # Processes that grain starts hold leases of their own.
    state = {**self.__dict__, "_lease": None}
    del state["_opening"]
    return state

  def __setstate__(self, state):
    self.__dict__.update(state, _opening=threading.Lock())

  def read(self, number: int, start: int, end: int) -> bytes:
    """The bytes of a shard from `start` to `end`, not including it.

    Raises:
      OSError, ValueError: those of `fetch`.
    """
    blocks = range(start // BLOCK_BYTES, -(-end // BLOCK_BYTES))
    pieces = self._held(number, blocks, start, end) if self._is_open() else {}
    if len(pieces) < len(blocks):
      if time.monotonic() < self._full_until:
        return self._fetch(number, start, end)
      name = self._path(number, blocks[0]).encode()
      stripe = zlib.crc32(name) % _STRIPES  # the same in all processes
      with self._one_of_all(stripe):
        # Another process may have got them.
        pieces = self._held(number, blocks, start, end)
        got = self._got(number, [b for b in blocks if b not in pieces])
        pieces |= {b: data[_part(b, start, end)] for b, data in got.items()}
    return b"".join(pieces[block] for block in blocks)

  def forget(self, number: int, start: int, end: int) -> None:
    """Removes blocks that turned out to be damaged."""
    for block in range(start // BLOCK_BYTES, -(-end // BLOCK_BYTES)):
      with contextlib.suppress(OSError), _locked(self._settings) as held:
        if held:
          os.remove(self._path(number, block))
          _set_count(self._settings, _count(self._settings) - 1)

  def _path(self, number: int, block: int) -> str:
    return os.path.join(self._folder, f"{number:05}-{block:06}")

  def _size(self, number: int, block: int) -> int:
    return min(BLOCK_BYTES, self._sizes[number] - block * BLOCK_BYTES)

  def _held(
    self, number: int, blocks: range, start: int, end: int
  ) -> dict[int, bytes]:
    """The range's part of each block that is on the disk."""
    held = {}
    for block in blocks:
      part = _part(block, start, end)
      with contextlib.suppress(OSError):
        with open(self._path(number, block), "rb", buffering=0) as f:
          # A cut of power can leave less than was written.
          if os.fstat(f.fileno()).st_size == self._size(number, block):
            f.seek(part.start)
            held[block] = f.read(part.stop - part.start)
    return held

  def _is_open(self) -> bool:
    """Whether there is a folder of blocks; the first call takes the lease."""
    if self._lease is None and self._full_until < math.inf:
      with self._opening:
        try:
          self._lease = self._lease or _Lease(self._settings, self._folder)
        except OSError as error:
          self._give_up(error)
    return self._lease is not None

  def _give_up(self, error: OSError) -> None:
    """Reads everything from the store from now on."""
    self._full_until = math.inf
    log.warning(
      "nothing more is kept in %s (%s), and records are read from the store"
      " each time: set %s to a folder on a disk with room, or %s=0",
      *(self._settings.folder, error.strerror or error, FOLDER, GIGABYTES),
    )

  @contextlib.contextmanager
  def _one_of_all(self, stripe: int) -> Iterator[None]:
    """Lets one process get a block while others wait, within a bound."""
    path = os.path.join(self._settings.folder, f"fetching-{stripe:03}")
    with contextlib.ExitStack() as stack:
      with contextlib.suppress(OSError):
        stack.enter_context(_flock(path, _FETCH_SECONDS))
      yield

  def _got(self, number: int, blocks: list[int]) -> dict[int, bytes]:
    """Blocks from the store, kept if there is room; in one request."""
    if not blocks:
      return {}
    start = blocks[0] * BLOCK_BYTES
    end = blocks[-1] * BLOCK_BYTES + self._size(number, blocks[-1])
    data = self._fetch(number, start, end)
    got = {
      block: data[block * BLOCK_BYTES - start :][:BLOCK_BYTES]
      for block in range(blocks[0], blocks[-1] + 1)
    }
    for block in blocks:
      if time.monotonic() < self._full_until:
        break
      try:
        self._keep(number, block, got[block])
      except OSError as error:
        self._give_up(error)
        break
    return got

  def _keep(self, number: int, block: int, data: bytes) -> None:
    """Writes a block, unless there is no room.

    All is done under the lock. A process that is killed on the way has counted
    a block too many, which is seen when there is no room, and leaves `new`,
    which is counted as that block and written over by the next process.
    """
    with _locked(self._settings) as held:
      path = self._path(number, block)
      if not held:
        return
      if not os.path.exists(path):  # else it was cut, and is replaced
        if not _make_room(self._settings, self._folder):
          self._full_until = time.monotonic() + _FULL_SECONDS
          return
        _set_count(self._settings, _count(self._settings) + 1)
      os.makedirs(self._folder, exist_ok=True)
      new = os.path.join(self._settings.folder, "new")
      try:
        with open(new, "wb") as f:
          f.write(data)
        os.replace(new, path)
      except OSError:
        with contextlib.suppress(OSError):
          os.remove(new)
        raise


def _part(block: int, start: int, end: int) -> slice:
  """The part of a block that a range from `start` to `end` covers."""
  first = block * BLOCK_BYTES
  return slice(max(start - first, 0), min(end - first, BLOCK_BYTES))


class _Lease:
  """Keeps a set from being removed, as long as the object lives."""

  def __init__(self, settings: Settings, folder: str):
    """Makes the folders; OSError if they cannot be written."""
    self._descriptor = -1
    os.makedirs(settings.folder, mode=0o700, exist_ok=True)
    # The lock keeps another process from removing the folder meanwhile.
    with _locked(settings) as held:
      if not held:
        raise TimeoutError(f"{settings.folder} was locked for long")
      os.makedirs(folder, exist_ok=True)
      path = os.path.join(folder, "lease")
      self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
      fcntl.flock(self._descriptor, fcntl.LOCK_SH)
      os.utime(path)
      _recount(settings)
      _shrink(settings, folder)

  def __del__(self):
    if self._descriptor >= 0:
      os.close(self._descriptor)


@contextlib.contextmanager
def _flock(path: str, seconds: float) -> Iterator[bool]:
  """Locks a file against other threads and processes; False if in vain."""
  descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
  try:
    yield _lock(descriptor, time.monotonic() + seconds)
  finally:
    os.close(descriptor)


def _lock(descriptor: int, until: float) -> bool:
  while True:
    try:
      fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
      return True
    except BlockingIOError:
      if time.monotonic() > until:
        return False
      time.sleep(_POLL_SECONDS)


def _locked(settings: Settings):
  """Lets one thread of one process add or remove blocks; False if in vain."""
  return _flock(os.path.join(settings.folder, "lock"), _LOCK_SECONDS)


def _count(settings: Settings) -> int:
  try:
    with open(os.path.join(settings.folder, "count")) as f:
      return int(f.read())
  except (FileNotFoundError, ValueError):
    return _recount(settings)


def _set_count(settings: Settings, count: int) -> None:
  path = os.path.join(settings.folder, "count")
  descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
  try:
    # Each number has one length, so that a kill leaves this one or that.
    os.pwrite(descriptor, f"{count:020}\n".encode(), 0)
  finally:
    os.close(descriptor)


def _sets(settings: Settings) -> list[os.DirEntry]:
  with os.scandir(settings.folder) as entries:
    return [entry for entry in entries if entry.is_dir(follow_symlinks=False)]


def _recount(settings: Settings) -> int:
  """Counts the blocks by their names: people may have removed some."""
  with contextlib.suppress(FileNotFoundError):
    os.remove(os.path.join(settings.folder, "new"))
  count = sum(len(_blocks(entry.path)) for entry in _sets(settings))
  _set_count(settings, count)
  return count


def _blocks(folder: str) -> list[str]:
  return [name for name in os.listdir(folder) if name != "lease"]


def _make_room(settings: Settings, mine: str, blocks: int = 1) -> bool:
  """Makes room for blocks if there is none; whether there is, then.

  Args:
    settings: the folder and its bound.
    mine: folder of the set that needs it.
    blocks: number of blocks that will be added.
  """
  most = settings.most_blocks - blocks
  if _count(settings) <= most or _recount(settings) <= most:
    return True
  others = [entry for entry in _sets(settings) if entry.path != mine]
  for entry in sorted(others, key=_last_use):
    if _is_idle(entry.path):
      shutil.rmtree(entry.path)
      if _recount(settings) <= most:
        return True
  return False


def _shrink(settings: Settings, mine: str) -> None:
  """Removes what is above a bound that was lowered."""
  if _make_room(settings, mine, blocks=0):
    return
  surplus = _recount(settings) - settings.most_blocks
  for entry in _sets(settings):
    for name in _blocks(entry.path)[:surplus]:
      os.remove(os.path.join(entry.path, name))
      surplus -= 1
  _recount(settings)


def _last_use(entry: os.DirEntry) -> float:
  try:
    return os.stat(os.path.join(entry.path, "lease")).st_mtime
  except OSError:
    return 0.0


def _is_idle(folder: str) -> bool:
  """Whether no process reads a set."""
  try:
    with _flock(os.path.join(folder, "lease"), 0.0) as held:
      return held
  except OSError:
    return False
