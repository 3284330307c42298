"""Weights that the user supplies, as one .safetensors file per network.

A tensor is named like our parameter, joined by dots (`stages.0.0.kernel`).
The metadata say which network it is and which files it was made from;
`models/weights/convert.py` and `magvit/modes/export.py` write these files.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import hashlib
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from storage import files
from storage import schema
from storage import stores

_FORMAT_VERSION = "1"


def load(path: str, name: str, abstract: Any) -> Any:
  """Reads the weights of network `name` into a tree with exactly these arrays.

  Returns float32 arrays. `abstract` has their shapes (`jax.eval_shape`).

  Raises:
    ValueError: another network's file, one that `models.weights.convert` did
      not write, or a tensor that is missing, extra or of another shape.
  """
  try:
    with safetensors.safe_open(stores.fetched(path), framework="numpy") as f:
      metadata = f.metadata() or {}
      tensors = {key: f.get_tensor(key) for key in f.keys()}
  except Exception as error:
    reason = schema.brief(error, 300)
    raise ValueError(f"{path} is not a .safetensors file: {reason}") from error
  _check_metadata(path, name, metadata)
  wanted = by_name(abstract)
  check_tensors(path, tensors, {k: leaf.shape for k, leaf in wanted.items()})
  return as_tree(tensors, abstract)


def check_network(path: str, name: str) -> None:
  """Checks whose weights a file holds, without reading them.

  Raises:
    ValueError: another network's file, or one that `models.weights.convert` did
      not write.
  """
  try:
    with safetensors.safe_open(stores.fetched(path), framework="numpy") as f:
      metadata = f.metadata() or {}
  except Exception as error:
    reason = schema.brief(error, 300)
    raise ValueError(f"{path} is not a .safetensors file: {reason}") from error
  _check_metadata(path, name, metadata)


def _check_metadata(path: str, name: str, metadata: dict[str, str]) -> None:
  if metadata.get("format_version") != _FORMAT_VERSION:
    raise ValueError(
      f"{path} has format_version={metadata.get('format_version')!r}, expected"
      f" {_FORMAT_VERSION!r}: make it with python -m models.weights.convert"
      f" --network={name}"
    )
  if metadata.get("network") != name:
    raise ValueError(
      f"{path} holds the weights of {metadata.get('network')!r}, expected those"
      f" of {name!r}"
    )


def save(
  path: str,
  name: str,
  tensors: Mapping[str, np.ndarray],
  notes: Mapping[str, str],
) -> None:
  """Writes weights for `load`, with notes on where they are from.

  The file is written whole or not at all, and an existing one stays as it is.

  Raises:
    ValueError: the file exists.
  """
  metadata = {
    "format_version": _FORMAT_VERSION,
    "network": name,
    **notes,
  }
  data = safetensors.numpy.save(dict(tensors), metadata)
  try:
    files.write_atomically(path, data, replace=False)
  except FileExistsError as error:
    raise ValueError(f"{path} exists: remove it or name another") from error


def as_tree(tensors: Mapping[str, np.ndarray], abstract: Any) -> Any:
  """Puts named tensors into a tree like `abstract`, as float32."""
  return jax.tree.structure(abstract).unflatten(
    jnp.asarray(tensors[name], jnp.float32) for name in by_name(abstract)
  )


def digest(
  settings: Sequence[Mapping[str, Any]], tensors: Mapping[str, np.ndarray]
) -> str:
  """sha256 in hexadecimal of settings and tensors, the same on every machine.

  It covers the settings as JSON, in their order, and the name, shape, type and
  bytes of every tensor, sorted by name.
  """
  hashed = hashlib.sha256()
  for each in settings:
    hashed.update(json.dumps(each, sort_keys=True).encode())
  for name, tensor in sorted(tensors.items()):
    described = [name, tensor.shape, tensor.dtype.name]
    hashed.update(json.dumps(described).encode())
    hashed.update(tensor.tobytes())
  return hashed.hexdigest()


def by_name(tree: Any) -> dict[str, Any]:
  """Leaves of a tree of parameters by dotted name, in the tree's order."""
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {".".join(str(k.key) for k in path): leaf for path, leaf in leaves}


def check_tensors(
  source: str,
  tensors: Mapping[str, np.ndarray],
  shapes: Mapping[str, tuple[int, ...]],
) -> None:
  """Checks that the tensors read from `source` have these names and shapes.

  Raises:
    ValueError: a tensor is missing, extra, of another shape, no floating-point
      number or not finite; it is named.
  """
  for label, names in (
    ("lacks", shapes.keys() - tensors.keys()),
    ("has an unknown", tensors.keys() - shapes.keys()),
  ):
    if names:
      raise ValueError(
        f"{source} {label} tensor {min(names)!r} (and {len(names) - 1} more):"
        " it must hold exactly the tensors of the network"
      )
  for name, shape in shapes.items():
    tensor = tensors[name]
    if tensor.shape != shape:
      raise ValueError(
        f"{source}: tensor {name!r} has shape {tensor.shape}, expected {shape}"
      )
    if not np.issubdtype(tensor.dtype, np.floating):
      raise ValueError(
        f"{source}: tensor {name!r} has dtype {tensor.dtype}, expected floating"
        " point"
      )
    if not np.isfinite(tensor).all():
      raise ValueError(f"{source}: tensor {name!r} has nan or infinite values")
