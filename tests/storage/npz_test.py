"""Tests of storage/npz.py: rows of files of any size."""

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
  with pytest.raises(ValueError, match="x.npz: arr_0 .* object"):
    npz.Rows(str(path))
  path.write_bytes(path.read_bytes()[:100])
  with pytest.raises(ValueError, match="x.npz as .npz"):
    npz.Rows(str(path))
  with pytest.raises(ValueError, match="none.npz"):
    npz.names(str(tmp_path / "none.npz"))


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
