"""Files that are whole or absent."""

from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import hashlib
import json
import os
import pathlib
from typing import Any

import numpy as np


@contextlib.contextmanager
def published(
  path: str | os.PathLike, *, one_writer: bool = False, replace: bool = True
) -> Iterator[pathlib.Path]:
  """Yields a path to write to; the whole file is then renamed to `path`.

  A kill or an exception leaves the file of before. Missing folders are made.

  Args:
    path: name of the file once it is whole.
    one_writer: whether no other process writes this file; the next attempt then
      overwrites what a kill left behind.
    replace: whether an existing file is replaced.

  Raises:
    FileExistsError: the file exists and may not be replaced.
  """
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  # The temporary file lies in the same folder, for a rename is atomic within
  # one file system only.
  middle = "" if one_writer else f".{os.getpid()}"
  temporary = path.with_name(f".{path.name}{middle}.tmp")
  try:
    yield temporary
    with open(temporary, "rb") as f:
      os.fsync(f.fileno())
    if replace:
      os.replace(temporary, path)
    else:
      os.link(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)


def write_atomically(
  path: str | os.PathLike, data: str | bytes, *, replace: bool = True
) -> pathlib.Path:
  """Writes a file with `published`; returns the path."""
  with published(path, replace=replace) as temporary:
    temporary.write_bytes(data.encode() if isinstance(data, str) else data)
  return pathlib.Path(path)


def write_json(path: str | os.PathLike, value: Any) -> pathlib.Path:
  """Writes a value as indented JSON with `published`; returns the path."""
  return write_atomically(path, json.dumps(value, indent=2) + "\n")


def read_json(path: str | os.PathLike) -> Any:
  """The value of a JSON file; ValueError that names a damaged one."""
  with open(path) as f:
    try:
      return json.load(f)
    except ValueError as error:
      raise ValueError(
        f"{path} is damaged, for it is no JSON: {error}"
      ) from error


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
    with open(path, "rb") as f:
      hashlib.file_digest(f, lambda: digest)
  return digest.hexdigest()
