"""Files and folders of disks and of object stores, by one set of functions.

A path is used as `os` uses it. A URL, like gs://BUCKET/FOLDER, s3:// or any
other that fsspec knows, names objects. An object is written whole or not at
all; there are no links; and a folder is there as long as an object lies below
it. So what needs a file on a disk, a memory map for example, reads a copy
(`fetched`), and what writes one sends it when it is whole (`files.published`).

Credentials are objects as the libraries of the stores find them. A request that
fails for a while is repeated; what stays is one OSError with the remedy.
"""

import atexit
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
import contextlib
import datetime
import errno
import os
import posixpath
import shutil
import tempfile
import threading
from typing import Any

from storage import store_calls
from storage.store_calls import is_url

_KEYS = ("generation", "etag", "ETag", "mtime", "LastModified", "created")


def absolute(path: str) -> str:
  """As `os.path.abspath`; a URL without a slash at its end."""
  return path.rstrip("/") if is_url(path) else os.path.abspath(path)


def exists(path: str | os.PathLike) -> bool:
  """Whether there is a file or folder."""
  url = os.fspath(path)
  return _kind(url) != "" if is_url(url) else os.path.exists(url)


def is_file(path: str | os.PathLike) -> bool:
  url = os.fspath(path)
  return _kind(url) == "file" if is_url(url) else os.path.isfile(url)


def is_folder(path: str | os.PathLike) -> bool:
  url = os.fspath(path)
  return _kind(url) == "directory" if is_url(url) else os.path.isdir(url)


def names(folder: str) -> list[str]:
  """Names in a folder, in any order.

  A folder of a store that is not there has none, since it needs not be made.

  Raises:
    FileNotFoundError: there is no such folder of a disk.
  """
  if not is_url(folder):
    return os.listdir(folder)
  try:
    listed = store_calls.tried(folder, lambda fs: fs.ls(folder, detail=True))
  except FileNotFoundError:
    return []
  held = {posixpath.basename(x["name"].rstrip("/")) for x in listed}
  here = {x["name"].rstrip("/") for x in listed}
  # Some stores list a folder, or an object of its very name, in itself.
  if here == {_key(folder)}:
    return []
  return sorted(held - {""})


def sizes(folder: str) -> dict[str, int]:
  """Bytes of each object in a folder of a store and below, by its name there.

  Empty if there is no such folder.
  """
  return {name: size for name, (size, _) in _found(folder).items()}


def size(path: str) -> int:
  """Bytes of a file."""
  return int(_info(path)["size"]) if is_url(path) else os.path.getsize(path)


def changed(path: str) -> int:
  """Time of the last change of a file in nanoseconds, by the store's clock."""
  if not is_url(path):
    return os.stat(path).st_mtime_ns
  time_ = store_calls.tried(path, lambda fs: fs.modified(path))
  return int(time_.timestamp() * 1e9)


def read(path: str | os.PathLike) -> bytes:
  """The bytes of a file; FileNotFoundError if there is none."""
  url = os.fspath(path)
  if is_url(url):
    return store_calls.tried(url, lambda fs: fs.cat_file(url))
  with open(url, "rb") as f:
    return f.read()


@contextlib.contextmanager
def opened(path: str | os.PathLike) -> Iterator[Any]:
  """Opens a file to read its bytes in order, with a part of it in memory."""
  url = os.fspath(path)
  if is_url(url):
    f = store_calls.tried(url, lambda fs: fs.open(url, "rb"))
  else:
    f = open(url, "rb")  # noqa: SIM115  it is closed below
  with f:
    yield f


def write(url: str, data: bytes) -> None:
  """Writes an object, in place of one that is there."""
  store_calls.written(url, lambda fs: fs.pipe_file(url, data))


def create(url: str, data: bytes) -> None:
  """Writes an object of a new name; FileExistsError if there is one.

  Of several processes that do so at once the store lets one alone succeed.
  """
  store_calls.written(url, lambda fs: fs.pipe_file(url, data, mode="create"))


def send(file: str | os.PathLike, url: str) -> None:
  """Writes an object from a file, in place of one that is there."""
  store_calls.written(url, lambda fs: fs.put_file(os.fspath(file), url))


def send_folder(
  folder: str, url: str, last: str = "", only: Iterable[str] | None = None
) -> None:
  """Writes an object for each file in a folder and below.

  Args:
    folder: a folder of a disk.
    url: the folder of the store.
    last: name of the file that is sent after all others are there, so that a
      folder that has it is whole.
    only: names of the files to send; None for all.
  """
  held = sorted(only) if only is not None else sorted(_files(folder))
  first = [name for name in held if name != last]
  ours = [os.path.join(folder, name) for name in first]
  there = [f"{url}/{name}" for name in first]
  if first:
    store_calls.written(url, lambda fs: fs.put(ours, there))
  if last in held:
    send(os.path.join(folder, last), f"{url}/{last}")


def remove(path: str, missing_ok: bool = False) -> None:
  """Removes a file; FileNotFoundError if there is none.

  s3:// does not say whether there was one.
  """
  try:
    if is_url(path):
      store_calls.tried(path, lambda fs: fs.rm_file(path))
    else:
      os.remove(path)
  except FileNotFoundError:
    if not missing_ok:
      raise


def remove_folder(path: str, first: str = "") -> None:
  """Removes a folder and all in it.

  Args:
    path: the folder.
    first: name of the object that goes before all others, whose presence says
      that the folder is whole.
  """
  if not is_url(path):
    shutil.rmtree(path)
    return
  if first:
    remove(f"{path}/{first}", missing_ok=True)
  with contextlib.suppress(FileNotFoundError):
    store_calls.tried(path, lambda fs: fs.rm(path, recursive=True))


def move_folder(source: str, target: str, first: str = "") -> None:
  """Moves a folder; `first` as in `remove_folder`, which comes there last."""
  if not is_url(source):
    shutil.move(source, target)
    return
  for name in sorted(sizes(source), key=lambda name: name == first):
    store_calls.written(
      target, lambda fs, n=name: fs.cp_file(f"{source}/{n}", f"{target}/{n}")
    )
  remove_folder(source, first)


class _Copies:
  """Copies of objects that this process has read, in a folder of its own."""

  def __init__(self):
    self._folder, self._held = "", {}
    self._lock = threading.RLock()

  def fetched(self, url: str, identity: Any, seconds: float) -> str:
    """Path of the copy of an object, which is got unless it is at hand."""
    with self._lock:
      known = self._held.get(url)
      if known is not None and known[0] == identity:
        return known[1]
      path = os.path.join(self.folder(), f"{len(self._held)}", _name(url))
      os.makedirs(os.path.dirname(path), exist_ok=True)
      store_calls.tried(url, lambda fs: fs.get_file(url, path))
      os.utime(path, (seconds, seconds))
      self._held[url] = (identity, path)
      return path

  def folder(self) -> str:
    with self._lock:
      if not self._folder:
        self._folder = tempfile.mkdtemp(prefix="magvit-")
        atexit.register(shutil.rmtree, self._folder, ignore_errors=True)
      return self._folder


_copies = _Copies()


def fetched(path: str | os.PathLike) -> str:
  """Path of a file on a disk: this one, or the copy of an object.

  The copy is kept until the process ends, or the object has changed. It has the
  object's time of change.

  Raises:
    FileNotFoundError: there is no such object.
  """
  url = os.fspath(path)
  if not is_url(url):
    return url
  info = _info(url)
  if info["type"] != "file":
    raise IsADirectoryError(errno.EISDIR, "it is a folder, not a file", url)
  return _copies.fetched(url, _identity(info), _seconds(info))


def fetched_folder(
  path: str, wanted: Callable[[str], bool] = lambda name: True
) -> str:
  """Path of a folder on a disk: this one, or a copy of one of a store.

  Args:
    path: a path or a URL.
    wanted: which files are copied, by their names in the folder.
  """
  if not is_url(path):
    return path
  folder = os.path.join(
    tempfile.mkdtemp(dir=_copies.folder()), _name(absolute(path))
  )
  os.makedirs(folder)
  objects = {n: x for n, x in _found(path).items() if wanted(n)}
  for name in objects:
    if os.path.isabs(name) or ".." in name.split("/"):
      raise OSError(errno.EINVAL, "its name leads out of its folder", name)
    os.makedirs(os.path.dirname(os.path.join(folder, name)), exist_ok=True)
  there = [f"{absolute(path)}/{name}" for name in objects]
  ours = [os.path.join(folder, name) for name in objects]
  if there:
    store_calls.tried(path, lambda fs: fs.get(there, ours))
  for name, (_, seconds) in objects.items():
    os.utime(os.path.join(folder, name), (seconds, seconds))
  return folder


class Outbox:
  """A folder that libraries write into, whose files are sent to a store.

  Of a path of a disk it is that folder itself.

  Attributes:
    folder: path of the folder on a disk.
  """

  def __init__(self, target: str):
    self._target, self._sent = target, {}
    self.folder = target
    if is_url(target):
      self.folder = tempfile.mkdtemp(dir=_copies.folder())

  def push(self) -> None:
    """Sends the files that have changed since the last time."""
    if self.folder == self._target:
      return
    now = {name: _state(self.folder, name) for name in _files(self.folder)}
    news = [
      name for name, state in now.items() if self._sent.get(name) != state
    ]
    send_folder(self.folder, self._target, only=news)
    self._sent = now


def _state(folder: str, name: str) -> tuple[int, int]:
  status = os.stat(os.path.join(folder, name))
  return status.st_size, status.st_mtime_ns


def _files(folder: str) -> list[str]:
  """Names of the files in a folder of a disk and below."""
  return [
    os.path.relpath(os.path.join(parent, name), folder)
    for parent, _, held in os.walk(folder)
    for name in held
  ]


def _name(url: str) -> str:
  return posixpath.basename(url.rstrip("/")) or "root"


def _key(url: str) -> str:
  """The name of an object as its file system lists it."""
  return store_calls.stripped(url).rstrip("/")


def _found(folder: str) -> dict[str, tuple[int, float]]:
  """(bytes, seconds of change) of the objects below a folder, by name."""
  try:
    objects = store_calls.tried(folder, lambda fs: fs.find(folder, detail=True))
  except FileNotFoundError:
    return {}
  start = _key(folder) + "/"
  return {
    name.removeprefix(start): (int(info["size"]), _seconds(info))
    for name, info in sorted(objects.items())
    if name.startswith(start) and not name.endswith("/")
  }


def _info(url: str) -> dict[str, Any]:
  return store_calls.tried(url, lambda fs: fs.info(url))


def _kind(url: str) -> str:
  """ "file", "directory" or "" of nothing."""
  try:
    return _info(url)["type"]
  except (FileNotFoundError, NotADirectoryError):
    return ""


def _identity(info: dict[str, Any]) -> tuple[str, ...]:
  return tuple(str(info.get(key)) for key in ("size", *_KEYS))


def _seconds(info: dict[str, Any]) -> float:
  """Time of the last change of an object; 0 if the store does not say."""
  for key in ("mtime", "LastModified", "created"):
    value = info.get(key)
    if isinstance(value, int | float):
      return float(value)
    if isinstance(value, datetime.datetime):
      return value.timestamp()
  return 0.0
