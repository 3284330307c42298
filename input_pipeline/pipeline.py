"""Batches of clips: checkpointable for training, complete for evaluation."""

from collections.abc import Iterator
from collections.abc import Sequence

import grain
import ml_collections
import numpy as np

from input_pipeline import digits
from input_pipeline import photo
from input_pipeline import token_shards

# "video": uint8 (B, T, H, W, 3), "label": (B,), and in joint training "image":
# uint8 (B', 1, H, W, 3). Of stored tokens, instead of "video": "ids" int32
# (B, t, h, w), and "condition/TASK" like it.
Batch = dict[str, np.ndarray]

_SOURCES = {"digits": digits.Digits, "photo": photo.Photo}


def source(dataset: ml_collections.ConfigDict, split: str, **kwargs):
  """Random-access clips of one split ("train" or "held_out").

  Raises:
    ValueError: an unknown data set, or settings its source rejects.
  """
  if dataset.name not in _SOURCES:
    raise ValueError(
      f"dataset.name={dataset.name!r} must be one of {sorted(_SOURCES)}"
    )
  if dataset.name == "digits":
    kwargs["motion"] = dataset.motion
  return _SOURCES[dataset.name](
    split, dataset.frames, dataset.size, dataset.seed, **kwargs
  )


def is_endless(clips) -> bool:
  """Whether a source makes its clips, as many as are asked for."""
  return len(clips) >= digits.ENDLESS


def class_names(dataset: ml_collections.ConfigDict) -> Sequence[str]:
  """The names of a data set's classes, in order; empty if it has none."""
  return getattr(_SOURCES.get(dataset.name), "CLASS_NAMES", ())


def image_source(dataset: ml_collections.ConfigDict):
  """The images of joint training: clips of one frame, (1, H, W, 3) each."""
  images = ml_collections.ConfigDict(dataset.to_dict())
  images.name, images.frames = dataset.joint_name, 1
  images.seed = dataset.seed + 1  # else they are the clips' first frames
  return source(images, "train")


def train_batches(
  dataset: ml_collections.ConfigDict,
  batch_size: int,
  process_index: int = 0,
  process_count: int = 1,
) -> grain.DatasetIterator:
  """This process's share of an endless stream of global batches.

  Global batch n is made of clips n * batch_size and up, whatever the number of
  processes; each takes every process_count-th. The iterator's state is its
  position, saved with each checkpoint. A finite source is repeated, shuffled
  anew in each epoch with `dataset.shuffle`; so tokens come in the order of the
  clips that they were made of.

  Raises:
    ValueError: settings that contradict each other, or stored tokens that
      cannot be read.
  """
  for field, size in (
    ("batch_size", batch_size),
    ("dataset.joint_images", dataset.joint_images),
  ):
    if size % process_count:
      raise ValueError(
        f"{field}={size} must be a multiple of the {process_count} processes"
      )
  share = lambda clips, size: clips[process_index::process_count].batch(
    size // process_count
  )
  if dataset.tokens:
    clips = token_shards.TokenShards(dataset.tokens)
  else:
    clips = source(dataset, "train")
  batches = share(_endless(clips, dataset), batch_size)
  if dataset.joint_images:
    images = _endless(image_source(dataset), dataset)
    images = share(images, dataset.joint_images)
    count = min(len(batches), len(images))
    pairs = grain.experimental.ZipMapDataset([batches[:count], images[:count]])
    batches = pairs.map(lambda pair: {**pair[0], "image": pair[1]["video"]})
  # Two threads make clips while the devices compute; clips are cheap.
  options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)
  return iter(batches.to_iter_dataset(options))


def _endless(clips, dataset: ml_collections.ConfigDict) -> grain.MapDataset:
  stream = grain.MapDataset.source(clips)
  if is_endless(clips):
    if dataset.shuffle:
      raise ValueError(
        f"dataset.shuffle={dataset.shuffle} is for finite sets, and"
        f" {dataset.name!r} is endless: set it to False"
      )
    return stream
  if dataset.shuffle:
    stream = stream.seed(dataset.seed).shuffle()
  return stream.repeat()


def eval_batches(
  dataset: ml_collections.ConfigDict, split: str, count: int, batch_size: int
) -> Iterator[tuple[Batch, int]]:
  """The first `count` clips of a split as (batch, number of real clips in it).

  The last batch is filled up by repeating its last clip, so that every batch
  has one shape and no clip is dropped: read only the first `number` results.
  """
  clips = source(dataset, split, length=count)
  for start in range(0, count, batch_size):
    stop = min(start + batch_size, count)
    examples = [clips[i] for i in range(start, stop)]
    examples += [examples[-1]] * (batch_size - len(examples))
    batch = {k: np.stack([e[k] for e in examples]) for k in examples[0]}
    yield batch, stop - start
