"""The one door for numbers: those that cannot be are refused by name and place.

A diverged model gives NaN, and most scores of NaN are numbers that look real:
comparisons with NaN are false, and a cast to uint8 makes it black. So every
metric, protocol and picture takes what it is given through these checks first.

They run on the host, on some rows at a time: features that are mapped from a
file are never in memory whole. Beside the metrics their time is small.
"""

from collections.abc import Iterator
import math
import numbers
from typing import Any

import numpy as np

_VALUES_AT_ONCE = 2**22  # numbers that are checked together
_REMEDY = (
  "the model or network that made them has probably diverged, or a file is"
  " damaged"
)
_SUM_ERROR = 1e-3  # allowed where probabilities of float32 sum to 1


def check_range(
  name: str,
  array: Any,
  low: float = -math.inf,
  high: float = math.inf,
  first: int = 0,
) -> None:
  """Raises ValueError unless all numbers are finite, and in [low, high].

  Args:
    name: the array in the error, like "made features pool3".
    array: real numbers of any shape and type, also of ml_dtypes.
    low: smallest value that may be.
    high: largest value that may be.
    first: number of the array's first row in the set that it is a part of.
  """
  array = np.atleast_1d(as_numbers(name, array))
  bad, place, value, size = 0, None, math.nan, array.size
  for start, chunk in _chunks(array):
    # The smallest and the largest number are NaN where any number is.
    with np.errstate(invalid="ignore"):
      smallest, largest = float(chunk.min()), float(chunk.max())
    finite = math.isfinite(smallest) and math.isfinite(largest)
    if finite and low <= smallest and largest <= high:
      continue
    with np.errstate(invalid="ignore"):
      outside = ~(np.isfinite(chunk) & (chunk >= low) & (chunk <= high))
    count = int(outside.sum())
    if place is None:
      row, *rest = np.argwhere(outside)[0].tolist()
      value = float(chunk[(row, *rest)])
      place = ", ".join(map(str, (first + start + row, *rest)))
    bad += count
  if place is None:
    return
  wanted = "finite numbers"
  if (low, high) != (-math.inf, math.inf):
    wanted += f" in [{low:g}, {high:g}]"
  raise ValueError(
    f"{name}[{place}] is {value:g}, and {wanted} are expected ({bad:,} of"
    f" {size:,} are not): {_REMEDY}"
  )


def check_features(
  name: str, features_ND: Any, least: int = 1, purpose: str = ""
) -> None:
  """Raises ValueError unless these are finite rows of one width.

  Args:
    name: the features in the error.
    features_ND: one row for each example, at least one number wide.
    least: smallest number of examples.
    purpose: what needs them, in the error.
  """
  shape = np.shape(features_ND)
  if len(shape) != 2 or shape[0] < least or not shape[1]:
    raise ValueError(
      f"{name} of shape {shape} must be (examples, dimensions) with at least"
      f" {count_of(least, 'example')}{purpose and f' for {purpose}'}"
    )
  check_range(name, features_ND)


def check_probabilities(name: str, probabilities_NV: Any) -> None:
  """Raises ValueError unless each row is a distribution over the classes."""
  check_features(name, probabilities_NV)
  check_range(name, probabilities_NV, 0.0, 1.0 + _SUM_ERROR)
  sums_N = np.asarray(probabilities_NV).sum(1, dtype=np.float64)
  wrong_N = np.abs(sums_N - 1.0) > _SUM_ERROR
  if wrong_N.any():
    row = int(wrong_N.argmax())
    raise ValueError(
      f"{name}[{row}] sums to {sums_N[row]:.6g}, and each row of probabilities"
      f" must sum to 1 ({wrong_N.sum():,} of {len(sums_N):,} do not): give"
      " logits to inception_score"
    )


def check_video(name: str, video_BTHWC: Any, first: int = 0) -> None:
  """Raises ValueError unless these are clips (B, T, H, W, 3) in [0, 1]."""
  video = np.asarray(video_BTHWC)
  if video.ndim != 5 or video.shape[-1] != 3 or not video.size:
    raise ValueError(
      f"{name} of shape {video.shape} must be clips (B, T, H, W, 3), none of"
      " these sizes 0"
    )
  if not is_floating(video.dtype):
    raise ValueError(
      f"{name} must be floating point in [0, 1], got {video.dtype} in"
      f" [{video.min()}, {video.max()}]: divide uint8 by 255"
    )
  check_range(name, video, 0.0, 1.0, first)


def check_ids(name: str, ids: Any, vocabulary: int) -> None:
  """Raises ValueError unless these are integers in [0, vocabulary)."""
  check_count("vocabulary", vocabulary, 1)
  ids = np.asarray(ids)
  if ids.dtype.kind not in "iu" or not ids.size:
    raise ValueError(
      f"{name} of {ids.dtype} and shape {ids.shape} must be integers, at least"
      " one"
    )
  if ids.min() < 0 or ids.max() >= vocabulary:
    outside = (ids < 0) | (ids >= vocabulary)
    place = np.argwhere(outside)[0].tolist()
    raise ValueError(
      f"{name}{place} is {ids[tuple(place)]}, and codes of a vocabulary of"
      f" {vocabulary:,} are in 0..{vocabulary - 1} ({outside.sum():,} of"
      f" {ids.size:,} are not): are they of another tokenizer?"
    )


def check_count(name: str, value: Any, least: int) -> None:
  """Raises ValueError unless a setting is an integer of at least `least`."""
  whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
  if not whole or value < least:
    raise ValueError(f"{name}={value!r} must be an integer, at least {least}")


def check_number(
  name: str,
  value: Any,
  low: float = -math.inf,
  high: float = math.inf,
  without_low: bool = False,
) -> None:
  """Raises ValueError unless a setting is finite, and in [low, high].

  With `without_low` the lower end itself is refused, too.
  """
  real = isinstance(value, numbers.Real) and not isinstance(value, bool)
  inside = real and math.isfinite(value) and low <= float(value) <= high
  if not inside or (without_low and value == low):
    wanted = "a finite number"
    if low > -math.inf:
      wanted += f" {'above' if without_low else 'of at least'} {low:g}"
    if high < math.inf:
      wanted += f" {'and' if low > -math.inf else 'of'} at most {high:g}"
    raise ValueError(f"{name}={value!r} must be {wanted}")


def count_of(number: int, thing: str) -> str:
  """For example "1 example" and "2 examples"."""
  return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def is_floating(dtype: np.dtype) -> bool:
  """Whether a type is of floating-point numbers, also of ml_dtypes."""
  # NumPy does not count the bfloat16 of ml_dtypes as a floating type.
  return dtype.kind == "f" or dtype.name == "bfloat16"


def as_numbers(name: str, array: Any) -> np.ndarray:
  """As an array; ValueError unless it is of real numbers."""
  array = np.asarray(array)
  if array.dtype.kind not in "iu" and not is_floating(array.dtype):
    raise ValueError(
      f"{name} of {array.dtype} and shape {array.shape} must be real numbers"
    )
  return array


def _chunks(array: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
  """Yields (number of the first row, some rows), none empty."""
  if not array.size:
    return
  rows = max(1, _VALUES_AT_ONCE * len(array) // array.size)
  for start in range(0, len(array), rows):
    yield start, array[start : start + rows]
