"""Tests of models/weights/safetensors_file.py."""

import json

import jax
import numpy as np
import pytest
import safetensors
import safetensors.numpy

from models.weights import readers
from models.weights import safetensors_file

_ABSTRACT = {
  "stages": {0: {"kernel": jax.ShapeDtypeStruct((2, 3), np.float32)}},
  "head": {"bias": jax.ShapeDtypeStruct((4,), np.float32)},
}
_TENSORS = {
  "stages.0.kernel": np.arange(6, dtype=np.float32).reshape(2, 3),
  "head.bias": np.ones(4, np.float32),
}
_SOURCE = {"input_sha256": "ab12"}


def test_weights_come_back_by_name_with_their_origin(tmp_path):
  path = str(tmp_path / "new" / "weights.safetensors")
  safetensors_file.save(path, "net", _TENSORS, _SOURCE)
  params = safetensors_file.load(path, "net", _ABSTRACT)
  np.testing.assert_array_equal(
    params["stages"][0]["kernel"], [[0, 1, 2], [3, 4, 5]]
  )
  np.testing.assert_array_equal(params["head"]["bias"], np.ones(4))
  with safetensors.safe_open(path, framework="numpy") as f:
    assert f.metadata() == {
      "format_version": "1",
      "network": "net",
      "input_sha256": "ab12",
    }
  assert [x.name for x in (tmp_path / "new").iterdir()] == [
    "weights.safetensors"
  ]


def test_an_existing_file_stays_as_it_is(tmp_path):
  path = tmp_path / "weights.safetensors"
  path.write_text("mine")
  with pytest.raises(ValueError, match="weights.safetensors exists"):
    safetensors_file.save(str(path), "net", _TENSORS, _SOURCE)
  assert path.read_text() == "mine"
  assert list(tmp_path.iterdir()) == [path]


def test_other_files_are_refused(tmp_path):
  path = str(tmp_path / "weights.safetensors")
  safetensors_file.save(path, "other", _TENSORS, _SOURCE)
  with pytest.raises(ValueError, match="'other'.*'net'"):
    safetensors_file.load(path, "net", _ABSTRACT)
  safetensors.numpy.save_file(_TENSORS, path)
  with pytest.raises(ValueError, match="format_version=None.*weights.convert"):
    safetensors_file.load(path, "net", _ABSTRACT)
  (tmp_path / "weights.safetensors").write_bytes(b"not a file of tensors")
  with pytest.raises(ValueError, match="is not a .safetensors file"):
    safetensors_file.load(path, "net", _ABSTRACT)


@pytest.mark.parametrize(
  ("changed", "message"),
  [
    ({"head.bias": None}, "lacks tensor 'head.bias'"),
    ({"fc.bias": np.ones(3, np.float32)}, "has an unknown tensor 'fc.bias'"),
    (
      {"head.bias": np.ones(3, np.float32)},
      r"'head.bias' has shape \(3,\), expected \(4,\)",
    ),
    ({"head.bias": np.ones(4, np.int32)}, "'head.bias' has dtype int32"),
    (
      {"head.bias": np.full(4, np.nan, np.float32)},
      "'head.bias' has nan or infinite values",
    ),
  ],
)
def test_wrong_tensors_are_named(changed, message, tmp_path):
  tensors = {**_TENSORS, **changed}
  tensors = {k: v for k, v in tensors.items() if v is not None}
  path = str(tmp_path / "weights.safetensors")
  safetensors_file.save(path, "net", tensors, _SOURCE)
  with pytest.raises(ValueError, match=message):
    safetensors_file.load(path, "net", _ABSTRACT)


def _forged(**entries):
  """A file of 8 bytes of numbers, with a header as given."""
  tensors = {
    name: {"dtype": dtype, "shape": shape, "data_offsets": offsets}
    for name, (dtype, shape, offsets) in entries.items()
  }
  header = json.dumps(tensors).encode()
  return len(header).to_bytes(8, "little") + header + bytes(8)


@pytest.mark.parametrize(
  "data",
  [
    b"",
    (2**60).to_bytes(8, "little") + b"{}",
    (2**26).to_bytes(8, "little") + b"{}",
    _forged(a=("F32", [2], [0, 16])),  # beyond the end
    _forged(a=("F32", [3], [0, 8])),  # another size than its shape says
    _forged(a=("F32", [1], [0, 4]), b=("F32", [2], [0, 8])),  # overlapping
    _forged(a=("F32", [1], [0, 4])),  # numbers that belong to nobody
    _forged(a=("F32", [1], [8, 4])),
    _forged(a=("F32", [2**40, 2**40], [0, 8])),
    _forged(a=("F99", [2], [0, 8])),
    _forged(a=("F32", [-2], [0, 8])),
    b"\x02" + bytes(7) + b"[]",
    (5 * 10**5).to_bytes(8, "little") + b"[" * 5 * 10**5,
  ],
)
def test_forged_headers_are_refused(data, tmp_path):
  """The library checks headers; should it cease to, this test says so."""
  path = tmp_path / "a.safetensors"
  path.write_bytes(data)
  for read in (
    lambda: readers.read(str(path)),
    lambda: safetensors_file.load(str(path), "net", _ABSTRACT),
  ):
    with pytest.raises(ValueError, match="is not a .safetensors") as error:
      read()
    assert "\n" not in str(error.value)


def test_an_archive_of_arrays_unpacks_to_no_more_than_it_may(tmp_path):
  path = tmp_path / "a.npz"
  np.savez_compressed(path, a=np.zeros(2**26 + 1, np.uint8))
  with pytest.raises(ValueError, match="a.npz .* arrays have 67108993"):
    readers.read(str(path))
