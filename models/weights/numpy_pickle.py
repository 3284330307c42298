"""Arrays of numpy in a pickle, without unpickling it.

They are read by the machine of pickled.py, which knows numpy's few names for
arrays here, and calls nothing that a file names.
"""

import math
from typing import Any

import numpy as np

from models.weights import pickled

_DTYPES = ("f2", "f4", "f8")  # floating point, by numpy's codes


class _Dtype(pickled.Stateful):
  """A type of numbers, little-endian once its state is set."""

  def __init__(self, code: str, *_: Any):
    if code not in _DTYPES:
      raise ValueError(f"{code} is no type of floating point")
    self.dtype: np.dtype | None = None
    self._code = code

  def set_state(self, state: Any) -> None:
    if state[1] != "<":
      raise ValueError("numbers must be little-endian")
    self.dtype = np.dtype(f"<{self._code}")


class _Array(pickled.Stateful):
  """An array, whole once its state is set."""

  def __init__(self, *_: Any):
    self.array: np.ndarray | None = None

  def set_state(self, state: Any) -> None:
    _, shape, kind, is_fortran, data = state
    if kind.dtype is None or not isinstance(data, bytes):
      raise TypeError("no array of numbers")
    if math.prod(shape) * kind.dtype.itemsize != len(data):
      raise ValueError(f"{len(data)} bytes cannot be an array of {shape}")
    order = "F" if is_fortran else "C"
    self.array = np.frombuffer(data, kind.dtype).reshape(shape, order=order)


_FUNCTIONS = {
  "numpy ndarray": None,  # only mentioned
  "numpy dtype": _Dtype,
  "numpy.core.multiarray _reconstruct": _Array,
  "numpy._core.multiarray _reconstruct": _Array,
}


def read(path: str) -> dict[str, np.ndarray]:
  """Arrays of a dict of lists of arrays, each by "KEY.PLACE".

  Raises:
    ValueError: a damaged file, one of anything else, or one of more than
      pickled.MOST_BYTES.
  """
  with open(path, "rb") as f:
    try:
      tree = pickled.load(f, {}, _FUNCTIONS)
    except (ValueError, MemoryError) as error:
      raise ValueError(f"{path} is not a pickle of arrays: {error}") from error
  if not isinstance(tree, dict) or not all(
    isinstance(value, list) for value in tree.values()
  ):
    raise ValueError(f"{path} must hold a dict of lists of arrays")
  tensors = {
    f"{key}.{place}": getattr(value, "array", None)
    for key, values in tree.items()
    for place, value in enumerate(values)
  }
  for name, tensor in tensors.items():
    if tensor is None:
      raise ValueError(f"{path}: {name[:100]!r} is no array")
  return {name: x for name, x in tensors.items() if x is not None}
