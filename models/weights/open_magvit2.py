"""Open-MAGVIT2's published tokenizers, as weights of our own network.

TencentARC/SEED-Voken, `src/Open_MAGVIT2`, image and video. The network is ours
with the settings of `configs/tokenizer_video.py:open_magvit2`; here are the
names and layouts of its tensors. A checkpoint holds raw weights and, under
names without dots, their moving average, which the authors evaluate with.
"""

from collections.abc import Mapping
import re
from typing import Any

import numpy as np

from models.weights import safetensors_file

_AVERAGE = "model_ema."
_IGNORED = (  # discriminator, its average, LPIPS, and counters of the average
  r"loss\..*",
  r"model_ema\.(loss.*|decay|num_updates)",
)
_RENAMES = (  # from our names to the checkpoint's, in this order
  (r"\.mid\.", ".mid_block."),
  (r"^encoder\.levels\.(\d+)\.", r"encoder.down.\1.block."),
  (r"^encoder\.downs\.(\d+)\.", r"encoder.down.\1.downsample."),
  (r"^decoder\.levels\.(\d+)\.", r"decoder.up.\1.block."),
  (r"^decoder\.ups\.(\d+)\.", r"decoder.up.\1.upsample.conv1."),
  (r"^decoder\.adaptive_norms\.(\d+)\.scale\.", r"decoder.adaptive.\1.gamma."),
  (r"^decoder\.adaptive_norms\.(\d+)\.bias\.", r"decoder.adaptive.\1.beta."),
  (r"\.shortcut\.", ".nin_shortcut."),
  (r"\.(kernel|scale)$", ".weight"),
)


def is_video(tensors: Mapping[str, np.ndarray]) -> bool:
  """Whether a checkpoint's convolutions are 3-D."""
  return any("conv_inconv_1" in _raw_name(name) for name in tensors)


def settings(tensors: Mapping[str, np.ndarray]) -> dict[str, dict[str, Any]]:
  """Config fields, by section, that follow from a checkpoint's shapes.

  Raises:
    ValueError: the tensors are no checkpoint of these tokenizers.
  """
  video = is_video(tensors)
  conv = ".conv_1" if video else ""
  width = _find(tensors, f"encoder.conv_in{conv}.weight").shape[0]
  levels = _count(tensors, r"encoderdown\d(?=block0)")
  multipliers = tuple(
    _find(tensors, f"encoder.down.{i}.block.0.conv1{conv}.weight").shape[0]
    // width
    for i in range(levels)
  )
  return {
    "tokenizer": {
      "base_channels": width,
      "channel_multipliers": multipliers,
      # Open-MAGVIT2's rule: levels of the base width keep time.
      "temporal_downsample": tuple(video and m != 1 for m in multipliers[:-1]),
      "num_res_blocks": _count(tensors, r"encoderdown0block\d(?=conv1)"),
    },
    "quantizer": {"bits": _find(tensors, f"encoder.conv_out{conv}.bias").size},
  }


def to_ours(
  tensors: Mapping[str, np.ndarray], abstract: Any, source: str
) -> tuple[dict[str, np.ndarray], str]:
  """Names a checkpoint's tensors as ours, and says which: "ema" or "raw".

  Args:
    tensors: the checkpoint's state dict.
    abstract: our parameters (`jax.eval_shape`), made with `settings`.
    source: names the file in errors.

  Raises:
    ValueError: a tensor is missing, unknown or mis-shaped; it is named.
  """
  video = is_video(tensors)
  ours = safetensors_file.by_name(abstract)
  num_levels = len({n.split(".")[2] for n in ours if ".levels." in n})
  names = {name: _their_name(name, num_levels, video) for name in ours}
  ignored = re.compile("|".join(_IGNORED))
  used = {k: v for k, v in tensors.items() if not ignored.fullmatch(k)}
  average = {k: v for k, v in used.items() if k.startswith(_AVERAGE)}
  raw = {k: v for k, v in used.items() if k not in average}
  shapes = {names[k]: _their_shape(k, x.shape, video) for k, x in ours.items()}
  if raw or not average:
    safetensors_file.check_tensors(source, raw, shapes)
  if average:
    dotless = {_AVERAGE + k.replace(".", ""): k for k in shapes}
    safetensors_file.check_tensors(
      source, average, {k: shapes[v] for k, v in dotless.items()}
    )
    raw = {name: average[k] for k, name in dotless.items()}
  converted = {k: _to_our_layout(k, raw[names[k]]) for k in ours}
  return converted, "ema" if average else "raw"


def _find(tensors: Mapping[str, np.ndarray], name: str) -> np.ndarray:
  for key in (name, _AVERAGE + name.replace(".", "")):
    if key in tensors:
      return tensors[key]
  raise ValueError(
    f"no tensor {name}: it is no checkpoint of Open-MAGVIT2's tokenizers"
  )


def _count(tensors: Mapping[str, np.ndarray], pattern: str) -> int:
  matches = (re.match(pattern, _raw_name(name)) for name in tensors)
  return len({m[0] for m in matches if m})


def _raw_name(name: str) -> str:
  """Name without dots, the same for a raw weight and for its average."""
  return name.removeprefix(_AVERAGE).replace(".", "")


def _their_name(name: str, num_levels: int, video: bool) -> str:
  # Our decoder counts its levels from the coarsest, theirs from the finest.
  name = re.sub(
    r"^(decoder\.(?:levels|ups|adaptive_norms)\.)(\d+)",
    lambda m: f"{m[1]}{num_levels - 1 - int(m[2])}",
    name,
  )
  is_conv = re.search(r"(conv\w*|ups\.\d+|downs\.\d+|shortcut)\.\w+$", name)
  for pattern, replacement in _RENAMES:
    name = re.sub(pattern, replacement, name)
  if video and is_conv:
    head, tail = name.rsplit(".", 1)
    name = f"{head}.conv_1.{tail}"
  return name


def _their_shape(name: str, shape: tuple[int, ...], video: bool):
  if len(shape) == 5:  # (kt, kh, kw, I, O)
    kt, kh, kw, cin, cout = shape
    return (cout, cin, kt, kh, kw) if video else (cout, cin, kh, kw)
  return shape[::-1]  # (I, O) of linear maps; (C,)


def _to_our_layout(name: str, tensor: np.ndarray) -> np.ndarray:
  if tensor.ndim >= 4:
    kernel = np.moveaxis(tensor, (1, 0), (-2, -1))
    return kernel if kernel.ndim == 5 else kernel[None]
  # We scale by 1 + s, Open-MAGVIT2 by s.
  is_scale = name.endswith(".scale") or name.endswith(".scale.bias")
  return tensor.T - 1.0 if is_scale else tensor.T
