"""Batches of clips: checkpointable for training, complete for evaluation.

With `dataset.format` "embedded" a set is made as it is read; all others are
files on disk, see input_pipeline/stores.py. Every set has two splits: "train",
and "held_out", the one that its authors call validation or test.
"""

from collections.abc import Iterator
from collections.abc import Sequence
import functools
import typing
from typing import Any

import grain
import ml_collections
import numpy as np

from input_pipeline import clips as clips_lib
from input_pipeline import stores
from input_pipeline.batches import Batches
from input_pipeline.sources import digits
from input_pipeline.sources import photo
from input_pipeline.sources import token_shards
from storage import stores as object_stores

# Batches have "video", uint8 (B, T, H, W, 3), "label" (B,), and in joint
# training "image", uint8 (B', 1, H, W, 3). With stored tokens they have "ids",
# int32 (B, t, h, w), and "condition/TASK" like it, instead of "video".
Batch = dict[str, np.ndarray]


class Source(typing.Protocol):
  """Random-access clips of one split, in the form grain reads."""

  def __len__(self) -> int: ...

  def __getitem__(self, index: int) -> dict[str, Any]: ...


_THREADS = 2  # that decode clips
# Each waits for a store most of the time. So many that decode clips would leave
# the memory in pieces, which glibc does not give back: 8 took 2 GB after 3,000
# clips.
_REMOTE_THREADS = 8
_SOURCES = {"digits": digits.Digits, "photo": photo.Photo}


def source(
  dataset: ml_collections.ConfigDict,
  split: str,
  length: int | None = None,
  training: bool | None = None,
) -> Source:
  """Random-access clips of one split ("train" or "held_out").

  Args:
    dataset: the config's section `dataset`.
    split: "train" or "held_out".
    length: number of clips; None for all. From a set on disk they are chosen at
      random over all of it, and ordered, by dataset.seed.
    training: whether the rules of training cut the clips of a set on disk
      (train_window, train_crop, flip) or those of evaluation (eval_window,
      eval_crop); None: those of training for "train".

  Raises:
    ValueError: an unknown data set, settings its source rejects, or more
      clips than there are.
  """
  if dataset.format != "embedded":
    training = split == "train" if training is None else training
    clips = stores.source(dataset, split, training)
    return clips if length is None else _spread(clips, length, dataset.seed)
  if dataset.name not in _SOURCES:
    raise ValueError(
      f"dataset.name={dataset.name!r} must be one of {sorted(_SOURCES)}; for"
      " files on disk set dataset.format to 'auto'"
    )
  kwargs = {} if length is None else {"length": length}
  if dataset.name == "digits":
    kwargs["motion"] = dataset.motion
    kwargs["labels"] = dataset.get("labels", "class")
  return _SOURCES[dataset.name](
    split, dataset.frames, dataset.size, dataset.seed, **kwargs
  )


class _Some:
  """Some of the clips, in an order of their own."""

  def __init__(self, clips: Any, order: np.ndarray):
    self._clips, self._order = clips, order

  def __len__(self) -> int:
    return len(self._order)

  def __getitem__(self, index: int) -> dict[str, Any]:
    return self._clips[int(self._order[index])]

  def draw(self, index: int, epoch: int) -> dict[str, Any]:
    """As that of `clips.Clips`, for clips of files."""
    return self._clips.draw(int(self._order[index]), epoch)


def _spread(clips: Any, length: int, seed: int) -> _Some:
  """Some of the clips, in random order, for lists are sorted by class."""
  if length > len(clips):
    raise ValueError(
      f"{length} clips (dataset.eval_examples, --num) are more than the"
      f" {len(clips)} that there are: lower it"
    )
  order = np.random.default_rng(seed).permutation(len(clips))[:length]
  return _Some(clips, order)


def training_count(clips: Any, dataset: ml_collections.ConfigDict) -> int:
  """Number of the clips that training reads: dataset.train_examples, or all."""
  return dataset.get("train_examples", 0) or len(clips)


def _training_clips(clips: Any, dataset: ml_collections.ConfigDict) -> Any:
  """The clips that training reads: dataset.train_examples of them, or all.

  Stored tokens are those of the same clips.

  Raises:
    ValueError: more than there are, or a part of a mixture.
  """
  count = training_count(clips, dataset)
  if not dataset.get("train_examples", 0):
    return clips
  if dataset.mixture:
    raise ValueError(
      f"dataset.train_examples={count} is for one data set, and"
      f" dataset.mixture={tuple(dataset.mixture)} has several: set either"
    )
  if count > len(clips):
    raise ValueError(
      f"dataset.train_examples={count} is more than the {len(clips)} training"
      " clips that there are: lower it"
    )
  if dataset.format == "embedded":  # in random order as it is
    return _Some(clips, np.arange(count))
  return _spread(clips, count, dataset.seed)


def is_endless(clips) -> bool:
  """Whether a source makes its clips, without end."""
  return len(clips) >= digits.ENDLESS


def class_names(dataset: ml_collections.ConfigDict) -> Sequence[str]:
  """Names of a data set's classes, in order.

  There are none if the set has no classes or its files are not at hand.
  """
  if dataset.format != "embedded":
    return stores.class_names(dataset)
  if dataset.name == "digits":
    return digits.class_names(dataset.get("labels", "class"))
  return getattr(_SOURCES.get(dataset.name), "CLASS_NAMES", ())


def attribution(dataset: ml_collections.ConfigDict) -> str:
  """Whose the clips are, for those who see pictures of them; "" if unknown."""
  return "" if dataset.format == "embedded" else stores.attribution(dataset)


def image_source(dataset: ml_collections.ConfigDict):
  """The images of joint training: clips of one frame, (1, H, W, 3) each."""
  images = ml_collections.ConfigDict(dataset.to_dict())
  images.name, images.frames = dataset.joint_name, 1
  images.format, images.path = dataset.joint_format, dataset.joint_path
  images.train_crop, images.flip = dataset.joint_crop, dataset.joint_flip
  images.lists, images.mixture, images.held_out = "", (), ""
  # Nobody reads the labels of images, and few labelled clips leave them whole.
  images.labels, images.train_examples = "class", 0
  # With the same seed they would be the clips' first frames.
  images.seed = dataset.seed + 1
  return source(images, "train")


def train_batches(
  dataset: ml_collections.ConfigDict,
  batch_size: int,
  parts: Sequence[int] = (0,),
  num_parts: int = 1,
) -> grain.DatasetIterator:
  """Parts of each batch of an endless stream of global batches.

  Global batch n has the clips from n * batch_size on, in this order, whoever
  reads them: part k of `num_parts` is the k-th run of consecutive clips, and
  each process reads the parts that its devices take (`mesh.local_parts`). The
  iterator's state is its position, saved with each checkpoint. A finite source
  is repeated, and with `dataset.shuffle` shuffled anew in each epoch; stored
  tokens come in the same order as the clips that they were made of. The part of
  a video that a clip shows depends on dataset.seed, the epoch and the clip's
  number alone.

  Raises:
    ValueError: settings that contradict each other, or data that cannot be
      read.
  """
  for field, size in (
    ("batch_size", batch_size),
    ("dataset.joint_images", dataset.joint_images),
  ):
    if size % num_parts:
      raise ValueError(
        f"{field}={size} must be a multiple of the {num_parts} devices that"
        " share it"
      )
  share = lambda clips, size: grain.MapDataset.source(
    _Share(clips, size // num_parts, parts, num_parts)
  ).batch(size // num_parts * len(parts))
  if dataset.tokens:
    classes = len(class_names(dataset))
    tokens = token_shards.TokenShards(dataset.tokens, classes)
    clips = _endless(tokens, dataset)
  elif dataset.mixture:
    sets, weights = stores.mixture(dataset)
    streams = [_endless(each, dataset) for each in sets]
    clips = grain.MapDataset.mix(streams, weights)
  else:
    clips = _endless(source(dataset, "train"), dataset)
  batches = share(clips, batch_size)
  if dataset.joint_images:
    images = _endless(image_source(dataset), dataset)
    images = share(images, dataset.joint_images)
    count = min(len(batches), len(images))
    pairs = grain.experimental.ZipMapDataset([batches[:count], images[:count]])
    batches = pairs.map(lambda pair: {**pair[0], "image": pair[1]["video"]})
  return Batches(batches, dataset.workers, _threads(dataset))


def _threads(dataset: ml_collections.ConfigDict) -> int:
  """Number of threads that make batches of a data set."""
  remote = dataset.tokens and object_stores.is_url(dataset.tokens)
  return _REMOTE_THREADS if remote else _THREADS


class _Share:
  """Clips of some of the `num_parts` parts of each global batch."""

  def __init__(
    self, clips: grain.MapDataset, size: int, parts: Sequence[int], num_parts
  ):
    """`size` is the number of clips in a part."""
    self._clips, self._size = clips, size
    self._parts, self._num_parts = tuple(parts), num_parts

  def __len__(self) -> int:
    batches = len(self._clips) // (self._size * self._num_parts)
    return batches * self._size * len(self._parts)

  def __getitem__(self, index: int):
    run, place = divmod(index, self._size)
    batch, which = divmod(run, len(self._parts))
    part = batch * self._num_parts + self._parts[which]
    return self._clips[part * self._size + place]


def _endless(clips, dataset: ml_collections.ConfigDict) -> grain.MapDataset:
  real = isinstance(clips, clips_lib.Clips)
  clips = _training_clips(clips, dataset)
  if is_endless(clips):
    if dataset.shuffle:
      raise ValueError(
        f"dataset.shuffle={dataset.shuffle} is for finite sets, and"
        f" {dataset.name!r} is endless: set it to False"
      )
    return grain.MapDataset.source(clips)
  numbers = grain.MapDataset.range(len(clips))
  stream = numbers if real else grain.MapDataset.source(clips)
  if dataset.shuffle:
    stream = stream.seed(dataset.seed).shuffle()
  # An explicit number of epochs, for grain cannot batch an infinite stream.
  stream = stream.repeat(digits.ENDLESS // len(clips))
  draw = functools.partial(_draw, clips)
  return stream.map_with_index(draw) if real else stream


def _draw(clips: clips_lib.Clips | _Some, position: int, number: int):
  return clips.draw(number, position // len(clips))


def views(dataset: ml_collections.ConfigDict) -> int:
  """Number of held-out clips of one video: of its windows, times its crops."""
  if dataset.format == "embedded":
    return 1
  return stores.source(dataset, "held_out", training=False).views


def _whole_videos(
  dataset: ml_collections.ConfigDict, split: str, count: int, views: int
) -> _Some:
  """All clips of as many videos as `count` clips are of, at least one."""
  clips = source(dataset, split, training=False)
  videos = max(count // views, 1)
  if videos * views > len(clips):
    raise ValueError(
      f"{count} clips (dataset.eval_examples) are more than the {len(clips)}"
      " that there are: lower it"
    )
  rng = np.random.default_rng(dataset.seed)
  chosen = rng.permutation(len(clips) // views)[:videos]
  return _Some(clips, (chosen[:, None] * views + np.arange(views)).reshape(-1))


def eval_batches(
  dataset: ml_collections.ConfigDict,
  split: str,
  count: int,
  batch_size: int,
  views: int = 1,
) -> Iterator[tuple[Batch, int]]:
  """Yields `count` clips of a split as (batch, number of real clips in it).

  They are cut by the rules of evaluation, even those of "train"; see `source`.
  The last batch is filled up by repeating its last clip, so that every batch
  has one shape and no clip is dropped: read only the first `number` results.
  With `views`, the clips of a video, all of a video's are read in turn, and
  `count` is rounded down to whole videos, at least one.
  """
  if views > 1:
    clips = _whole_videos(dataset, split, count, views)
    count = len(clips)
  else:
    clips = source(dataset, split, length=count, training=False)
  options = grain.ReadOptions(
    num_threads=_THREADS, prefetch_buffer_size=2 * batch_size
  )
  stream = iter(grain.MapDataset.source(clips).to_iter_dataset(options))
  for start in range(0, count, batch_size):
    real = min(batch_size, count - start)
    examples = [next(stream) for _ in range(real)]
    examples += [examples[-1]] * (batch_size - len(examples))
    batch = {k: np.stack([e[k] for e in examples]) for k in examples[0]}
    yield batch, real
