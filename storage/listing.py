"""Files of a folder as people see them: in natural order, with safe names.

Every list of files comes from here, so that two folders of the same names are
in the same order, and no file of an operating system or a file manager counts.
"""

import collections
from collections.abc import Iterator
import errno
import hashlib
import os
import re
import stat
import unicodedata

# Folders and files that systems and their programs leave beside those of the
# user, in lower case; names that start with a dot are left out as well.
_SYSTEM = frozenset(
  {
    *("__macosx", "@eadir", "@recently-snapshot", "@recycle", "#recycle"),
    *("#snapshot", "@__thumb", "@tmp", "network trash folder"),
    *("temporary items", "$recycle.bin", "recycler", "found.000"),
    *("system volume information", "lost+found", "__pycache__", "thumbs.db"),
    *("ehthumbs.db", "desktop.ini", "icon\r"),
  }
)
_KINDS = (
  (stat.S_ISDIR, "folder"),
  (stat.S_ISFIFO, "pipe"),
  (stat.S_ISSOCK, "socket"),
  (stat.S_ISCHR, "device"),
  (stat.S_ISBLK, "device"),
)
# Bytes of a part of a path that we write. File systems allow 255, and names of
# temporary files and suffixes are added to it.
_LONGEST = 150
# Names under which one folder may be listed. A few folders that hold links to
# each other have more names than anybody can list.
_MOST_NAMES = 100


def natural(name: str) -> tuple[list, str]:
  """Key that sorts names as people count: 9.png, 10.png, 10/a.png, 11.png.

  Runs of digits are compared as numbers, and 1.png comes before 01.png; all
  else is compared as Python compares text.
  """
  pieces: list = re.split(r"([0-9]+)", name)
  # Text and digits take turns, so that numbers are compared with numbers.
  pieces[1::2] = [(int(digits), len(digits)) for digits in pieces[1::2]]
  return pieces, name


def is_system(name: str) -> bool:
  """Whether a file or folder of this name is hidden or a system's."""
  return name.startswith(".") or name.lower() in _SYSTEM


def walk(folder: str) -> list[str]:
  """All files in a folder and below, in natural order; see `scan`."""
  return sorted(scan(folder), key=natural)


def scan(folder: str) -> Iterator[str]:
  """Yields files in a folder and below, relative to it, in any order.

  Links to folders are followed, except one that leads back to a folder that it
  lies in. Hidden and system files and folders are left out; pipes and links
  without a target are not (see `unreadable`).

  Raises:
    OSError: the folder, or one below, cannot be listed, or links lead to it in
      very many ways.
  """
  names = collections.Counter()
  # Folders to list, each with the real paths of those that it lies in.
  left: list[tuple[str, tuple[str, ...]]] = [("", (os.path.realpath(folder),))]
  while left:
    path, above = left.pop()
    with os.scandir(os.path.join(folder, path)) as entries:
      for entry in entries:
        below = os.path.join(path, entry.name)
        if is_system(entry.name):
          continue
        if not os.path.isdir(entry.path):
          yield below
          continue
        real = os.path.realpath(entry.path)
        if real in above:
          continue
        names[real] += 1
        if names[real] > _MOST_NAMES:
          reason = f"links lead to it in more than {_MOST_NAMES} ways"
          raise OSError(errno.ELOOP, f"{reason}: remove some", entry.path)
        left.append((below, (*above, real)))


def folders(folder: str) -> list[str]:
  """Sorted names of the folders in a folder, and of links to such.

  Hidden and system folders are left out.

  Raises:
    ValueError: a link without a target, which may have led to a folder.
  """
  names = []
  with os.scandir(folder) as entries:
    for entry in entries:
      if is_system(entry.name):
        continue
      if entry.is_symlink() and not os.path.exists(entry.path):
        raise ValueError(
          f"{text(entry.path)} is a link without a target, to"
          f" {text(os.readlink(entry.path))}: mend or remove it"
        )
      if os.path.isdir(entry.path):
        names.append(entry.name)
  return sorted(names)


def unreadable(path: str | os.PathLike) -> str:
  """Why a path cannot be read as a file; "" if it is a file.

  Opening a pipe would wait for its other end for ever.
  """
  try:
    mode = os.stat(path).st_mode
  except OSError as error:
    if os.path.islink(path):
      return f"it is a link without a target, to {text(os.readlink(path))}"
    return error.strerror or str(error)
  return irregular(mode)


def irregular(mode: int) -> str:
  """Why something of this st_mode is not read as a file; "" for a file."""
  if stat.S_ISREG(mode):
    return ""
  kind = next((name for is_kind, name in _KINDS if is_kind(mode)), "no file")
  return f"it is a {kind}, not a file: name or copy a regular file"


def check_file(path: str | os.PathLike) -> None:
  """Raises ValueError for a path that cannot be read as a file."""
  reason = unreadable(path)
  if reason:
    raise ValueError(f"cannot read {text(path)}: {reason}")


def text(name: str | os.PathLike) -> str:
  r"""The name for people and JSON: one line of UTF-8, unlike any other name's.

  Bytes that are no UTF-8, line feeds and the like become \xff and \n; so a
  backslash is doubled.
  """
  known = os.fsencode(os.fspath(name).replace("\\", "\\\\"))
  readable = known.decode("utf-8", "backslashreplace")
  return "".join(
    c.encode("unicode_escape").decode() if _breaks(c) else c for c in readable
  )


def _breaks(character: str) -> bool:
  """Whether a character ends the line or steers the terminal."""
  return unicodedata.category(character) in ("Cc", "Zl", "Zp")


def safe(path: str) -> str:
  """A path for what we write, made of the relative path of another file.

  It is the same but where a part of it is too long, or has characters that do
  not print: that part is shortened, and ends in a checksum of the whole part.
  """
  return os.sep.join(map(_safe_part, path.split(os.sep)))


def _safe_part(part: str) -> str:
  if text(part) == part and len(os.fsencode(part)) <= _LONGEST:
    return part
  decoded = os.fsencode(part).decode(errors="replace")
  clear = "".join("_" if _breaks(c) or c in "\\\ufffd" else c for c in decoded)
  short = clear.encode()[:_LONGEST].decode(errors="ignore")
  return f"{short}-{hashlib.sha256(os.fsencode(part)).hexdigest()[:8]}"
