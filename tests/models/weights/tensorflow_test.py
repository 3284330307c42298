"""Tests of models/weights/tensorflow.py, on files that TensorFlow wrote."""

import numpy as np
import pytest
from tensorboardX.proto import tensor_pb2

from models.weights import readers
from models.weights import tensorflow as tensorflow_files
from tests.models.features import networks_reference

_DATA = "variables.data-00000-of-00001"


@pytest.fixture
def files(tmp_path):
  """Folder of graph.pb, variables.index and its data."""
  recorded = networks_reference.load()
  for name, kind in (
    ("graph.pb", "graph"),
    ("variables.index", "index"),
    (_DATA, "data"),
  ):
    (tmp_path / name).write_bytes(recorded[f"file_{kind}"].tobytes())
  return tmp_path


def _check(got, expected):
  assert got.keys() == expected.keys()
  for name, tensor in expected.items():
    assert got[name].dtype == np.float32
    np.testing.assert_array_equal(got[name], tensor)


def test_a_checkpoints_variables_are_what_was_saved(files):
  got = readers.read(str(files / "variables.index"))
  _check(got, networks_reference.tensorflow_tensors())


def test_a_graphs_floating_point_constants_are_read_but_for_scalars(files):
  expected = networks_reference.tensorflow_tensors()
  got = readers.read(str(files / "graph.pb"))
  _check(got, {k: expected[k] for k in ("scope/kernel", "ones")})


@pytest.mark.parametrize("shape", [(), (2, 3)])
def test_one_number_may_stand_for_all_of_a_tensor(shape):
  """Fields of a TensorProto: 1 is the dtype, 2 the shape, 5 the numbers."""
  dims = b"".join(b"\x12\x02\x08" + bytes([size]) for size in shape)
  message = b"\x08\x01\x12" + bytes([len(dims)]) + dims
  message += b"\x2a\x04" + np.float32(0.5).tobytes()
  got = tensorflow_files._tensor(tensor_pb2.TensorProto.FromString(message))
  np.testing.assert_array_equal(got, np.full(shape, 0.5, np.float32))


def test_the_hash_of_a_checkpoint_covers_its_data(files):
  index, data = str(files / "variables.index"), files / _DATA
  before = readers.sha256(index)
  data.write_bytes(b"\1" + data.read_bytes()[1:])
  assert readers.sha256(index) != before


def test_missing_or_short_data_is_refused(files):
  index, data = str(files / "variables.index"), files / _DATA
  data.write_bytes(data.read_bytes()[:-1])
  with pytest.raises(ValueError, match="not a checkpoint of TensorFlow"):
    readers.read(index)
  data.unlink()
  with pytest.raises(ValueError, match="variables.index .* 1 data files .* 0"):
    readers.read(index)


@pytest.mark.parametrize("name", ["graph.pb", "variables.index"])
def test_a_broken_file_is_refused(files, name):
  path = files / name
  whole = path.read_bytes()
  for data in (b"", b"neither", whole[:-9], whole[3:]):
    path.write_bytes(data)
    with pytest.raises(ValueError, match=f"{name} is not a"):
      readers.read(str(path))
