"""Parameter trees of Google's v2 tokenizer, as weights of our own network.

google/praxis, `praxis/layers/video/vqvae.py:VQVaeModel`, whose layers ours
follow. A tree comes as one file of named tensors, the path joined by "/" or
".", with or without "params" in front: "encoder/res_blocks_0/conv_0/w".
"""

from collections.abc import Mapping
import re
from typing import Any

import numpy as np

from models.weights import safetensors_file

_RENAMES = (  # from our names to praxis', in this order
  (r"\.conv_in\.", ".conv_first."),
  (r"\.conv_out\.", ".conv_last."),
  (r"\.norm_out\.", ".norm."),
  (r"\.downs\.(\d+)\.", r".conv_downsample_layers_\1."),
  (r"\.ups\.(\d+)\.", r".conv_upsample_layers_\1."),
  (r"\.adaptive_norms\.(\d+)\.scale\.", r".cond_norm_layers_\1.gamma_"),
  (r"\.adaptive_norms\.(\d+)\.bias\.", r".cond_norm_layers_\1.beta_"),
  (r"_kernel$", "_linear.w"),
  (r"_bias$", "_bias.b"),
  (r"\.shortcut\.", ".conv_shortcut."),
  (r"\.norm1\.", ".norm_0."),
  (r"\.norm2\.", ".norm_1."),
  (r"\.conv1\.", ".conv_0."),
  (r"\.conv2\.", ".conv_1."),
  (r"(\.norm(?:_\d)?)\.scale$", r"\1.gamma"),  # the factor is 1 + gamma
  (r"(\.norm(?:_\d)?)\.bias$", r"\1.beta"),
  (r"\.kernel$", ".w"),
  (r"\.bias$", ".b"),
)
_BLOCK = re.compile(r"^(\w+)\.(?:levels\.(\d+)|mid)\.(\d+)\.")


def is_video(tensors: Mapping[str, np.ndarray]) -> bool:
  """Whether kernels span frames."""
  return _find(_dotted(tensors), "encoder.conv_first.w").shape[0] > 1


def settings(tensors: Mapping[str, np.ndarray]) -> dict[str, dict[str, Any]]:
  """Config fields, by section, that follow from a tree's shapes.

  Raises:
    ValueError: the tensors are no tree of this tokenizer.
  """
  tensors = _dotted(tensors)
  width = _find(tensors, "encoder.conv_first.w").shape[-1]
  downs = _count(tensors, r"encoder\.conv_downsample_layers_\d+")
  blocks = _count(tensors, r"encoder\.res_blocks_\d+") // (downs + 2)
  widths = [
    _find(tensors, f"encoder.res_blocks_{i * blocks}.conv_0.w").shape[-1]
    for i in range(downs + 1)
  ]
  enlarged = [  # shapes of the decoder's kernels, from fine to coarse
    _find(tensors, f"decoder.conv_upsample_layers_{downs - 1 - i}.w").shape
    for i in range(downs)
  ]
  return {
    "tokenizer": {
      "base_channels": width,
      "channel_multipliers": tuple(w // width for w in widths),
      "temporal_downsample": tuple(
        shape[-1] == 8 * w
        for shape, w in zip(enlarged, widths[1:], strict=True)
      ),
      "num_res_blocks": blocks,
    },
    "quantizer": {"bits": _find(tensors, "encoder.conv_last.w").shape[-1]},
  }


def to_ours(
  tensors: Mapping[str, np.ndarray], abstract: Any, source: str
) -> tuple[dict[str, np.ndarray], str]:
  """Names a tree's tensors as ours, and says "raw": it holds no averages.

  Args:
    tensors: the tree, flat.
    abstract: our parameters (`jax.eval_shape`), made with `settings`.
    source: names the file in errors.

  Raises:
    ValueError: a tensor is missing, unknown or mis-shaped; it is named.
  """
  tensors = _dotted(tensors)
  ours = safetensors_file.by_name(abstract)
  num_blocks = len({n.split(".")[2] for n in ours if "encoder.mid." in n})
  num_levels = len({n.split(".")[2] for n in ours if "encoder.levels." in n})
  names = {n: _their_name(n, num_levels, num_blocks) for n in ours}
  # Scales and biases of norms have the shape in which they are broadcast.
  is_norm = lambda name: re.search(r"\.norm(_\d)?\.", name) is not None
  shapes = {
    names[k]: (1, 1, 1, *x.shape) if is_norm(names[k]) else x.shape
    for k, x in ours.items()
  }
  safetensors_file.check_tensors(source, tensors, shapes)
  converted = {k: tensors[names[k]].reshape(x.shape) for k, x in ours.items()}
  return converted, "raw"


def _their_name(name: str, num_levels: int, num_blocks: int) -> str:
  def in_one_list(match):
    part, level, block = match.groups()
    # The bottom blocks are the encoder's last and the decoder's first.
    if part == "encoder":
      place = num_levels if level is None else int(level)
    else:
      place = 0 if level is None else int(level) + 1
    return f"{part}.res_blocks_{place * num_blocks + int(block)}."

  name = _BLOCK.sub(in_one_list, name)
  for pattern, replacement in _RENAMES:
    name = re.sub(pattern, replacement, name)
  return name


def _dotted(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  return {
    name.replace("/", ".").removeprefix("params."): tensor
    for name, tensor in tensors.items()
  }


def _find(tensors: Mapping[str, np.ndarray], name: str) -> np.ndarray:
  if name not in tensors:
    raise ValueError(f"no tensor {name}: it is no tree of praxis' VQVaeModel")
  return tensors[name]


def _count(tensors: Mapping[str, np.ndarray], pattern: str) -> int:
  matches = (re.match(pattern, name) for name in tensors)
  return len({m[0] for m in matches if m})
