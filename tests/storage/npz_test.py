"""Tests of storage/npz.py: rows of files of any size."""

import gc
import io
import os
import pathlib
import struct
import tracemalloc
import warnings
import zipfile

import numpy as np
import pytest

from storage import npz

_ROWS = np.arange(60, dtype=np.uint8).reshape(10, 2, 3)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_rows_in_any_order_are_those_of_the_array(tmp_path, save):
  save(tmp_path / "x.npz", arr_1=np.zeros(3), arr_0=_ROWS)
  rows = npz.Rows(str(tmp_path / "x.npz"))
  assert rows.shape == (10, 2, 3) and rows.dtype == np.uint8
  for start, stop in [(0, 3), (7, 10), (2, 4), (4, 5), (9, 10)]:
    np.testing.assert_array_equal(rows.read(start, stop), _ROWS[start:stop])


def test_what_holds_no_rows_is_refused_by_name(tmp_path):
  path = tmp_path / "x.npz"
  np.savez(path, mu=np.zeros(3))
  with pytest.raises(ValueError, match="x.npz .* mu, .* arr_0"):
    npz.Rows(str(path))
  np.savez(path, arr_0=np.array([{}], object))
  with pytest.raises(ValueError, match="x.npz as .npz: arr_0 .* object"):
    npz.Rows(str(path))
  path.write_bytes(path.read_bytes()[:100])
  with pytest.raises(ValueError, match="x.npz as .npz"):
    npz.Rows(str(path))
  with pytest.raises(ValueError, match="none.npz"):
    npz.names(str(tmp_path / "none.npz"))


def _header(text, version=(1, 0)):
  """Bytes of an .npy header of any text."""
  size = struct.pack("<H" if version == (1, 0) else "<I", len(text))
  return b"\x93NUMPY" + bytes(version) + size + text.encode()


def _described(descr, shape):
  return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}"


def _zip(path, data, method=zipfile.ZIP_STORED):
  with zipfile.ZipFile(path, "w", method) as archive:
    archive.writestr("arr_0.npy", data)


def _refused(path):
  """The error of each function that reads, of one line that names the file."""
  for read in (npz.Rows, lambda path: npz.load(path, "arr_0")):
    with pytest.raises(ValueError, match="x.npz") as caught:
      read(str(path))
    assert len(str(caught.value).splitlines()) == 1
    yield str(caught.value)


@pytest.mark.parametrize(
  "header",
  [
    _header(_described("'|u1'", (10**12, 3))),  # more rows than there are
    _header(_described("'|u1'", (3,))),  # fewer
    _header(_described("'|u1'", (-4, -3))),
    _header(_described("'|u1'", (0, 10**30))),
    _header(_described("'|O'", (12,))),
    _header(_described("'|S0'", (10**12,))),
    _header(_described("'<f99'", (3,))),
    _header(_described("[('a', '|u1'), ('a', '|u1')]", (6,))),
    _header(_described("'|u1'", "(3, 4), 'more': 1")),
    _header("(" * 5000),
    _header("{'descr'"),
    _header(_described("'|u1'", (12,)), (9, 9)),
    b"\x93NUMPY\x01\x00\xff\xff{",
    b"",
  ],
)
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_headers_that_lie_are_refused_by_name(tmp_path, header, method):
  _zip(tmp_path / "x.npz", header + bytes(12), method)
  tracemalloc.start()
  assert len(list(_refused(tmp_path / "x.npz"))) == 2
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert peak < 2**23


def test_archives_that_cannot_be_unpacked_are_refused_by_name(tmp_path):
  path, header = tmp_path / "x.npz", _header(_described("'|u1'", (12,)))
  _zip(path, header + bytes(12), zipfile.ZIP_LZMA)
  assert "method" in next(_refused(path))
  _zip(path, header + bytes(12))
  whole = path.read_bytes()
  encrypted = bytearray(whole)
  for signature, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
    encrypted[whole.index(signature) + place] |= 1
  path.write_bytes(encrypted)
  assert "encrypted" in next(_refused(path))
  with pytest.warns(UserWarning), zipfile.ZipFile(path, "w") as archive:
    for byte in (b"a", b"b"):  # readers differ in which of both they take
      archive.writestr("arr_0.npy", header + 12 * byte)
  assert "more than once" in next(_refused(path))
  # The directory says a size that no compressed member of these bytes has.
  _zip(path, header + bytes(12), zipfile.ZIP_DEFLATED)
  bomb = bytearray(path.read_bytes())
  # Both the packed size and the unpacked one are too large for the file.
  struct.pack_into("<II", bomb, bomb.index(b"PK\1\2") + 20, 2**30, 2**31)
  path.write_bytes(bomb)
  assert "cannot have 2147483648 bytes" in next(_refused(path))
  path.unlink()
  os.mkfifo(path)
  assert "pipe" in next(_refused(path))


def _is_open(path):
  """Whether this process holds a file open that it reads from."""
  held = pathlib.Path("/proc/self/fd")
  return str(path) in [os.path.realpath(link) for link in held.iterdir()]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damage_gives_one_line_or_the_right_array(tmp_path, save):
  """Bytes that are flipped, zeroed, cut and doubled, in any place."""
  path, whole = tmp_path / "x.npz", io.BytesIO()
  rng = np.random.default_rng(0)
  video = rng.integers(0, 9, (6, 5, 3), np.uint8)
  save(whole, arr_0=video, arr_1=np.arange(3))
  whole, right = np.frombuffer(whole.getvalue(), np.uint8), 0
  for trial in range(400):
    data, at = whole.copy(), int(rng.integers(len(whole)))
    if trial % 4 == 0:
      data = data[:at]
    elif trial % 4 == 1:
      data[at : at + 8] = 0
    elif trial % 4 == 2:
      data = np.concatenate([data[:at], data[max(at - 9, 0) :]])
    else:
      data[at] ^= 1 << trial % 8
    rows = None  # so the file of the trial before is closed
    path.write_bytes(data.tobytes())
    try:
      rows = npz.Rows(str(path))
      np.testing.assert_array_equal(rows.read(2, 6), video[2:])
      np.testing.assert_array_equal(npz.load(str(path), "arr_0"), video)
      right += 1
    except ValueError as error:
      assert str(error).startswith(f"cannot read {path} as .npz: ")
      assert len(str(error).splitlines()) == 1
      assert not _is_open(path)
  assert 0 < right < 200  # times of files, and bytes that nobody reads


def test_a_file_that_nobody_reads_any_more_is_closed(tmp_path):
  """In whatever order Python frees what refers to itself."""
  np.savez_compressed(tmp_path / "x.npz", arr_0=_ROWS)
  with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    for _ in range(9):
      rows = npz.Rows(str(tmp_path / "x.npz"))
      rows.read(0, 2)
      held = [rows._stream, rows]
      held.append(held)
      del rows, held
    gc.collect()
  assert not [str(warning.message) for warning in seen]
  assert not _is_open(tmp_path / "x.npz")


def test_a_file_without_rows_has_none(tmp_path):
  np.savez(tmp_path / "x.npz", arr_0=np.zeros((0, 4, 4, 3), np.uint8))
  rows = npz.Rows(str(tmp_path / "x.npz"))
  assert len(rows) == 0 and rows.read(0, 8).shape == (0, 4, 4, 3)


def test_one_array_has_the_order_it_was_saved_in(tmp_path):
  for array in (np.asfortranarray(_ROWS), np.float32(3), np.array(["é", "b"])):
    np.savez_compressed(tmp_path / "x.npz", arr_0=array)
    loaded = npz.load(str(tmp_path / "x.npz"), "arr_0")
    np.testing.assert_array_equal(loaded, array)
    assert loaded.dtype == np.asarray(array).dtype


def test_written_rows_are_those_that_numpy_would_write(tmp_path):
  parts = [_ROWS[:3], _ROWS[3:4], _ROWS[4:]]
  labels = np.arange(10)
  npz.write(
    str(tmp_path / "parts.npz"), 10, {"arr_0": parts, "arr_1": iter([labels])}
  )
  np.savez(tmp_path / "whole.npz", arr_0=_ROWS, arr_1=labels)
  for name in ("arr_0", "arr_1"):
    members = [
      zipfile.ZipFile(tmp_path / file).read(f"{name}.npy")
      for file in ("parts.npz", "whole.npz")
    ]
    assert members[0] == members[1]
    np.testing.assert_array_equal(
      npz.load(str(tmp_path / "parts.npz"), name),
      {"arr_0": _ROWS}.get(name, labels),
    )


def test_parts_that_are_not_all_the_rows_write_nothing(tmp_path):
  with pytest.raises(ValueError, match="10 rows, .* 9"):
    npz.write(str(tmp_path / "x.npz"), 10, {"arr_0": [_ROWS[:9]]})
  assert not list(tmp_path.iterdir())


def test_only_files_whose_arrays_can_be_read_are_whole(tmp_path):
  path = str(tmp_path / "a.npz")
  np.savez(path, a=np.arange(1000), b=np.zeros((1000, 2)))
  assert npz.is_whole(path) and npz.is_whole(path, 1000)
  assert not npz.is_whole(path, 999)
  whole = (tmp_path / "a.npz").read_bytes()
  flipped = bytearray(whole)
  flipped[2000] ^= 1
  for data in (b"", whole[:-1], whole[:3000], b"\0" * len(whole), flipped):
    (tmp_path / "a.npz").write_bytes(data)
    assert not npz.is_whole(path)
  np.savez(path)
  assert not npz.is_whole(path)
  assert not npz.is_whole(str(tmp_path / "missing.npz"))
