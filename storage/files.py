"""Files that are whole or not there."""

from collections.abc import Mapping
import os
import pathlib

import numpy as np


def write_atomically(
  path: str | os.PathLike, data: str | bytes
) -> pathlib.Path:
  """Replaces a file at once: a kill leaves the old one or the new one.

  Makes missing folders. Returns the path.
  """
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  # In the same folder: a rename is atomic within one file system only.
  temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
  try:
    with open(temporary, "wb") as f:
      f.write(data.encode() if isinstance(data, str) else data)
      f.flush()
      os.fsync(f.fileno())
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)
  return path


def write_npz(
  path: str | os.PathLike, arrays: Mapping[str, np.ndarray]
) -> None:
  """As `write_atomically`, an .npz; in memory once."""
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
  try:
    with open(temporary, "wb") as f:
      np.savez(f, **arrays)
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)
