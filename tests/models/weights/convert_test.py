"""Tests of models/weights/convert.py; the numbers are in perceptual_test.py."""

import hashlib
import sys

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from models.features import perceptual
from models.weights import convert
from tests.models.features import perceptual_reference as reference


@pytest.fixture(scope="module")
def sources():
  """Tensors by network, as the published files name them."""
  return {
    "resnet50": reference.resnet50(),
    "lpips_vgg": {**reference.vgg16_features(), **reference.lpips_heads()},
  }


@pytest.fixture
def no_torch(monkeypatch):
  monkeypatch.setitem(sys.modules, "torch", None)


def _message(network, tensors):
  with pytest.raises(ValueError) as error:
    convert.from_torch(network, tensors, "SOURCE")
  assert "SOURCE" in str(error.value)
  return str(error.value)


@pytest.mark.parametrize(
  ("network", "name"),
  [
    ("resnet50", "layer3.0.downsample.1.running_var"),
    ("lpips_vgg", "features.28.bias"),
    ("lpips_vgg", "lin4.model.1.weight"),
  ],
)
def test_missing_extra_and_misshapen_tensors_are_named(sources, network, name):
  tensors = sources[network]
  without = {k: v for k, v in tensors.items() if k != name}
  assert f"lacks tensor {name!r}" in _message(network, without)
  extra = {**tensors, f"{name}s": tensors[name]}
  assert f"unknown tensor '{name}s'" in _message(network, extra)
  wrong = {**tensors, name: np.zeros(7, np.float32)}
  expected = f"tensor {name!r} has shape (7,), expected {tensors[name].shape}"
  assert expected in _message(network, wrong)


def test_what_the_distances_do_not_use_is_ignored(sources):
  classifier = {"classifier.6.bias": np.zeros(1000, np.float32)}
  for network, extra in (("lpips_vgg", classifier), ("resnet50", {})):
    with_extra = convert.from_torch(network, sources[network] | extra, "-")
    assert not any("classifier" in x or "tracked" in x for x in with_extra)


def test_lpips_needs_heads_that_are_not_negative(sources):
  trunk = reference.vgg16_features()
  assert "as --lin" in _message("lpips_vgg", trunk)
  name = "lin2.model.1.weight"
  negative = {**sources["lpips_vgg"], name: -sources["lpips_vgg"][name]}
  assert f"tensor {name!r} has negative" in _message("lpips_vgg", negative)


def test_the_lpips_packages_own_state_dict_gives_the_same_weights(sources):
  two_files = sources["lpips_vgg"]
  combined = reference.lpips_package(two_files)
  expected = convert.from_torch("lpips_vgg", two_files, "-")
  got = convert.from_torch("lpips_vgg", combined, "-")
  assert got.keys() == expected.keys()
  for name in expected:
    np.testing.assert_array_equal(got[name], expected[name])


def test_the_command_writes_a_file_that_says_what_it_was_made_from(
  sources, tmp_path, monkeypatch, capsys, no_torch
):
  trunk, heads = tmp_path / "vgg16.npz", tmp_path / "lin.safetensors"
  np.savez(trunk, **reference.vgg16_features())
  safetensors.numpy.save_file(reference.lpips_heads(), heads)
  output = tmp_path / "lpips_vgg.safetensors"
  arguments = ["--network=lpips_vgg", f"--input={trunk}", f"--lin={heads}"]
  arguments.append(f"--output={output}")
  monkeypatch.setattr(sys, "argv", ["convert", *arguments])
  convert.main()
  assert capsys.readouterr().out == f"{output}\n"
  with safetensors.safe_open(output, framework="numpy") as f:
    metadata = f.metadata()
  sha256 = lambda path: hashlib.sha256(path.read_bytes()).hexdigest()
  assert metadata["network"] == "lpips_vgg"
  assert metadata["input_sha256"] == sha256(trunk)
  assert metadata["lin_sha256"] == sha256(heads)
  with pytest.raises(ValueError, match="'lpips_vgg'.*'resnet50'"):
    perceptual.load("resnet50", str(output))
  before = sha256(output)
  with pytest.raises(SystemExit, match="error: --output=.*exists"):
    convert.main()
  assert sha256(output) == before
  for path in (trunk, heads, output):
    path.unlink()  # 60 MB each


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (("resnet50", "a.bin", "x.safetensors"), "a.bin must end in one of"),
    (("resnet50", "a.npz", "x.safetensors"), "a.npz is no file"),
    (("resnet50", "a.npz", "x.npz"), "x.npz must end in .safetensors"),
    (
      ("resnet50", "a.npz", "x.safetensors", "b.npz"),
      "--lin=b.npz .*--network=lpips_vgg",
    ),
  ],
)
def test_wrong_arguments_are_refused(arguments, message):
  with pytest.raises(ValueError, match=message):
    convert.convert(*arguments)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".pth"])
@pytest.mark.parametrize("data", [b"", b"neither", b"PK\x03\x04 torn"])
def test_a_broken_source_is_refused(suffix, data, tmp_path):
  path = tmp_path / f"source{suffix}"
  path.write_bytes(data)
  with pytest.raises(ValueError, match="is not an? .*file"):
    convert.convert("resnet50", str(path), str(tmp_path / "x.safetensors"))


def test_a_tensor_in_both_files_is_refused(tmp_path):
  for name in ("a", "b"):
    np.savez(tmp_path / f"{name}.npz", **reference.lpips_heads())
  with pytest.raises(
    ValueError, match="'lin0.model.1.weight' .*--input .*--lin"
  ):
    convert.convert(
      "lpips_vgg",
      str(tmp_path / "a.npz"),
      str(tmp_path / "x.safetensors"),
      str(tmp_path / "b.npz"),
    )
