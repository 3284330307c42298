"""Tests of models/weights/torch_file.py: files of torch, friendly and not."""

import io
import os
import random
import re
import resource
import sys
import types
import zipfile

import ml_dtypes
import numpy as np
import pytest

from magvit.modes import import_weights
from models.weights import convert
from models.weights import pickled
from models.weights import readers
from tests.models.weights import torch_archive as archive

_FLOATS = np.arange(6, dtype=np.float32).reshape(2, 3)
_IDS = np.array([-1, 2**40], np.int64)
_HALVES = np.array([0.5, -2.0, 3.0], ml_dtypes.bfloat16)
_TENSORS = {
  "0.weight": archive.whole("0", "Float", _FLOATS),
  "0.turned": archive.tensor(
    archive.storage("0", "Float", 6), 1, (2, 2), (1, 3)
  ),
  "1.ids": archive.whole("1", "Long", _IDS),
  "1.half": archive.whole("2", "BFloat16", _HALVES),
  "1.count": archive.tensor(archive.storage("1", "Long", 2), 1, (), ()),
  "2.mask": archive.whole("3", "Bool", np.array([True, False])),
  "2.none": archive.tensor(archive.storage("0", "Float", 6), 0, (0, 3), (3, 1)),
}
_STORAGES = {
  "0": _FLOATS.tobytes(),
  "1": _IDS.tobytes(),
  "2": _HALVES.tobytes(),
  "3": b"\x01\x00",
}
_EXPECTED = {
  "0.weight": _FLOATS,
  "0.turned": np.array([[1, 4], [2, 5]], np.float32),
  "1.ids": _IDS,
  "1.half": np.array([0.5, -2, 3], np.float32),
  "1.count": np.array(2**40),
  "2.mask": np.array([True, False]),
  "2.none": np.zeros((0, 3), np.float32),
}
_SIZES = {"0": 6, "1": 2, "2": 3, "3": 2}
_LEGACY_STORAGES = {k: (_SIZES[k], data) for k, data in _STORAGES.items()}


def _modules(tensors):
  """The tensors as TorchScript's modules of modules."""
  made = {}
  for name, tensor in tensors.items():
    child, leaf = name.split(".")
    made.setdefault(child, {"training": True})[leaf] = tensor
  children = {
    name: archive.Object("__torch__.torch.nn.modules.conv Conv2d", attributes)
    for name, attributes in made.items()
  }
  return archive.Object("__torch__ Net", {"training": False, **children})


_FILES = {
  "zip": archive.archive(archive.pickled(_TENSORS), _STORAGES),
  "lightning": archive.archive(
    archive.pickled(
      {
        "epoch": 3,
        "pytorch-lightning_version": "2.1.0",
        "optimizer_states": [
          {"state": {0: {"step": 1.5}}, "betas": (0.9, 0.99)}
        ],
        "state_dict": _TENSORS,
      }
    ),
    _STORAGES,
  ),
  "parameters": archive.archive(
    archive.pickled(
      {
        name: archive.Call(
          "torch._utils _rebuild_parameter", (tensor, True, None)
        )
        for name, tensor in _TENSORS.items()
      }
    ),
    _STORAGES,
  ),
  "legacy": archive.legacy(_TENSORS, _LEGACY_STORAGES),
  "python 2": archive.legacy(
    archive.Call(
      "collections OrderedDict", ([list(x) for x in _TENSORS.items()],)
    ),
    _LEGACY_STORAGES,
  ),
  "torchscript": archive.archive(
    archive.pickled(_modules(_TENSORS)),
    _STORAGES,
    **{"constants.pkl": b"\x80\x02)."},
  ),
}


def _read(folder, data, suffix=".pt"):
  path = folder / f"a{suffix}"
  path.write_bytes(data)
  return readers.read(str(path))


def _refused(folder, data):
  with pytest.raises(ValueError, match="is not a file of torch") as error:
    _read(folder, data)
  assert "\n" not in str(error.value) and len(str(error.value)) < 600
  return str(error.value)


@pytest.mark.parametrize("kind", _FILES)
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".ckpt"])
def test_tensors_are_read_by_name_from_every_kind(kind, suffix, tmp_path):
  got = _read(tmp_path, _FILES[kind], suffix)
  assert got.keys() == _EXPECTED.keys()
  for name, array in _EXPECTED.items():
    assert got[name].dtype == array.dtype
    np.testing.assert_array_equal(got[name], array)


class _Torch(types.ModuleType):
  """A torch that writes a file as an archive's code may, whatever is called."""

  def __init__(self, victim):
    super().__init__("torch")
    self._victim = victim
    self.jit = self

  def load(self, *unused, **options):
    self._victim.write_bytes(b"BBBB")
    return {}

  Tensor = np.ndarray


def _code_that_writes(victim):
  """A TorchScript archive with a __setstate__ that maps a file for writing."""
  code = f"""class M(Module):
  def __setstate__(self: __torch__.M, state: Tuple[Tensor, bool]) -> NoneType:
    x = torch.from_file("{victim}", True, 16, dtype=0)
    self.w = torch.fill_(x, 66)
    return None
"""
  tensor = archive.whole("0", "Float", _FLOATS)
  return archive.archive(
    archive.pickled(archive.Object("__torch__ M", (tensor, True))),
    _STORAGES,
    **{"code/__torch__.py": code.encode(), "constants.pkl": b"\x80\x02)."},
  )


def test_code_of_an_archive_does_not_run(tmp_path, monkeypatch):
  victim = tmp_path / "victim"
  victim.write_bytes(b"the user's own file")
  monkeypatch.setitem(sys.modules, "torch", _Torch(victim))
  path = tmp_path / "a.pt"
  path.write_bytes(_code_that_writes(victim))
  for read in (
    lambda: readers.read(str(path)),
    lambda: convert.convert("i3d", str(path), str(tmp_path / "o.safetensors")),
    lambda: import_weights.import_weights(
      "open_magvit2", str(path), {}, str(tmp_path / "workdir")
    ),
  ):
    with pytest.raises(ValueError, match="code of the file .* not run"):
      read()
  assert victim.read_bytes() == b"the user's own file"
  assert sorted(x.name for x in tmp_path.iterdir()) == ["a.pt", "victim"]


def _escape(victim):
  """Pickles that would make a file, by every instruction that can call."""
  name, command = b"cposix\nsystem\n", f"touch {victim}".encode()
  text = b"X" + len(command).to_bytes(4, "little") + command
  posix = b"X\x05\x00\x00\x00posixX\x06\x00\x00\x00system"
  return {
    "REDUCE": b"\x80\x02" + name + text + b"\x85R.",
    "STACK_GLOBAL": b"\x80\x04" + posix + b"\x93" + text + b"\x85R.",
    "INST": b"(" + text + b"iposix\nsystem\n.",
    "OBJ": b"(" + name + text + b"o.",
    "NEWOBJ": b"\x80\x02" + name + text + b"\x85\x81.",
    "NEWOBJ_EX": b"\x80\x04" + name + text + b"\x85}\x92.",
    "BUILD": b"\x80\x02" + name + text + b"b.",
    "EXT1": b"\x80\x02\x82\x01.",
    "PERSID": b"P" + command + b"\n.",
    "eval": b"\x80\x02cbuiltins\neval\nX\x01\x00\x00\x001\x85R.",
    "function of torch": b"\x80\x02ctorch.hub\nload\n)R.",
    "attribute": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2.__globals__\n.",
  }


@pytest.mark.parametrize("instruction", list(_escape("")))
def test_a_pickle_calls_and_imports_nothing(instruction, tmp_path):
  victim = tmp_path / "victim"
  pickle = _escape(victim)[instruction]
  legacy = b"".join(
    archive.pickled(x) for x in (0x1950A86A20F9469CFC6C, 1001, {})
  )
  for data in (archive.archive(pickle, {}), legacy + pickle, pickle):
    _refused(tmp_path, data)
  assert not victim.exists()


def test_other_objects_are_refused_with_a_way_out(tmp_path):
  value = {"args": archive.Object("argparse Namespace", {}), **_TENSORS}
  message = _refused(
    tmp_path, archive.archive(archive.pickled(value), _STORAGES)
  )
  assert "'argparse.Namespace'" in message and "torch.save(" in message


def _one(size, stride, offset=0, numel=6):
  stored = archive.storage("0", "Float", numel)
  return {"x": archive.tensor(stored, offset, size, stride)}


@pytest.mark.parametrize(
  ("tensors", "message"),
  [
    (_one((7,), (1,)), "'x' of shape .* larger than its storage"),
    (_one((2, 3), (3, 2)), "larger than its storage"),
    (_one((6,), (1,), offset=1), "larger than its storage"),
    (_one((10**9, 10**9), (0, 0)), "larger than its storage"),
    (_one((2**50,), (1,), numel=2**50), "bytes, and the file"),
    (_one((7,), (1,), numel=7), "'x' is cut short"),
    (_one((-1,), (1,)), "damaged"),
    (_one((6,), (-1,)), "damaged"),
    (_one((6,), (1,), offset=-1), "damaged"),
    (_one((1.5,), (1,)), "damaged"),
    (_one((1,) * 40, (1,) * 40), "damaged"),
    (_one((2, 3), (1,)), "damaged"),
    ({"x": [1]}, "state dict"),
    (
      {"x": archive.whole("9", "Float", _FLOATS)},
      "'archive/data/9' is missing",
    ),
    ({1: archive.whole("0", "Float", _FLOATS)}, "state dict"),
    (
      {
        "x": archive.whole("0", "Float", _FLOATS),
        "y": archive.whole("0", "Long", _IDS),
      },
      "'0' in two ways",
    ),
    ([1], "state dict"),
  ],
)
def test_tensors_that_cannot_be_are_named(tensors, message, tmp_path):
  data = archive.archive(archive.pickled(tensors), _STORAGES)
  assert re.search(message, _refused(tmp_path, data))


def test_a_file_that_shows_its_numbers_again_and_again_is_refused(tmp_path):
  numbers = np.zeros(100_000, np.float32)
  tensors = {str(i): archive.whole("0", "Float", numbers) for i in range(9)}
  data = archive.archive(archive.pickled(tensors), {"0": numbers.tobytes()})
  assert "tensors have 3600000 bytes" in _refused(tmp_path, data)


def test_damage_of_an_archive_is_told(tmp_path):
  pickle = archive.pickled(_TENSORS)
  cases = {
    "compressed": archive.archive(pickle, _STORAGES, zipfile.ZIP_DEFLATED),
    "big-endian": archive.archive(pickle, _STORAGES, byteorder=b"big"),
    "without the data.pkl": _FILES["zip"].replace(b"data.pkl", b"date.pkl"),
    "0' is damaged": _FILES["zip"].replace(
      _FLOATS.tobytes(), _FLOATS[::-1].tobytes()
    ),
  }
  for message, data in cases.items():
    assert message in _refused(tmp_path, data)
  for kind in ("zip", "legacy"):
    for size in (0, 1, 10, 100, len(_FILES[kind]) - 1):
      _refused(tmp_path, _FILES[kind][:size])


@pytest.mark.parametrize(
  "value",
  [
    archive.Call("collections OrderedDict", ("abc",)),
    archive.Call("collections OrderedDict", ([1],)),
    archive.Call("_codecs encode", (5, 5)),
    archive.Call("_codecs encode", ("\u20ac", "latin1")),
    archive.Persistent(("storage", 5, "0", "cpu", 6)),
    archive.Persistent(("storage",)),
  ],
)
def test_wrong_arguments_are_told_as_damage(value, tmp_path):
  data = archive.archive(archive.pickled(value), {})
  assert "its pickle is damaged at instruction" in _refused(tmp_path, data)


@pytest.mark.parametrize("length", [10_000, 2_000_000])
def test_long_texts_are_not_joined_or_compared_over_and_over(length, tmp_path):
  half = archive.pickled("__torch__." + "x" * (length // 2))[2:-1]
  name = b"\x80\x04" + half + b"q\0" + half + b"q\1"
  data = archive.archive(name + b"h\0h\1\x93" * 1000 + b".", {})
  assert "holds a name of" in _refused(tmp_path, data)
  again = name + b"}" + (b"h\0Nsh\1Ns" * 1000) + b"."
  data = archive.archive(again, {})
  assert "has a key of" in _refused(tmp_path, data)


def test_modules_that_hold_themselves_end(tmp_path):
  # The module is memorized, and put into its own attributes twice.
  module = b"c__torch__\nNet\n)\x81q\x01}("
  module += b"X\x01\x00\x00\x00ah\x01X\x01\x00\x00\x00bh\x01ub."
  data = archive.archive(b"\x80\x02" + module, {})
  assert "hold each other" in _refused(tmp_path, data)


@pytest.mark.parametrize(
  "pickle",
  [
    b"\x80\x02]r\xff\xff\xff\x7f.",  # a memo of 2**31 entries
    b"\x80\x04\x8e" + b"\xff" * 7 + b"\x00.",  # bytes of 2**56
    b"\x80\x05\x96" + b"\x00" * 4 + b"\x00\x01\x00\x00.",  # a bytearray of 1 TB
    b"\x80\x02" + b"(" * 100_000 + b".",
    b"\x80\x02)" + b"\x85" * 100_000 + b"N}(ub.",
    b"\x80\x02" + b"]" * 3_000_000 + b".",
    # A list of a million, from which sets are made again and again.
    b"\x80\x02]("
    + b"N" * 1_000_000
    + b"eq\x01"
    + b"cbuiltins\nset\nh\x01\x85R" * 1000
    + b".",
    b"\x80\x02" + b"cbuiltins\nset\n(" * 1000 + b".",
    b"\x80\x02}(" + b"\x8a\x0a" + b"\xff" * 9 + b"\x00N" + b"u.",
  ],
)
def test_a_small_pickle_takes_little(pickle):
  before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  try:
    pickled.load(io.BytesIO(pickle), {})
  except ValueError as error:
    assert len(str(error)) < 500
  after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  assert after - before < 2**20 / 2  # half a GiB, in KiB


def _mutated(data, rng):
  """A file with some bytes changed, cut out or repeated."""
  data = bytearray(data)
  for _ in range(rng.choice((1, 1, 2, 8))):
    at = rng.randrange(len(data))
    match rng.randrange(4):
      case 0:
        data[at] = rng.randrange(256)
      case 1:
        data[at] ^= 1 << rng.randrange(8)
      case 2:
        del data[at : at + rng.choice((1, 4, 40))]
      case 3:
        data[at:at] = data[at : at + rng.choice((1, 4, 40))]
  return bytes(data)


@pytest.mark.parametrize("kind", ["zip", "legacy", "torchscript"])
def test_mutated_files_are_read_or_refused_in_one_line(kind, tmp_path):
  rng = random.Random(kind)
  whole, read = _read(tmp_path, _FILES[kind]), 0
  for _ in range(300):
    data = _mutated(_FILES[kind], rng)
    try:
      got = _read(tmp_path, data)
    except ValueError as error:
      assert "\n" not in str(error) and "is not a file of torch" in str(error)
      continue
    read += 1
    if kind != "legacy":  # which has no checksums
      assert got.keys() == whole.keys()
      for name, array in whole.items():
        np.testing.assert_array_equal(got[name], array)
  assert read < 300
  assert os.listdir(tmp_path) == ["a.pt"]


def test_mutated_pickles_are_read_or_refused_in_one_line(tmp_path):
  rng = random.Random(0)
  pickles = [archive.pickled(_TENSORS), archive.pickled(_modules(_TENSORS))]
  refused = 0
  for number in range(600):
    pickle = _mutated(pickles[number % 2], rng)
    try:
      got = _read(tmp_path, archive.archive(pickle, _STORAGES))
    except ValueError as error:
      assert "\n" not in str(error)
      refused += 1
    else:
      assert sum(x.size for x in got.values()) < 1000
  assert refused > 100
