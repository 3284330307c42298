"""An iterator over batches whose state is the number of the next one.

Grain's iterators can be resumed, too, but not with another number of workers or
processes: their states count what each worker has read.
"""

from typing import Any

from absl import flags
import grain


class Batches(grain.DatasetIterator):
  """Reads batches ahead, in threads or in worker processes.

  Processes are worth their memory (each reads two batches ahead) where decoding
  is slower than the devices; threads share one interpreter, but FFmpeg and
  Pillow release it. The order of batches is the same.
  """

  def __init__(self, batches: grain.MapDataset, workers: int, threads: int = 2):
    """Starts nothing yet.

    Args:
      batches: all batches.
      workers: number of worker processes; 0 is for threads.
      threads: number of batches that are read at the same time, two for those
        of a disk.

    Raises:
      ValueError: a negative number of workers.
    """
    super().__init__()
    self._batches, self._workers, self._threads = batches, workers, threads
    self._next, self._running = 0, None
    if workers < 0:
      raise ValueError(f"dataset.workers={workers} must be at least 0")

  def __next__(self) -> Any:
    if self._running is None:
      self._running = self._start()
    batch = next(self._running)
    self._next += 1
    return batch

  def _start(self) -> grain.DatasetIterator:
    rest = self._batches[self._next :]
    if not self._workers:
      options = grain.ReadOptions(
        num_threads=self._threads, prefetch_buffer_size=max(4, self._threads)
      )
      return iter(rest.to_iter_dataset(options))
    # A worker makes whole batches, of a disk one at a time.
    each = max(1, self._threads // max(2, self._workers))
    options = grain.ReadOptions(num_threads=each, prefetch_buffer_size=each)
    processes = grain.MultiprocessingOptions(
      num_workers=self._workers, per_worker_buffer_size=1
    )
    if not flags.FLAGS.is_parsed():
      flags.FLAGS.mark_as_parsed()  # grain reads absl flags, in notebooks too
    return iter(rest.to_iter_dataset(options).mp_prefetch(processes))

  def get_state(self) -> dict[str, int]:
    return {"next_batch": self._next}

  def set_state(self, state: dict[str, int]) -> None:
    self.close()
    self._next, self._closed = state["next_batch"], False

  def close(self) -> None:
    """Stops the workers."""
    if self._running is not None:
      self._running.close()
    self._running = None
