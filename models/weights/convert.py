"""Converts the published weights of a network to a file of ours.

  python -m models.weights.convert --network=resnet50 \
    --input=resnet50-0676ba61.pth --output=resnet50.safetensors
  python -m models.weights.convert --network=lpips_vgg \
    --input=vgg16-397923af.pth --lin=vgg.pth --output=lpips_vgg.safetensors
  python -m models.weights.convert --network=inception --input=FILE \
    --output=inception.safetensors

Sources are .pth and .pt files, whose tensors are read without torch and without
running their code, or the same tensors as .safetensors or .npz. Every tensor of
a source is used or listed as ignored; anything else is refused by name. For
lpips_vgg, --input may also be the state dict of the `lpips` package's own
network, which has trunk and heads. The feature networks (inception, i3d, c3d)
take more kinds of files, among them TensorFlow's; `models/features/` lists them
per network.
"""

from storage import interrupts

if __name__ == "__main__":
  interrupts.end_at_once()  # the other imports take seconds

import argparse
from collections.abc import Collection
from collections.abc import Mapping
import os
import re
import sys

import numpy as np

from models.features import lpips
from models.features import networks as feature_networks
from models.features import perceptual
from models.weights import feature_networks as feature_weights
from models.weights import readers
from models.weights import safetensors_file
from storage import paths

_IGNORED = {
  "resnet50": (
    r".*\.num_batches_tracked",  # counters of training
  ),
  "lpips_vgg": (
    r"classifier\.\d\.(weight|bias)",  # VGG-16's, above what LPIPS compares
    r"scaling_layer\.(shift|scale)",  # constants of models/features/lpips.py
    r"lins\.\d\.model\.1\.weight",  # lin0 to lin4 under a second name
  ),
}
_RESNET50_RENAMES = (  # from our names to torchvision's, in this order
  (r"^conv_in", "conv1"),
  (r"^norm_in", "bn1"),
  (r"^stages\.(\d)", lambda match: f"layer{int(match[1]) + 1}"),
  (r"shortcut_norm", "downsample.1"),
  (r"shortcut", "downsample.0"),
  (r"norm(\d)", r"bn\1"),
  (r"^head", "fc"),
  (r"(kernel|scale)$", "weight"),
  (r"mean$", "running_mean"),
  (r"variance$", "running_var"),
)


def convert(
  network: str, input_path: str, output_path: str, lin_path: str | None = None
) -> None:
  """Writes the .safetensors file of a network, for `safetensors_file.load`.

  Args:
    network: "resnet50", "lpips_vgg", or one of `models.features.networks`.
    input_path: its published weights; for lpips_vgg torchvision's VGG-16.
    output_path: the file to write; it must not exist.
    lin_path: the v0.1 heads of lpips_vgg; None where the input has them.

  Raises:
    ValueError: the output exists, a source cannot be read, or one of its
      tensors is missing, unknown, mis-shaped or not what it should be.
  """
  check_output(output_path)
  if lin_path and network != "lpips_vgg":
    raise ValueError(
      f"--lin={lin_path} needs --network=lpips_vgg, not {network}: leave it out"
    )
  paths = {"input": input_path} | ({"lin": lin_path} if lin_path else {})
  given, hashes = {}, {}
  for option, path in paths.items():
    tensors = readers.read(path)
    if given.keys() & tensors.keys():
      name = min(given.keys() & tensors.keys())
      raise ValueError(
        f"tensor {name!r} is in --input and in --lin: give it in one of them"
      )
    given |= tensors
    hashes[f"{option}_sha256"] = readers.sha256(path)
  source = " and ".join(paths.values())
  if network in feature_networks.NETWORKS:
    converted, kind = feature_weights.to_ours(network, given, source)
  else:
    converted, kind = from_torch(network, given, source), "torch"
  notes = {**hashes, "source_kind": kind}
  safetensors_file.save(output_path, network, converted, notes)


def check_output(path: str) -> None:
  """Raises ValueError for a file that exists, or is named as another kind."""
  if os.path.lexists(path):
    raise ValueError(f"--output={path} exists: remove it or name another")
  if not path.endswith(".safetensors"):
    raise ValueError(f"--output={path} must end in .safetensors")


def from_torch(
  network: str, given: Mapping[str, np.ndarray], source: str
) -> dict[str, np.ndarray]:
  """Converts tensors named and laid out for torch to ours, float32.

  `source` says in errors where they come from.

  Raises:
    ValueError: a tensor is missing, unknown, mis-shaped or not what it should
      be; it is named.
  """
  ignored = re.compile("|".join(_IGNORED[network]))
  used = {k: v for k, v in given.items() if not ignored.fullmatch(k)}
  _, abstract = perceptual.define(network)
  shapes = {k: x.shape for k, x in safetensors_file.by_name(abstract).items()}
  if network == "lpips_vgg":
    names = _lpips_vgg_names(used)
    heads = {x for x in names.values() if x.startswith("lin")}
    if set(names.values()) - used.keys() == heads:
      raise ValueError(
        f"{source} has the trunk of LPIPS, but no tensors {sorted(heads)}: give"
        " the file of its heads as --lin"
      )
  else:
    names = {ours: _resnet50_name(ours) for ours in shapes}
  safetensors_file.check_tensors(
    source, used, {names[k]: _torch_shape(shapes[k]) for k in shapes}
  )
  for name, tensor in used.items():
    if name.startswith("lin") and tensor.min() < 0:
      raise ValueError(
        f"{source}: tensor {name!r} has negative weights: it is no head of"
        " LPIPS, whose distances are not negative"
      )
  return {
    ours: _to_our_layout(used[published]).astype(np.float32)
    for ours, published in names.items()
  }


def _resnet50_name(name: str) -> str:
  for pattern, replacement in _RESNET50_RENAMES:
    name = re.sub(pattern, replacement, name)
  return name


def _lpips_vgg_names(given: Collection[str]) -> dict[str, str]:
  """Maps our names to those of VGG-16 and heads, or of the lpips package."""
  combined = any(name.startswith("net.slice") for name in given)
  names, layer = {}, 0
  for stage, (num_convs, _) in enumerate(lpips.STAGES):
    for conv in range(num_convs):
      where = f"net.slice{stage + 1}" if combined else "features"
      names[f"stages.{stage}.{conv}.kernel"] = f"{where}.{layer}.weight"
      names[f"stages.{stage}.{conv}.bias"] = f"{where}.{layer}.bias"
      layer += 2  # torchvision counts activations, too
    layer += 1  # and the pool of the stage
    names[f"heads.{stage}.kernel"] = f"lin{stage}.model.1.weight"
  return names


def _torch_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
  """Turns (kh, kw, I, O) to (O, I, kh, kw), (I, O) to (O, I); keeps (O,)."""
  return (*shape[:-3:-1], *shape[:-2]) if len(shape) > 1 else shape


def _to_our_layout(tensor: np.ndarray) -> np.ndarray:
  """The inverse of `_torch_shape`: (O, I, kh, kw) to (kh, kw, I, O)."""
  if tensor.ndim < 2:
    return tensor
  return np.ascontiguousarray(np.moveaxis(tensor, (1, 0), (-2, -1)))


def main() -> None:
  parser = argparse.ArgumentParser(
    description="Converts published weights of a network."
  )
  parser.add_argument(
    "--network",
    required=True,
    help="name of the network in this project",
    choices=sorted({*_IGNORED, *feature_networks.NETWORKS}),
  )
  parser.add_argument(
    "--input",
    required=True,
    type=paths.argument,
    help="published file to convert",
  )
  parser.add_argument(
    "--lin",
    type=paths.argument,
    help="file with the heads of lpips_vgg, unless --input has them",
  )
  parser.add_argument(
    "--output",
    required=True,
    type=paths.argument,
    help="file to write, .safetensors",
  )
  args = parser.parse_args()
  with interrupts.in_one_line():
    try:
      convert(args.network, args.input, args.output, args.lin)
    except (ValueError, OSError) as error:
      sys.exit(f"error: {error}")
  print(args.output)


if __name__ == "__main__":
  main()
