"""Batches of training, taken and compared."""

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import jax
import ml_collections
import numpy as np

from input_pipeline import pipeline
from magvit.generators import tasks


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


def with_task(
  config: ml_collections.ConfigDict, task: str | None = None
) -> dict[str, Any]:
  """A generator's first batch of training, with the place of a task."""
  batch = next(pipeline.train_batches(config.dataset, config.batch_size))
  if task is not None:
    batch["task"] = np.int32(tasks.task_names(config).index(task))
  return batch


def one_program(function: Callable, params: Any) -> Callable:
  """(batch, key) -> what a predict function returns; all by one program."""
  program = jax.jit(function)

  def run(batch, key=None):
    key = jax.random.key(0) if key is None else key
    out = program(params, batch, key)
    assert program._cache_size() == 1
    return out

  return run


def tokenizing(algorithm: Any, state: Any) -> Callable:
  """(batch) -> ids (B, N) of its clips, by a generator of latents."""
  program = jax.jit(algorithm.latents.tokens.tokenize_batch)
  return lambda batch: program(state.frozen["tokenizer"], batch)


def assert_equal(
  some: Sequence[dict[str, Any]], others: Sequence[dict[str, Any]]
) -> None:
  """Compares all arrays of all batches, to the bit."""
  for a, b in zip(some, others, strict=True):
    assert set(a) == set(b)
    for name in a:
      np.testing.assert_array_equal(a[name], b[name])
