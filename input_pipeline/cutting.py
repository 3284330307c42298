"""Long videos as the examples of a set: pieces of their shots.

Videos are scanned once; what was found is kept in OUTPUT/scans for runs that
follow. Shots, not pieces, are held out, by their names (hash_split.py), because
pieces of one shot look alike. The number of a shot is the label of its pieces.
"""

import dataclasses
import json
import logging
import os
from typing import Annotated

import numpy as np

from input_pipeline import shots as shots_lib
from input_pipeline.decoding import media
from input_pipeline.sources import hash_split
from input_pipeline.sources.entries import Entry
from input_pipeline.sources.entries import Listing
from storage import files
from storage import listing as listing_lib
from storage import parts
from storage import progress as progress_lib
from storage import schema

log = logging.getLogger(__name__)

# Number of the rules in shots.py and of what a scan holds; a scan with another
# one does not count.
_VERSION = 2
_REMEDY = "remove it, and it is made again"


@dataclasses.dataclass(frozen=True)
class Rule:
  """How videos are cut.

  frames: number of frames of the shortest piece; the longest has up to twice as
    many.
  first_seconds: seconds at the start of each video that are left out.
  last_seconds: seconds at its end, like those of credits.
  left_out: further seconds that are left out, from the first to the second.
  """

  frames: int
  first_seconds: float = 0.0
  last_seconds: float = 0.0
  left_out: tuple[tuple[float, float], ...] = ()

  def __post_init__(self):
    """Raises ValueError for settings that cannot work."""
    if self.frames < 2:
      raise ValueError(
        f"--frames={self.frames} must be at least 2: a piece has to move"
      )
    for field in ("first_seconds", "last_seconds"):
      if not 0 <= getattr(self, field) < 1e6:
        raise ValueError(
          f"--{field}={getattr(self, field):g} must be at least 0, and less"
          " than the length of a video"
        )

  def spans(self, count: int, rate: float) -> list[shots_lib.Span]:
    """The frames that are left out, of `count` at `rate` frames a second."""
    seconds = (
      (0.0, self.first_seconds),
      (count / rate - self.last_seconds, count / rate),
      *self.left_out,
    )
    place = lambda second: min(max(round(second * rate), 0), count)
    return [(place(start), place(stop)) for start, stop in seconds]


@dataclasses.dataclass(frozen=True)
class Shot:
  """A shot: its frames, and the pieces of it that are examples."""

  span: tuple[int, int]
  pieces: tuple[tuple[int, int], ...]


@dataclasses.dataclass(frozen=True)
class Scan:
  """What was found in a video."""

  version: int
  bytes: int  # size of the video; another size or time is another video
  changed: int  # its time of change, in nanoseconds
  rule: Rule
  count: Annotated[int, schema.at_least(1)]  # number of frames
  rate: float  # frames per second
  shots: tuple[Shot, ...]
  sha256: str = ""  # the video's; scans of version 1 have none


def scan_folder(
  path: str, output: str, rule: Rule, workers: int, max_broken: float = 0.01
) -> dict[str, Scan]:
  """Scans of the videos in a folder and below, by name, in natural order.

  Raises:
    ValueError: no videos, or more than this share that cannot be read.
  """
  names = [
    name
    for name in media.find(path)[0]
    if name.lower().endswith(media.VIDEO_SUFFIXES)
  ]
  if not names:
    raise ValueError(f"--input={path} holds no videos: name a folder of some")
  kept = {name: _kept(path, name, output, rule) for name in names}
  missing = [name for name in names if kept[name] is None]
  total = sum(_expected_frames(os.path.join(path, name)) for name in missing)
  progress = progress_lib.Progress("shots", total, "frames")
  job = (path, output, rule)
  failures = []
  for name, scan, reason in parts.in_workers(
    _scan_in_worker, missing, workers, _start_worker, job, progress
  ):
    kept[name] = scan
    if reason:
      log.warning("left out: %s: %s", listing_lib.text(name), reason)
      failures.append((listing_lib.text(name), reason))
  problem = (
    f"videos cannot be read, more than --max_broken={max_broken:g}: repair or"
    " remove them, or raise --max_broken"
  )
  parts.check_failures(failures, len(names), max_broken, problem)
  return {name: scan for name, scan in kept.items() if scan is not None}


def listings(
  path: str, scans: dict[str, Scan], share: float
) -> dict[str, Listing]:
  """The examples of the splits "train" and "held_out".

  Args:
    path: the folder of the videos.
    scans: what was found in each of them.
    share: share of the shots that is held out; 1: all of them.

  Raises:
    ValueError: too few shots.
  """
  known = [
    (f"{name}/shot_{number:04}", name, shot)
    for name, scan in scans.items()
    for number, shot in enumerate(scan.shots)
    if shot.pieces
  ]
  names = tuple(listing_lib.text(shot_name) for shot_name, _, _ in known)
  if len(known) < 2:
    raise ValueError(
      f"--input={path} has {len(known)} shots that are long enough and move,"
      " and some are held out: give longer or more videos, or lower --frames"
    )
  held_out = [True] * len(known)
  if share < 1:
    held_out = hash_split.is_held_out([x for x, _, _ in known], share)
  split: dict[str, list[Entry]] = {"train": [], "held_out": []}
  for label, (shot_name, name, shot) in enumerate(known):
    for start, stop in shot.pieces:
      split["held_out" if held_out[label] else "train"].append(
        Entry(
          f"{shot_name}/{start:07}-{stop:07}",
          label,
          (os.path.join(path, name),),
          (start, stop),
          scans[name].sha256,
        )
      )
  return {k: Listing(tuple(entries), names) for k, entries in split.items()}


def describe(scans: dict[str, Scan]) -> str:
  """A line on what was found."""
  shots = [shot for scan in scans.values() for shot in scan.shots]
  pieces = sum(len(shot.pieces) for shot in shots)
  seconds = sum(scan.count / scan.rate for scan in scans.values())
  used = sum(
    (stop - start) / scan.rate
    for scan in scans.values()
    for shot in scan.shots
    for start, stop in shot.pieces
  )
  return (
    f"{len(scans)} videos of {seconds:.1f} s: {len(shots)} shots, {pieces}"
    f" pieces that move, {used:.1f} s"
  )


def _scan_path(output: str, name: str) -> str:
  safe = listing_lib.safe(name).replace(os.sep, "__")
  return files.inside(output, "scans", f"{safe}.json")


def _kept(path: str, name: str, output: str, rule: Rule) -> Scan | None:
  """The scan of an earlier run, if it is of this video by this rule."""
  file = _scan_path(output, name)
  if not os.path.exists(file):
    return None
  scan = schema.load(file, Scan, _REMEDY)
  state = os.stat(os.path.join(path, name))
  known = (scan.version, scan.bytes, scan.changed, scan.rule)
  now = (_VERSION, state.st_size, state.st_mtime_ns, rule)
  return scan if known == now else None


def _expected_frames(path: str) -> int:
  """About how many frames a video has; 1 if it does not say."""
  try:
    with media.open_video(path) as container:
      stream = media.video_stream(container)
      seconds = (container.duration or 0) / 1e6
      return (
        stream.frames or int(seconds * float(stream.average_rate or 0)) or 1
      )
  except (ValueError, OSError):
    return 1  # the scan says what is wrong


_job: tuple = ()  # arguments of this worker process, set as it starts


def _start_worker(*job) -> None:
  global _job
  _job = job


def _scan_in_worker(name: str) -> tuple[str, Scan | None, str]:
  """(name, scan, why there is none)."""
  path, output, rule, done = _job
  try:
    scan = _scan(os.path.join(path, name), rule, done)
  except (OSError, ValueError) as error:
    return name, None, " ".join(str(error).split())
  text = json.dumps(dataclasses.asdict(scan), indent=1)
  files.write_atomically(_scan_path(output, name), text + "\n")
  return name, scan, ""


def _scan(path: str, rule: Rule, done) -> Scan:
  opened = media.probe(path)
  state = os.stat(path)
  thumbs = []
  for frame_HWC in opened.frames():
    thumbs.append(shots_lib.thumbnail(frame_HWC))
    with done.get_lock():
      done.value += 1
  thumbs_THWC = np.stack(thumbs)
  rate = float(opened.video_rate)
  left_out = rule.spans(len(thumbs), rate)
  shots = [
    Shot(span, tuple(shots_lib.moving_pieces(thumbs_THWC, span, rule.frames)))
    for span in shots_lib.find(thumbs_THWC, rule.frames, left_out)
  ]
  return Scan(
    version=_VERSION,
    bytes=state.st_size,
    changed=state.st_mtime_ns,
    rule=rule,
    count=len(thumbs),
    rate=rate,
    shots=tuple(shots),
    sha256=files.sha256(path),
  )
