"""Tests of magvit/modes/export.py: the same model in any process, or none."""

import json
import os
import pathlib
import pickle
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
import safetensors
import safetensors.numpy
import yaml

import magvit
from magvit.modes import export as export_mode
from magvit.workdir import exports
from magvit.workdir import folder as workdir_lib
from tests import tiny

_ROOT = pathlib.Path(__file__).parents[3]
_KEY = 7
# Program of a stranger, who has an export's folder and nothing else.
_FRESH = """
import sys
import jax
import numpy as np
import magvit

folder, video_path, output = sys.argv[1:]
video = np.load(video_path)
tokenizer = magvit.load_tokenizer(folder)
ids = tokenizer.encode(video)
generator = magvit.load_generator(folder)
sample = generator.sample(
  jax.random.key(7), 2, task="frame_prediction", condition=video
)
np.savez(output, ids=ids, video=tokenizer.decode(ids), sample=sample)
"""


@pytest.fixture(scope="module")
def folder(tiny_generator_workdir, tmp_path_factory):
  path = str(tmp_path_factory.mktemp("export") / "generator")
  export_mode.export(tiny_generator_workdir, path)
  return path


@pytest.fixture
def copy(folder, tmp_path):
  """An export that a test may spoil."""
  return pathlib.Path(shutil.copytree(folder, tmp_path / "copy"))


def _video():
  return np.random.default_rng(0).random((2, 5, 16, 16, 3), np.float32)


@pytest.mark.slow
def test_a_fresh_process_has_the_ids_and_pixels_of_the_workdir(
  folder, tiny_generator_workdir, tmp_path
):
  np.save(tmp_path / "video.npy", _video())
  arguments = [folder, str(tmp_path / "video.npy"), str(tmp_path / "out.npz")]
  subprocess.run(
    [sys.executable, "-c", _FRESH, *arguments],
    cwd=_ROOT,
    check=True,
  )
  tokenizer = magvit.load_tokenizer(tiny_generator_workdir)
  ids = tokenizer.encode(_video())
  generator = magvit.load_generator(tiny_generator_workdir)
  sample = generator.sample(
    jax.random.key(_KEY), 2, task="frame_prediction", condition=_video()
  )
  with np.load(tmp_path / "out.npz") as fresh:
    np.testing.assert_array_equal(fresh["ids"], ids)
    np.testing.assert_allclose(fresh["video"], tokenizer.decode(ids), atol=1e-6)
    np.testing.assert_allclose(fresh["sample"], sample, atol=1e-6)


def test_the_layout_is_that_of_the_hub(folder):
  names = {"README.md", "config.json", "model.safetensors"}
  assert set(os.listdir(folder)) == names | {"tokenizer"}
  assert set(os.listdir(os.path.join(folder, "tokenizer"))) == names
  for path in (folder, os.path.join(folder, "tokenizer")):
    card = pathlib.Path(path, "README.md").read_text()
    _, front, body = card.split("---\n", 2)
    assert yaml.safe_load(front)["library_name"] == "jax"
    weights = os.path.join(path, exports.WEIGHTS)
    with safetensors.safe_open(weights, framework="numpy") as f:
      assert f.metadata()["fingerprint"] in body
      assert "least significant bit" in f.metadata()["ids"]
      assert f.metadata()["magvit_version"] == magvit.__version__


def test_no_folder_is_overwritten_and_a_failure_leaves_none(
  tiny_tokenizer_workdir, tmp_path, monkeypatch
):
  (tmp_path / "notes").write_text("mine")
  for taken in (tmp_path, tmp_path / "notes"):
    with pytest.raises(ValueError, match=f"--output={taken} is not empty"):
      export_mode.export(tiny_tokenizer_workdir, str(taken))

  def fail(*_):
    raise OSError("disk full")

  monkeypatch.setattr(export_mode, "_card", fail)
  with pytest.raises(OSError, match="disk full"):
    export_mode.export(tiny_tokenizer_workdir, str(tmp_path / "new"))
  assert os.listdir(tmp_path) == ["notes"]


def test_an_export_is_not_trained_in(folder):
  with pytest.raises(ValueError, match="init_from="):
    workdir_lib.check_workdir(folder, tiny.masked(""))


class _Bomb:
  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return pathlib.Path.touch, (pathlib.Path(self.path),)


def test_a_pickle_is_refused_and_not_run(copy, tmp_path):
  data = pickle.dumps(_Bomb(tmp_path / "ran"))
  (copy / "tokenizer" / exports.WEIGHTS).write_bytes(data)
  with pytest.raises(ValueError, match="model.safetensors is not a whole"):
    magvit.load_tokenizer(str(copy / "tokenizer"))
  assert not (tmp_path / "ran").exists()
  pickle.loads(data)
  assert (tmp_path / "ran").exists()  # so it is a bomb


@pytest.mark.parametrize("length", [0, 4, 100, -1])
def test_truncated_weights_are_refused(copy, length):
  path = copy / "tokenizer" / exports.WEIGHTS
  path.write_bytes(path.read_bytes()[:length])
  with pytest.raises(ValueError, match="model.safetensors is not a whole"):
    magvit.load_tokenizer(str(copy / "tokenizer"))


def _change_arrays(arrays, change):
  name = min(k for k in arrays if k.endswith("bias"))
  if change == "value":
    arrays[name] = arrays[name] + np.float32(1e-3)
    return "model.safetensors has the fingerprint [0-9a-f]{16} .* [0-9a-f]{16}"
  if change == "missing":
    del arrays[name]
    return f"lacks tensor '{name}'"
  if change == "extra":
    arrays["zz"] = np.zeros(1, np.float32)
    return "unknown tensor 'zz'"
  if change == "shape":
    arrays[name] = np.zeros(10**6, np.float32)
    return f"tensor '{name}' has shape .1000000,., expected"
  arrays[name] = arrays[name] + np.float32(np.nan)
  return f"tensor '{name}' has nan"


@pytest.mark.parametrize(
  "change", ["value", "missing", "extra", "shape", "nan"]
)
@pytest.mark.parametrize("part", ["tokenizer", "generator"])
def test_changed_arrays_are_refused_by_name(copy, change, part):
  """The metadata stay; the arrays change."""
  is_tokenizer = part == "tokenizer"
  path = str((copy / "tokenizer" if is_tokenizer else copy) / exports.WEIGHTS)
  with safetensors.safe_open(path, framework="numpy") as f:
    metadata = f.metadata()
  arrays = safetensors.numpy.load_file(path)
  message = _change_arrays(arrays, change)
  safetensors.numpy.save_file(arrays, path, metadata)
  with pytest.raises(ValueError, match=message):
    if is_tokenizer:
      magvit.load_tokenizer(str(copy))
    else:
      magvit.load_generator(str(copy)).sample(jax.random.key(0), 1)


def test_a_shape_that_the_file_does_not_hold_is_refused(copy):
  path = copy / "tokenizer" / exports.WEIGHTS
  data = path.read_bytes()
  length = int.from_bytes(data[:8], "little")
  header = json.loads(data[8 : 8 + length])
  name = next(k for k in header if k != "__metadata__")
  header[name]["shape"] = [2**40, 2**40]
  text = json.dumps(header).encode()
  path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
  with pytest.raises(ValueError, match="model.safetensors is not a whole"):
    magvit.load_tokenizer(str(copy / "tokenizer"))


@pytest.mark.parametrize(
  "change, message",
  [
    (
      lambda c: c["tokenizer"].update(base_channel=9),
      "tokenizer.base_channel=9",
    ),
    (lambda c: c["tokenizer"].pop("padding"), "tokenizer.padding is missing"),
    (
      lambda c: c["quantizer"].update(bits=60),
      "quantizer.bits is 60, .* with 6",
    ),
    (
      lambda c: c["tokenizer"].update(base_channels=10**12),
      "tokenizer.base_channels is 1000000000000",
    ),
    (lambda c: c.update(algorithm="masked"), "algorithm is 'masked'"),
    (lambda c: c.clear(), "config.json is no config"),
  ],
)
def test_a_config_of_something_else_is_refused(copy, change, message):
  path = copy / "tokenizer" / "config.json"
  config = json.loads(path.read_text())
  change(config)
  path.write_text(json.dumps(config))
  with pytest.raises(ValueError, match=message):
    magvit.load_tokenizer(str(copy / "tokenizer"))


@pytest.mark.parametrize("text", ["{", "[]", '"x"', "\x80\x02}"])
def test_a_config_that_is_none_is_refused(copy, text):
  (copy / "config.json").write_bytes(text.encode("latin1"))
  with pytest.raises(ValueError, match="config.json(: it is| is not JSON)"):
    magvit.load_generator(str(copy))


def test_a_generator_is_loaded_with_its_own_tokenizer_only(copy):
  (copy / "tokenizer" / exports.WEIGHTS).unlink()
  with pytest.raises(ValueError, match="tokenizer lacks model.safetensors"):
    magvit.load_generator(str(copy))
  other = copy / exports.WEIGHTS
  shutil.copy(other, copy / "tokenizer" / exports.WEIGHTS)
  with pytest.raises(
    ValueError, match="tokenizer [0-9a-f]{16}, .* [0-9a-f]{16}: "
  ):
    magvit.load_generator(str(copy))


def test_weights_that_are_no_export_are_refused(copy):
  path = copy / "tokenizer" / exports.WEIGHTS
  arrays = safetensors.numpy.load_file(path)
  safetensors.numpy.save_file(arrays, path)  # without metadata
  with pytest.raises(
    ValueError, match="model.safetensors is no export .*--mode=export"
  ):
    magvit.load_tokenizer(str(copy / "tokenizer"))


@pytest.mark.parametrize("step", ["-1", "1e3", "²", ""])
def test_a_step_that_is_no_number_of_steps_is_refused(copy, step):
  path = copy / "tokenizer" / exports.WEIGHTS
  with safetensors.safe_open(path, framework="numpy") as f:
    metadata = {**f.metadata(), "step": step}
  safetensors.numpy.save_file(safetensors.numpy.load_file(path), path, metadata)
  with pytest.raises(ValueError, match="must be a whole number from 0"):
    magvit.load_tokenizer(str(copy / "tokenizer"))
