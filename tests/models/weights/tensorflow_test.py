"""Tests of models/weights/tensorflow.py, on files that TensorFlow wrote."""

import random
import resource

import numpy as np
import pytest
from tensorboardX.proto import graph_pb2
from tensorboardX.proto import tensor_pb2

from models.weights import crc32c
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


@pytest.mark.parametrize(
  ("data", "checksum"),
  [
    (b"", 0),
    (b"123456789", 0xE3069283),  # the check value of the standard
    (bytes(32), 0x8A9136AA),  # RFC 3720, B.4
    (bytes(range(32)), 0x46DD794E),
  ],
)
def test_checksums_are_those_of_the_standard(data, checksum):
  assert crc32c.crc32c(np.frombuffer(data, np.uint8)) == checksum


@pytest.mark.parametrize("size", [63, 64, 65, 128, 1000, 4097, 70_000])
def test_checksums_of_any_length_are_those_of_byte_by_byte(size):
  data = np.random.default_rng(size).integers(0, 256, size, np.uint8)
  whole = 0xFFFFFFFF
  for byte in data.tolist():
    whole = int(crc32c._TABLE[(whole ^ byte) & 0xFF]) ^ whole >> 8
  assert crc32c.crc32c(data) == whole ^ 0xFFFFFFFF


@pytest.mark.parametrize("name", ["variables.index", _DATA])
def test_damage_of_any_byte_is_seen(files, name):
  """A checkpoint has checksums, so nothing is read as other weights."""
  path, index = files / name, str(files / "variables.index")
  expected = networks_reference.tensorflow_tensors()
  whole, rng, refused = path.read_bytes(), random.Random(name), 0
  for _ in range(300):
    data = bytearray(whole)
    for _ in range(rng.choice((1, 1, 4))):
      data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    if rng.random() < 0.2:
      del data[rng.randrange(len(data)) :]
    path.write_bytes(data)
    try:
      got = readers.read(index)
    except ValueError as error:
      assert "\n" not in str(error) and "variables.index is not" in str(error)
      refused += 1
    else:
      _check(got, expected)
  assert refused > 200


def _varint(value):
  data = bytearray()
  while value >= 0x80:
    data.append(value & 0x7F | 0x80)
    value >>= 7
  return bytes([*data, value])


def _block(entries):
  """A block with a right checksum, of (bytes shared, rest of key, value)."""
  data = b"".join(
    _varint(shared) + _varint(len(rest)) + _varint(len(value)) + rest + value
    for shared, rest, value in entries
  )
  data += bytes(4) + (1).to_bytes(4, "little") + b"\0"
  checksum = tensorflow_files._masked_checksum(np.frombuffer(data, np.uint8))
  return data + checksum.to_bytes(4, "little")


def _index(entries, again=1, size=None):
  """An index of one block of entries, to which it points `again` times."""
  block = _block(entries)
  handle = _varint(0) + _varint(len(block) - 5 if size is None else size)
  top = _block([(0, bytes([i + 1]), handle) for i in range(again)])
  footer = _varint(0) * 2 + _varint(len(block)) + _varint(len(top) - 5)
  magic = tensorflow_files._TABLE_MAGIC.to_bytes(8, "little")
  return block + top + footer.ljust(40, b"\0") + magic


@pytest.mark.parametrize(
  ("data", "message"),
  [
    # A key of 1,000 bytes again and again, in three bytes each.
    (
      _index([(0, b"a" * 999, b"")] + [(999, b"b", b"")] * 200_000),
      "keys do not rise",
    ),
    (
      _index(
        [(0, b"a" * 980, b"")]
        + [(980, i.to_bytes(4, "big"), b"") for i in range(100_000)]
      ),
      "keys do not rise, or are too long",
    ),
    (_index([(0, b"a" * 2000, b"")]), "longer than 1000"),
    (_index([(9, b"a", b"")]), "longer than 1000"),
    (_index([(0, b"a", b"")], again=3), "blocks overlap"),
    (_index([(0, b"a", b"")], size=2**40), "cut short"),
    (_index([(0, b"a", b"")], size=2**64), "64 bits"),
    (_index([(0, b"a", b"")]), "no header"),
    (_index([]), "no header"),
    (_index([(0, b"", b"\x08\x01"), (0, b"x", b"\xff" * 40)]), "data files"),
  ],
)
def test_forged_indices_are_refused_at_little_cost(data, message, tmp_path):
  path = tmp_path / "a.index"
  path.write_bytes(data)
  before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  with pytest.raises(ValueError, match=message):
    readers.read(str(path))
  after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  assert after - before < 2**19  # KiB: half a GiB


@pytest.mark.parametrize(
  ("entry", "message"),
  [
    (b"\x08\x01\x28\x05", "of an unknown kind"),  # 5 bytes for one number
    (b"\x08\x01\x12\x04\x12\x02\x08\x01\x28\x04\x20\x09", "outside"),
    (b"\x08\x01\x12\x04\x12\x02\x08\x01\x28\x04\x18\x05", "outside"),
    (b"\x08\x01\x12\x04\x12\x02\x08\x01\x28\x04", "checksum differs"),
    (b"\x08\x01\x12\x04\x12\x02\x08\x01\x28" + b"\xff" * 12, "64 bits"),
  ],
)
def test_entries_that_do_not_fit_the_data_are_refused(entry, message, tmp_path):
  index = _index([(0, b"", b"\x08\x01"), (0, b"x", entry)])
  (tmp_path / "a.index").write_bytes(index)
  (tmp_path / "a.data-00000-of-00001").write_bytes(bytes(8))
  with pytest.raises(ValueError, match=message):
    readers.read(str(tmp_path / "a.index"))


@pytest.mark.parametrize("sizes", [[2**20], [2**62], [2**12] * 9])
def test_constants_larger_than_their_file_can_mean_are_refused(sizes, tmp_path):
  """Each tensor is of one number that stands for size x size others."""
  graph = graph_pb2.GraphDef()
  for number, size in enumerate(sizes):
    node = graph.node.add(name=f"{number}", op="Const")
    tensor = node.attr["value"].tensor
    tensor.dtype = 1
    tensor.float_val.append(1.0)
    for _ in range(2):
      tensor.tensor_shape.dim.add().size = size
  path = tmp_path / "graph.pb"
  path.write_bytes(graph.SerializeToString())
  with pytest.raises(ValueError, match="graph.pb is not a frozen graph: "):
    readers.read(str(path))
