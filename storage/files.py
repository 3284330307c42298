"""Files that are whole or absent, and written nowhere else than they say.

All files and folders of this program are made here; `storage/stores.py` sends
those of object stores, which a URL names. A folder may come from someone else
(an archive, a shared disk), so what lies in it is not trusted: no name can be
guessed before a file is there, no existing file is opened to be written, and no
symbolic link below the folder that the user named is followed (`inside`,
`own_folder`). That folder itself may be a link.
"""

from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import errno
import functools
import hashlib
import json
import os
import pathlib
import secrets
import shutil
import tempfile
from typing import Any
from typing import TextIO

import numpy as np

from storage import schema
from storage import stores

_PREFIX, _SUFFIX = ".magvit-", ".tmp"  # names of what is not whole yet
_STALE_SECONDS = 24 * 3600


@contextlib.contextmanager
def published(
  path: str | os.PathLike, *, replace: bool = True
) -> Iterator[pathlib.Path]:
  """Yields an empty file to write to, which is then renamed to `path`.

  An exception leaves the file of before. A kill does so, too, and a hidden
  temporary file beside it, which a process removes that writes into the folder
  a day later. If `path` is a link, then it is replaced and not followed.
  Missing folders are made.

  Args:
    path: name of the file once it is whole.
    replace: whether an existing file is replaced.

  Raises:
    FileExistsError: the file exists and may not be replaced.
    OSError: it cannot be written; names it, also where the disk is full.
  """
  if stores.is_url(path):
    with _sent(os.fspath(path), replace) as file:
      yield file
    return
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  # The temporary file lies in the same folder, for a rename is atomic within
  # one file system only.
  temporary = _new_name(path.parent)
  os.close(_create(temporary))
  try:
    _remove_stale_once(path.parent.resolve())
    with naming(path):
      yield temporary
      descriptor = os.open(temporary, os.O_RDONLY | os.O_NOFOLLOW)
      try:
        os.fsync(descriptor)
      finally:
        os.close(descriptor)
    if replace:
      os.replace(temporary, path)
    else:
      os.link(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _sent(url: str, replace: bool) -> Iterator[pathlib.Path]:
  """Yields an empty file to write to, which then becomes an object."""
  with tempfile.TemporaryDirectory(prefix="magvit-") as folder:
    file = pathlib.Path(folder) / "file"
    os.close(_create(file))
    yield file
    if replace:
      stores.send(file, url)
    else:
      stores.create(url, file.read_bytes())


@contextlib.contextmanager
def naming(path: str | os.PathLike) -> Iterator[None]:
  """Adds the path to errors of writing that lack one, as of a full disk."""
  try:
    yield
  except OSError as error:
    if error.errno is None or error.filename is not None:
      raise
    raise OSError(error.errno, error.strerror, os.fspath(path)) from error


@contextlib.contextmanager
def published_folder(
  path: str | os.PathLike, last: str = ""
) -> Iterator[pathlib.Path]:
  """Yields an empty folder to fill, which is then renamed to `path`.

  An exception leaves nothing, as `published` does. A store cannot rename: there
  the files are sent one by one, once all are written, and `last` after all
  others, so that a folder that has it is whole.

  Args:
    path: the folder.
    last: name of the file that comes last in a store.

  Raises:
    OSError: there is something else than an empty folder at `path`.
  """
  if stores.is_url(path):
    with tempfile.TemporaryDirectory(prefix="magvit-") as folder:
      yield pathlib.Path(folder)
      stores.send_folder(folder, os.fspath(path), last)
    return
  path = pathlib.Path(os.path.realpath(path))
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = _new_name(path.parent)
  temporary.mkdir()
  try:
    _remove_stale_once(path.parent)
    yield temporary
    os.rename(temporary, path)
  finally:
    shutil.rmtree(temporary, ignore_errors=True)


def _new_name(folder: pathlib.Path) -> pathlib.Path:
  return folder / f"{_PREFIX}{secrets.token_hex(16)}{_SUFFIX}"


def _create(path: pathlib.Path) -> int:
  """Descriptor of a file that was not there, with the usual permissions."""
  flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
  return os.open(path, flags, 0o666)


def is_temporary(name: str) -> bool:
  """Whether a name is that of a file or folder that is not whole yet."""
  return name.startswith(_PREFIX) and name.endswith(_SUFFIX)


@functools.cache
def _remove_stale_once(folder: pathlib.Path) -> None:
  remove_stale(folder)


def remove_stale(
  folder: str | os.PathLike, seconds: float = _STALE_SECONDS
) -> None:
  """Removes what killed processes left of files they had not finished.

  Args:
    folder: folder in which they were written; those below are left alone.
    seconds: time without a change after which no process can be at work on a
      file; 0 if the caller knows that no other process writes here.
  """
  probe = _new_name(pathlib.Path(folder))
  with contextlib.suppress(OSError):
    # The file system's own clock, which may not be this machine's.
    descriptor = _create(probe)
    now = os.fstat(descriptor).st_mtime
    os.close(descriptor)
    probe.unlink()
    for entry in os.scandir(folder):
      if not is_temporary(entry.name):
        continue
      if now - entry.stat(follow_symlinks=False).st_mtime < seconds:
        continue
      if entry.is_dir(follow_symlinks=False):
        shutil.rmtree(entry.path, ignore_errors=True)
      else:
        pathlib.Path(entry.path).unlink(missing_ok=True)


def check_writable(folder: str | os.PathLike) -> None:
  """Makes a folder unless it is there; OSError if no file can be made in it."""
  if stores.is_url(folder):
    url = f"{os.fspath(folder)}/{_new_name(pathlib.Path())}"
    stores.create(url, b"")
    stores.remove(url)
    return
  os.makedirs(folder, exist_ok=True)
  probe = _new_name(pathlib.Path(folder))
  os.close(_create(probe))
  probe.unlink()


def is_full(error: BaseException) -> bool:
  """Whether no other file can be written either."""
  full = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
  return getattr(error, "errno", None) in full


def claim_folder(path: str | os.PathLike) -> bool:
  """Makes a folder for the caller alone; False if another has made it."""
  if stores.is_url(path):
    try:
      stores.create(f"{os.fspath(path)}/.claimed", b"")
    except FileExistsError:
      return False
    return True
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  try:
    path.mkdir()
  except FileExistsError:
    return False
  return True


def inside(root: str | os.PathLike, *names: str) -> str:
  """Path below a folder that the user named, for reading and writing.

  Raises:
    ValueError: the names lead out of it; or a folder on the way, or what the
      path names, is a link.
  """
  path, below = os.fspath(root), pathlib.PurePath(*names)
  if below.is_absolute() or ".." in below.parts:
    raise ValueError(f"{below} must be the name of something inside of {path}")
  if stores.is_url(path):  # which has no links
    return os.path.join(path, below)
  for part in below.parts:
    path = os.path.join(path, part)
    _refuse_link(path)
  return path


def own_folder(root: str | os.PathLike, *names: str) -> str:
  """Makes a folder below `root` that another library may write into.

  Libraries follow links and choose names that can be guessed, so that the
  folder must hold no link at any depth.

  Raises:
    ValueError: a folder on the way is a link, or the folder holds one.
  """
  folder = inside(root, *names)
  if stores.is_url(folder):
    return folder
  os.makedirs(folder, exist_ok=True)
  for parent, folders, others in os.walk(folder):
    for name in (*folders, *others):
      _refuse_link(os.path.join(parent, name))
  return folder


def _refuse_link(path: str) -> None:
  if os.path.islink(path):
    raise ValueError(
      f"{path} is a symbolic link, and nothing is read or written through links"
      " inside of a workdir or an output: put the folder or file itself in its"
      " place (--workdir and --output may be links)"
    )


def append_to(path: str | os.PathLike) -> TextIO:
  """Opens a text file to append lines; OSError if it is a link."""
  flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
  return os.fdopen(os.open(path, flags, 0o666), "a")


def write_atomically(
  path: str | os.PathLike, data: str | bytes, *, replace: bool = True
) -> pathlib.Path | str:
  """Writes a file with `published`; returns the path, or the URL as it is."""
  with published(path, replace=replace) as temporary:
    temporary.write_bytes(data.encode() if isinstance(data, str) else data)
  url = os.fspath(path)
  return url if stores.is_url(url) else pathlib.Path(url)


def write_json(path: str | os.PathLike, value: Any) -> pathlib.Path | str:
  """Writes a value as indented JSON with `published`; returns the path."""
  return write_atomically(path, json.dumps(value, indent=2) + "\n")


def read_json(path: str | os.PathLike) -> Any:
  """The value of a JSON file; see `schema.read`, and `schema.load` for more."""
  return schema.read(path)


def write_npz(
  path: str | os.PathLike, arrays: Mapping[str, np.ndarray]
) -> None:
  """Writes arrays as an uncompressed .npz with `published`."""
  with published(path) as temporary, open(temporary, "wb") as f:
    np.savez(f, allow_pickle=True, **arrays)


def sha256(*paths: str | os.PathLike) -> str:
  """Hexadecimal checksum of the bytes of one file, or of several in turn."""
  digest = hashlib.sha256()
  for path in paths:
    with stores.opened(path) as f:
      hashlib.file_digest(f, lambda: digest)
  return digest.hexdigest()
