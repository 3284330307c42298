"""Files of named tensors that others publish, as numpy arrays."""

import hashlib
import os
import pathlib

import numpy as np
import safetensors.numpy


def read(path: str) -> dict[str, np.ndarray]:
  """Tensors of a .pth, .pt, .ckpt, .safetensors or .npz file by name.

  Of a training checkpoint (Lightning's .ckpt) those of its "state_dict".

  Raises:
    ValueError: another suffix, no file, or one that cannot be read.
  """
  suffix = pathlib.Path(path).suffix
  if suffix not in _READERS:
    raise ValueError(f"{path} must end in one of {', '.join(_READERS)}")
  if not os.path.isfile(path):
    raise ValueError(f"{path} is no file")
  return _READERS[suffix](path)


def sha256(path: str) -> str:
  """Of a file's bytes, in hexadecimal."""
  with open(path, "rb") as f:
    return hashlib.file_digest(f, "sha256").hexdigest()


def _read_torch(path: str) -> dict[str, np.ndarray]:
  try:
    import torch  # needed for these files only, hence not a requirement
  except ImportError as error:
    raise ValueError(
      f"reading {path} needs torch: pip install torch, or save its tensors as"
      " .safetensors or .npz where torch is installed"
    ) from error
  try:
    # weights_only: a pickle may run any code. On the CPU: LPIPS's heads were
    # saved from a GPU.
    tensors = torch.load(path, map_location="cpu", weights_only=True)
  except Exception as error:
    raise ValueError(
      f"{path} is not a file of torch tensors: {error}"
    ) from error
  if isinstance(tensors, dict):
    tensors = tensors.get("state_dict", tensors)
  if not isinstance(tensors, dict) or not all(
    isinstance(x, torch.Tensor) for x in tensors.values()
  ):
    raise ValueError(f"{path} must hold a state dict: tensors by name")
  return {
    # bfloat16, which numpy does not know, is exact in float32.
    name: (x.float() if x.is_floating_point() else x).detach().numpy()
    for name, x in tensors.items()
  }


def _read_safetensors(path: str) -> dict[str, np.ndarray]:
  try:
    return safetensors.numpy.load_file(path)
  except Exception as error:
    raise ValueError(f"{path} is not a .safetensors file: {error}") from error


def _read_npz(path: str) -> dict[str, np.ndarray]:
  try:
    with open(path, "rb") as f, np.load(f, allow_pickle=False) as tensors:
      return dict(tensors)
  except Exception as error:
    raise ValueError(f"{path} is not an .npz file: {error}") from error


_READERS = {
  ".ckpt": _read_torch,
  ".pth": _read_torch,
  ".pt": _read_torch,
  ".safetensors": _read_safetensors,
  ".npz": _read_npz,
}
