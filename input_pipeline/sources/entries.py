"""The examples of a split of a folder, and the files that hold them."""

import dataclasses
import functools
import logging

from input_pipeline.decoding import frame_reader
from input_pipeline.decoding import media
from storage import listing as listing_lib

log = logging.getLogger(__name__)

# Suffixes of pictures that are animations in some files.
_ANIMATIONS = (".gif", ".png", ".tif", ".tiff", ".webp")


@dataclasses.dataclass(frozen=True)
class Entry:
  """One example of a split."""

  name: str  # path below the folder
  label: int
  files: tuple[str, ...]  # one file, or a video's frames; () if missing
  # Frames of the file that are the example, from the first up to the second;
  # None: all of it.
  span: tuple[int, int] | None = None
  # sha256 of a file that pieces were cut from, which another one may replace.
  file_sha256: str = ""


@dataclasses.dataclass(frozen=True)
class Listing:
  """All examples that a split should hold, in the order of its list."""

  entries: tuple[Entry, ...]
  class_names: tuple[str, ...]


class Folder:
  """Random-access encoded examples of a listing."""

  def __init__(self, listing: Listing):
    """Takes a listing; raises ValueError that names files that are missing."""
    missing = [
      listing_lib.text(entry.name)
      for entry in listing.entries
      if not entry.files
    ]
    if missing:
      raise ValueError(
        f"{len(missing)} of {len(listing.entries)} listed files are missing:"
        f" {', '.join(missing[:5])}{', ...' if missing[5:] else ''}; put them"
        " there, or make shards with `python -m input_pipeline.prepare"
        " --max_broken=SHARE`, which leaves them out and reports them"
      )
    self._entries, self.class_names = listing.entries, listing.class_names

  def __len__(self) -> int:
    return len(self._entries)

  def __getitem__(self, index: int) -> frame_reader.Encoded:
    entry = self._entries[index]
    return frame_reader.Encoded(entry.files[0], entry.label, entry.files)

  def check_frames(self, frames: int) -> None:
    """Raises ValueError for a still picture where clips have several frames.

    Where they have one, a line says that videos give one frame each.
    """
    if frames == 1:
      videos = sum(_is_video(entry) for entry in self._entries)
      if videos:
        say_once(f"dataset.frames=1: one frame of each of {videos} videos")
      return
    for entry in self._entries:
      if not _is_video(entry) and _is_still(entry.files[0]):
        stills = sum(not _is_video(entry) for entry in self._entries)
        raise ValueError(
          f"{listing_lib.text(entry.files[0])} is a picture, and a clip has"
          f" dataset.frames={frames}: take a row for images"
          " (configs/tokenizer_image.py), or name a folder of videos alone"
          f" ({stills} of these {len(self)} files are named as pictures)"
        )


def _is_video(entry: Entry) -> bool:
  """Whether an example is a video by its name, or has a file a frame."""
  return len(entry.files) > 1 or entry.name.lower().endswith(
    media.VIDEO_SUFFIXES
  )


def _is_still(file: str) -> bool:
  """Whether a file named as a picture is one; some formats have animations."""
  if file.lower().endswith(_ANIMATIONS):
    return media.probe(file).kind == "image"
  return True


@functools.cache
def say_once(line: str) -> None:
  """Logs a line, however often a folder is read."""
  log.info("%s", line)


def number(numbers: dict[str, int], name: str, where: str, example: str) -> int:
  """Number of a class; ValueError, with the example, for an unknown one."""
  if name not in numbers:
    raise ValueError(
      f"{where}: {listing_lib.text(example)} is of the class {name!r}, which is"
      f" none of the {len(numbers)} known ones"
      f" ({', '.join(list(numbers)[:3])}, ...)"
    )
  return numbers[name]
