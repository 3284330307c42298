"""Clips to be measured, wherever they are from: files, data sets, models.

Each source numbers its clips, reads any of them, and says in JSON what it is,
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
from storage import npz


@dataclasses.dataclass(frozen=True)
class ClipsRead:
  """Clips that were read, and those that could not be.

  video: uint8 (B, T, H, W, 3).
  index: the number of each, int (B,).
  failures: by name, why others could not be read.
  """

  video: np.ndarray
  index: np.ndarray
  failures: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Clips:
  """`num` clips of one size; `of` is JSON.

  `read` takes the numbers of some clips, int (n,).
  """

  num: int
  of: dict[str, Any]
  read: Callable[[np.ndarray], ClipsRead]
  names: list[str] | None = None  # of files


def of_path(path: str, protocol: Protocol, flag: str) -> Clips:
  """An .npz in the layout of ADM's samples, or a folder of images or videos.

  Raises:
    ValueError: neither, or nothing that the protocol reads.
  """
  if os.path.isdir(path):
    return _of_folder(path, protocol, flag)
  if not os.path.isfile(path):
    raise ValueError(f"--{flag}={path} is neither a file nor a folder")
  if not path.endswith(".npz"):
    raise ValueError(
      f"--{flag}={path} must be an .npz (arr_0 uint8) or a folder of images or"
      " videos"
    )
  return _of_npz(path, protocol, flag)


def _of_npz(path: str, protocol: Protocol, flag: str) -> Clips:
  rows = npz.Rows(path, "arr_0")
  shape = rows.shape
  if rows.dtype != np.uint8 or len(shape) not in (4, 5) or shape[-1] != 3:
    raise ValueError(
      f"--{flag}={path}: arr_0 must be uint8 (N, H, W, 3) or (N, T, H, W, 3),"
      f" got {rows.dtype} {shape}"
    )
  frames = shape[1] if len(shape) == 5 else 1
  check_frames(frames, protocol, f"--{flag}={path}")

  def read(index):
    if not len(index):
      return ClipsRead(_stacked([]), index)
    start = int(index[0])  # parts are consecutive clips
    video = rows.read(start, int(index[-1]) + 1)[index - start]
    return ClipsRead(video[:, None] if video.ndim == 4 else video, index)

  return Clips(
    len(rows),
    {
      "file": os.path.abspath(path),
      "sha256": readers.sha256(path),
      "shape": list(shape),
      "uint8": "as given",
    },
    read,
  )


def check_frames(frames: int, protocol: Protocol, where: str) -> None:
  """Raises ValueError for clips of a length that the protocol does not read."""
  wanted = protocol.frames
  if wanted == 1 and frames != 1:
    raise ValueError(
      f"{where} holds clips of {frames} frames, and {protocol.name} is of"
      " images: give images, or another protocol"
    )
  if frames < wanted:
    raise ValueError(
      f"{where} holds clips of {frames} frames, and {protocol.name} reads"
      f" {wanted}: give longer ones"
    )


def _of_folder(path: str, protocol: Protocol, flag: str) -> Clips:
  names, _ = media.find(path)
  if not names:
    raise ValueError(f"--{flag}={path} holds no images or videos")
  full = [os.path.join(path, name) for name in names]
  stats = [os.stat(file) for file in full]
  listing = [
    (n, s.st_size, s.st_mtime_ns) for n, s in zip(names, stats, strict=True)
  ]
  shape = []  # of the first file read, in every process the same

  def load(file):
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
        continue  # it is reported where it is read
    return shape[0] if shape else None

  def read(index):
    videos, kept, failures = [], [], {}
    for i in index:
      try:
        video = load(full[i])
        shared = expected() or video.shape
        if video.shape != shared:
          raise ValueError(
            f"it is (frames, height, width) {video.shape[:3]}, others are"
            f" {shared[:3]}: bring all to one size"
          )
      except (ValueError, OSError) as error:
        failures[names[i]] = " ".join(str(error).split())
        continue
      videos.append(video)
      kept.append(i)
    return ClipsRead(_stacked(videos), np.asarray(kept, np.int64), failures)

  return Clips(
    len(names),
    {
      "folder": os.path.abspath(path),
      "files": len(names),
      "listing_sha256": hashlib.sha256(repr(listing).encode()).hexdigest(),
      "frames": "the first of each file",
      "uint8": "as decoded",
    },
    read,
    [os.path.splitext(name)[0] for name in names],
  )


def of_dataset(
  config: ml_collections.ConfigDict, protocol: Protocol, num: int, seed: int
) -> Clips:
  """Real clips by the protocol's rules; num -1: each once.

  Clips come in a random order of the seed. Where more are asked for than there
  are, they come again, with another draw of what is random.
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
  if num < 0:
    if endless:
      raise ValueError(
        f"dataset.name={dataset.name!r} is endless, and {protocol.name} reads"
        " every real clip: say how many with --num=N"
      )
    num = total
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
    num,
    {
      "dataset": dataset.to_dict(),
      "splits": list(protocol.splits),
      "available": total if not endless else "endless",
      "seed": seed,
      "uint8": "as decoded and resized",
    },
    read,
  )


def of_samples(
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
  """Samples of a generator, batch after batch; labels are all classes in turn.

  `given` are the real clips that tasks with a condition continue, in turn;
  `shape` is (T, H, W) of the model's.
  """

  def read(index):
    place = np.resize(index, batch_size)  # a last batch is filled up
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
    return ClipsRead(to_uint8(out[: len(index)], protocol.uint8), index)

  of = {
    "model": model,
    "task": protocol.task,
    "labels": "all classes in turn",
    "batch_size": batch_size,
    "seed": seed,
    "uint8": protocol.uint8,
  }
  return Clips(num, of, read)


def of_reconstructions(
  reconstruct: Callable[[np.ndarray], np.ndarray],
  model: dict[str, Any],
  protocol: Protocol,
  originals: Clips,
  batch_size: int,
) -> Clips:
  """What `reconstruct`, uint8 to float, makes of the originals."""

  def read(index):
    original = originals.read(index)
    count = len(original.index)
    if not count:
      return original
    full = original.video[np.arange(batch_size) % count]
    video = to_uint8(reconstruct(full)[:count], protocol.uint8)
    return dataclasses.replace(original, video=video)

  of = {
    "model": model,
    "reconstructions_of": originals.of,
    "uint8": protocol.uint8,
  }
  return Clips(originals.num, of, read, originals.names)


def _stacked(videos: list[np.ndarray]) -> np.ndarray:
  """uint8 (B, T, H, W, 3), of no clips as well."""
  return np.stack(videos) if videos else np.zeros((0, 1, 1, 1, 3), np.uint8)


def to_uint8(video: np.ndarray, rule: str) -> np.ndarray:
  """Floats in [0, 1] to uint8: "round", or "truncate" as guided-diffusion."""
  if rule == "truncate":
    video = np.asarray(video, np.float32)
    return (np.clip(video, 0, 1) * 255).astype(np.uint8)
  return pictures.to_uint8(video)
