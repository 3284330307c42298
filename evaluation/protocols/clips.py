"""Clips to be measured, wherever they are from: files, data sets, models.

Each source numbers its clips, reads any of them, and describes itself in JSON,
so that features of the same clips are computed once.
"""

from collections.abc import Callable
import dataclasses
import hashlib
import itertools
import os
from typing import Any

import ml_collections
import numpy as np

from evaluation import evaluators
from evaluation.protocols.table import Protocol
from evaluation.show import pictures
from input_pipeline import pipeline
from input_pipeline.decoding import media
from models.weights import readers
from storage import listing
from storage import npz
from storage import stores

UINT8_RULE = "uint8_rule"  # array of an .npz that says how its clips were cast


@dataclasses.dataclass(frozen=True)
class ClipsRead:
  """Clips that were read, and those that could not be.

  video: uint8 (B, T, H, W, 3).
  index: the number of each clip, int (B,).
  failures: reasons why others could not be read, by name.
  """

  video: np.ndarray
  index: np.ndarray
  failures: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Clips:
  """`num` clips of one size, to be read when they are needed.

  origin: which clips these are, as JSON; equal for equal clips.
  read: takes the numbers of some clips, int (n,).
  names: names of the files that hold the clips, without suffixes.
  endless: whether more than `num` would be other clips, not the same again.
  is_array: whether the clips are rows of one array, known by their numbers.
  """

  num: int
  origin: dict[str, Any]
  read: Callable[[np.ndarray], ClipsRead]
  names: list[str] | None = None
  is_array: bool = False
  endless: bool = False


def open_path(path: str, protocol: Protocol, flag: str) -> Clips:
  """Clips of an .npz as ADM lays out samples, or of a folder of media files.

  Raises:
    ValueError: `path` is neither, or holds nothing that the protocol reads.
  """
  if stores.is_folder(path):
    return _open_folder(path, protocol, flag)
  if not stores.is_file(path):
    raise ValueError(f"--{flag}={path} is neither a file nor a folder")
  if not path.endswith(".npz"):
    raise ValueError(
      f"--{flag}={path} must be an .npz (arr_0 uint8) or a folder of images or"
      " videos"
    )
  return _open_npz(path, protocol, flag)


def _open_npz(path: str, protocol: Protocol, flag: str) -> Clips:
  rows = npz.Rows(path, "arr_0")
  shape = rows.shape
  if rows.dtype != np.uint8 or len(shape) not in (4, 5) or shape[-1] != 3:
    raise ValueError(
      f"--{flag}={path}: arr_0 must be uint8 (N, H, W, 3) or (N, T, H, W, 3),"
      f" got {rows.dtype} {shape}"
    )
  if not min(shape):
    raise ValueError(
      f"--{flag}={path}: arr_0 has shape {shape}, which is no clip: give some"
    )
  frames = shape[1] if len(shape) == 5 else 1
  check_frames(frames, protocol, f"--{flag}={path}")
  rule = _uint8_rule(path, flag)

  def read(index):
    if not len(index):
      return ClipsRead(_stacked([]), index)
    start = int(index[0])  # the clips of a part are consecutive
    video = rows.read(start, int(index[-1]) + 1)[index - start]
    return ClipsRead(video[:, None] if video.ndim == 4 else video, index)

  return Clips(
    len(rows),
    {
      "file": stores.absolute(path),
      "sha256": readers.sha256(path),
      "shape": list(shape),
      "uint8": rule or "as given",
    },
    read,
    is_array=True,
  )


def _uint8_rule(path: str, flag: str) -> str | None:
  """The rule to uint8 that a file says its clips follow; None if it does not.

  Raises:
    ValueError: it says what is no rule.
  """
  if UINT8_RULE not in npz.names(path):
    return None
  rule = str(npz.load(path, UINT8_RULE))
  if rule not in pictures.UINT8_RULES:
    raise ValueError(
      f"--{flag}={path}: {UINT8_RULE} is {rule!r}, and must be one of"
      f" {pictures.UINT8_RULES}"
    )
  return rule


def check_frames(frames: int, protocol: Protocol, where: str) -> None:
  """Raises ValueError unless the protocol measures clips of so many frames."""
  wanted = protocol.frames
  if wanted == 1 and frames != 1:
    raise ValueError(
      f"{where} holds clips of {frames} frames, and {protocol.name} measures"
      " images: give images, or choose another protocol"
    )
  if frames < wanted:
    raise ValueError(
      f"{where} holds clips of {frames} frames, and {protocol.name} reads"
      f" {wanted}: give longer clips"
    )


def _open_folder(path: str, protocol: Protocol, flag: str) -> Clips:
  held = stores.fetched_folder(path)
  names, _ = media.find(held)
  if not names:
    raise ValueError(f"--{flag}={path} holds no images or videos")
  full = [os.path.join(held, name) for name in names]
  states = [(name, *_state(os.path.join(held, name))) for name in names]
  shape = []  # shape of the first readable clip, the same in every process

  def load(file):
    listing.check_file(file)
    limit = protocol.frames + (protocol.frames == 1) or None
    video = np.stack(list(itertools.islice(media.probe(file).frames(), limit)))
    check_frames(len(video), protocol, file)
    return video[: protocol.frames or None]

  def expected():
    for file in full if not shape else ():
      try:
        shape.append(load(file).shape)
        break
      except (ValueError, OSError):
        continue  # `read` reports it
    return shape[0] if shape else None

  def read(index):
    videos, kept, failures = [], [], {}
    for i in index:
      try:
        video = load(full[i])
        shared = expected() or video.shape
        if video.shape != shared:
          raise ValueError(
            f"it has (frames, height, width) {video.shape[:3]}, others have"
            f" {shared[:3]}: bring all to one size"
          )
      except (ValueError, OSError) as error:
        failures[listing.text(names[i])] = " ".join(str(error).split())
        continue
      videos.append(video)
      kept.append(i)
    return ClipsRead(_stacked(videos), np.asarray(kept, np.int64), failures)

  return Clips(
    len(names),
    {
      "folder": stores.absolute(path),
      "files": len(names),
      "listing_sha256": hashlib.sha256(repr(states).encode()).hexdigest(),
      "frames": "the first of each file",
      "uint8": "as decoded",
    },
    read,
    [os.path.splitext(name)[0] for name in names],
  )


def _state(file: str) -> tuple[int, ...]:
  """Size and time of a file; () of what has none, like a dangling link."""
  try:
    status = os.stat(file)
  except OSError:
    return ()
  return (status.st_size, status.st_mtime_ns)


def open_dataset(
  config: ml_collections.ConfigDict, protocol: Protocol, seed: int
) -> Clips:
  """Real clips of the config's data set by the protocol's rules, each once.

  They come in a random order that follows from the seed. Beyond their number
  they come again; if the rules draw windows or crops, as new draws.
  """
  dataset = ml_collections.ConfigDict(config.dataset.to_dict())
  dataset.eval_window = protocol.window or dataset.eval_window
  dataset.eval_crop = protocol.crop or dataset.eval_crop
  check_frames(dataset.frames, protocol, "dataset.frames")
  dataset.seed = seed
  sets = [
    pipeline.source(dataset, split, training=False) for split in protocol.splits
  ]
  endless = any(pipeline.is_endless(clips) for clips in sets)
  starts = np.cumsum([0, *(len(clips) for clips in sets)])
  total = int(starts[-1])
  drawn = all(hasattr(clips, "draw") for clips in sets) and any(
    rule.startswith("random")
    for rule in (dataset.eval_window, dataset.eval_crop)
  )
  order = None
  if not endless:
    order = np.random.default_rng(seed).permutation(total)

  def clip(i):
    epoch, place = divmod(int(i), total)
    place = place if order is None else int(order[place])
    part = int(np.searchsorted(starts, place, side="right")) - 1
    clips, local = sets[part], place - int(starts[part])
    draw = getattr(clips, "draw", None)
    return clips[local] if draw is None else draw(local, epoch)

  def read(index):
    videos, kept, failures = [], [], {}
    for i in index:
      try:
        videos.append(clip(i)["video"])
        kept.append(i)
      except (ValueError, OSError) as error:
        failures[f"clip {i}"] = " ".join(str(error).split())
    return ClipsRead(_stacked(videos), np.asarray(kept, np.int64), failures)

  return Clips(
    total,
    {
      "dataset": dataset.to_dict(),
      "splits": list(protocol.splits),
      "available": total if not endless else "endless",
      "seed": seed,
      "uint8": "as decoded and resized",
    },
    read,
    endless=endless or drawn,
  )


def generate_clips(
  run: evaluators.Sample,
  model: dict[str, Any],
  protocol: Protocol,
  given: Clips | None,
  shape: tuple[int, int, int],
  classes: int,
  batch_size: int,
  num: int,
  seed: int,
) -> Clips:
  """Samples of a generator, in batches; labels are all classes in turn.

  Args:
    run: draws a batch of samples.
    model: which model this is, as JSON.
    protocol: gives the task and the rule to uint8.
    given: real clips that tasks with a condition continue, in turn.
    shape: (T, H, W) of the model's clips.
    classes: number of classes.
    batch_size: clips in each call of `run`.
    num: number of samples.
    seed: seed of the draws.
  """

  def read(index):
    place = np.resize(index, batch_size)  # fills the last batch up
    video = np.zeros((batch_size, *shape, 3), np.uint8)
    if protocol.task != "class_conditional":
      if given is None:
        raise ValueError(
          f"--protocol={protocol.name} continues real clips: give"
          " --reference=FILE_OR_FOLDER of them"
        )
      real = given.read(index % given.num)
      if real.failures:
        raise ValueError(f"clips to continue cannot be read: {real.failures}")
      video = real.video[np.arange(batch_size) % len(real.video)]
    draw = np.random.SeedSequence((seed, int(index[0]))).generate_state(1)[0]
    out = run(protocol.task, place % classes, video, int(draw))["video"]
    pixels = pictures.to_uint8(
      out[: len(index)], protocol.uint8, "samples", int(index[0])
    )
    return ClipsRead(pixels, index)

  origin = {
    "model": model,
    "task": protocol.task,
    "labels": "all classes in turn",
    "batch_size": batch_size,
    "seed": seed,
    "uint8": protocol.uint8,
  }
  if protocol.task != "class_conditional" and given is not None:
    # Without this, features of what continued other clips would be taken.
    origin["given"] = {"clips": given.origin, "num": given.num}
    if num > given.num:
      origin["given"]["in_turn"] = f"up to {-(-num // given.num)} samples each"
  return Clips(num, origin, read)


def reconstruct_clips(
  reconstruct: Callable[[np.ndarray], np.ndarray],
  model: dict[str, Any],
  protocol: Protocol,
  originals: Clips,
  batch_size: int,
) -> Clips:
  """The originals, reconstructed; `reconstruct` takes uint8 and gives float."""

  def read(index):
    original = originals.read(index)
    count = len(original.index)
    if not count:
      return original
    full = original.video[np.arange(batch_size) % count]
    video = pictures.to_uint8(
      reconstruct(full)[:count],
      protocol.uint8,
      "reconstructions",
      int(original.index[0]),
    )
    return dataclasses.replace(original, video=video)

  origin = {
    "model": model,
    "reconstructions_of": originals.origin,
    "uint8": protocol.uint8,
  }
  return Clips(originals.num, origin, read, originals.names)


def _stacked(videos: list[np.ndarray]) -> np.ndarray:
  """Stacks clips to uint8 (B, T, H, W, 3); B may be 0."""
  return np.stack(videos) if videos else np.zeros((0, 1, 1, 1, 3), np.uint8)
