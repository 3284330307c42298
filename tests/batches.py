"""Batches of training, taken and compared."""

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import ml_collections
import numpy as np

from input_pipeline import pipeline


def take(
  dataset: ml_collections.ConfigDict,
  count: int,
  batch_size: int = 2,
  check: Callable[[], None] = lambda: None,
  **share: int,
) -> list[dict[str, Any]]:
  """The first batches of a data set; `check` is called after each."""
  data, batches = pipeline.train_batches(dataset, batch_size, **share), []
  for _ in range(count):
    batches.append(next(data))
    check()
  data.close()
  return batches


def assert_equal(
  some: Sequence[dict[str, Any]], others: Sequence[dict[str, Any]]
) -> None:
  """Compares all arrays of all batches, to the bit."""
  for a, b in zip(some, others, strict=True):
    assert set(a) == set(b)
    for name in a:
      np.testing.assert_array_equal(a[name], b[name])
