"""Clips of one size, cut from encoded images and videos of any size.

The window of the video and the part of the frame that a clip shows are drawn
from (seed, split, epoch, index) and nothing else: neither the order of reading
nor the number of processes and workers matters.
"""

from collections.abc import Sequence
import itertools
import typing

import ml_collections
import numpy as np

from input_pipeline import crops
from input_pipeline import windows
from input_pipeline.decoding import frame_reader

SPLITS = ("train", "held_out")


class Store(typing.Protocol):
  """Random-access encoded examples of one split of a data set."""

  @property
  def class_names(self) -> Sequence[str]:
    """Names by class number; () without classes."""
    ...

  def __len__(self) -> int: ...

  def __getitem__(self, index: int) -> frame_reader.Encoded: ...


class Clips:
  """Random-access source of clips, in the form grain reads."""

  def __init__(
    self,
    store: Store,
    dataset: ml_collections.ConfigDict,
    split: str,
    training: bool,
  ):
    """Clips of dataset.frames frames, dataset.size x dataset.size pixels each.

    Args:
      store: encoded examples of the split.
      dataset: the config's section `dataset`.
      split: "train" or "held_out".
      training: whether clips are cut by train_window, train_crop and flip, or
        by eval_window and eval_crop.

    Raises:
      ValueError: an empty split; rules that are unknown or cannot work.
    """
    if not len(store):
      raise ValueError(f"dataset.path={dataset.path} has no {split!r} examples")
    self._store, self._seed = store, (dataset.seed, SPLITS.index(split))
    self._window = windows.Window(
      dataset.train_window if training else dataset.eval_window,
      dataset.frames,
      dataset.stride,
      dataset.short_videos,
    )
    self._crop = crops.Crop(
      dataset.train_crop if training else dataset.eval_crop,
      dataset.size,
      dataset.short_side or dataset.size,
      tuple(dataset.scale),
      training and dataset.flip,
      dataset.filter,
    )
    self.class_names = tuple(store.class_names)
    # Number of the first clip of each video, where videos have unequal counts.
    self._places = None
    if self._window.rule == "all":
      counts = (self._window.count(n) for n in _lengths(store))
      self._places = np.cumsum([0, *counts])

  def __len__(self) -> int:
    """Number of clips in an epoch; some rules cut several from a video."""
    if self._places is None:
      windows_in_all = len(self._store) * self._window.count(None)
    else:
      windows_in_all = int(self._places[-1])
    return windows_in_all * self._crop.count

  @property
  def views(self) -> int:
    """Number of clips of each video, one after another; 1 if they differ."""
    if self._places is not None:
      return 1
    return self._window.count(None) * self._crop.count

  def too_short(self) -> list[int]:
    """Lengths of videos that a clip does not fit in; [] if they may be held.

    Only stores that know the lengths of their videos tell them.
    """
    if self._window.short_videos == "hold":
      return []
    known = getattr(self._store, "lengths", None) or ()
    return [length for length in known if length < self._window.span]

  def __getitem__(self, index: int) -> dict[str, np.ndarray | np.int32]:
    """{"video": uint8 (T, H, W, 3), "label": int32 ()}, as drawn in epoch 0."""
    return self.draw(index, 0)

  def draw(self, index: int, epoch: int) -> dict[str, np.ndarray | np.int32]:
    """The clip of an index, like `self[index]`, with the epoch's random draws.

    Raises:
      ValueError: an example that is damaged or too short; names it.
    """
    window, crop = divmod(int(index), self._crop.count)
    if self._places is None:
      example, number = divmod(window, self._window.count(None))
    else:
      example = int(np.searchsorted(self._places, window, side="right")) - 1
      number = window - int(self._places[example])
    rng = np.random.default_rng((*self._seed, epoch, int(index)))
    place = rng.random()
    encoded = self._store[example]
    frames = frame_reader.read(
      encoded, lambda length: self._window.choose(length, number, place)
    )
    return {
      "video": self._crop(frames, crop, rng),
      "label": np.int32(encoded.label),
    }


def _lengths(store: Store) -> Sequence[int]:
  """Frames of each example, counted in its file if the store does not know."""
  known = getattr(store, "lengths", None)
  return known or [
    frame_reader.count_frames(store[i]) for i in range(len(store))
  ]


def all_names(stores: Sequence[Store]) -> tuple[str, ...]:
  """Names of the classes of several stores, in order, each once."""
  names = itertools.chain.from_iterable(s.class_names for s in stores)
  return tuple(dict.fromkeys(names))


def renumber(store: Store, class_names: Sequence[str]) -> Store:
  """The store, with labels that are places in another list of class names.

  Raises:
    ValueError: a class that the list lacks.
  """
  lacking = [name for name in store.class_names if name not in class_names]
  if lacking:
    raise ValueError(
      f"dataset.path has classes that no part of dataset.mixture has:"
      f" {lacking[:3]}{' and more' if lacking[3:] else ''}; add its folder to"
      " the parts"
    )
  return _Renumbered(store, class_names)


class _Renumbered:
  """A store whose labels are replaced."""

  def __init__(self, store: Store, class_names: Sequence[str]):
    self._store, self.class_names = store, class_names
    places = {name: place for place, name in enumerate(class_names)}
    self._numbers = [places[name] for name in store.class_names]
    self.lengths = getattr(store, "lengths", None)

  def __len__(self) -> int:
    return len(self._store)

  def __getitem__(self, index: int) -> frame_reader.Encoded:
    encoded = self._store[index]
    label = self._numbers[encoded.label] if self._numbers else 0
    return frame_reader.Encoded(encoded.name, label, encoded.parts)
