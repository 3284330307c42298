"""Folders of images and videos without official lists.

The folders of a set say which files are held out, or the names of the files do;
and the folders of its classes, if it has any, number them.
"""

from collections.abc import Iterable
import dataclasses
import os

from input_pipeline.decoding import media
from input_pipeline.sources import entries as entries_lib
from input_pipeline.sources import hash_split
from input_pipeline.sources.entries import Entry
from input_pipeline.sources.entries import Listing
from storage import listing as listing_lib

HELD_OUT = ("held_out", "val", "validation", "test")
HELD_OUT_SHARE = 0.1  # share where a folder has no folder of held-out files


def listing(path: str, split: str, held_out: str, share: float) -> Listing:
  """The examples of a split; see `folders.listing`."""
  if splits_by_hash(path, held_out):
    folder = hashed_folder(path)
    whole = _by_class(path, folder)
    return _by_hash(whole, path, folder, split, share)
  return _by_class(path, split_folder(path, split, held_out))


def _by_hash(
  whole: Listing, path: str, folder: str, split: str, share: float
) -> Listing:
  """The part of a listing that is in a split by the names below `folder`."""
  if not whole.entries:
    return whole
  if len(whole.entries) == 1:
    raise ValueError(
      f"dataset.path={path} holds one image or video,"
      f" {listing_lib.text(whole.entries[0].name)}, of which none can be held"
      " out: add others"
    )
  names = [os.path.relpath(e.files[0], folder) for e in whole.entries]
  held_out = hash_split.is_held_out(names, share)
  entries_lib.say_once(
    f"data: {path} has no folder of held-out files; {sum(held_out)} of its"
    f" {len(names)} are held out by their names"
    f" (dataset.held_out_share={share})"
  )
  kept = zip(whole.entries, held_out, strict=True)
  entries = tuple(e for e, out in kept if out == (split == "held_out"))
  return dataclasses.replace(whole, entries=entries)


def _by_class(path: str, folder: str) -> Listing:
  """All examples of a folder of `path`, in classes or without any."""
  train = os.path.join(path, "train")
  first = train if os.path.isdir(train) else folder  # numbers the classes
  names = media.find(folder)[0]
  if folder != path:
    _say_what_is_left_out(path)
  flat = _is_flat(folder, path)
  if flat != _is_flat(first, path):
    raise ValueError(
      f"dataset.path={path}: one of {first} and {folder} has folders of"
      " classes, and the other has images or videos without: give both the"
      " same form"
    )
  if flat:
    files = [os.path.join(folder, name) for name in names]
    entries = [Entry(os.path.relpath(f, path), 0, (f,)) for f in files]
    return Listing(tuple(entries), ())
  classes = listing_lib.folders(first)
  numbers = {name: i for i, name in enumerate(classes)}
  entries, held = [], set()
  for name in names:
    full, class_name = os.path.join(folder, name), name.split(os.sep)[0]
    label = entries_lib.number(numbers, class_name, folder, name)
    entries.append(Entry(os.path.relpath(full, path), label, (full,)))
    held.add(class_name)
  empty = [
    listing_lib.text(os.path.join(each, name))
    for each in dict.fromkeys((first, folder))
    for name in listing_lib.folders(each)
    if (
      name not in held
      if each == folder
      else not _holds_media(os.path.join(each, name))
    )
  ]
  if empty:
    raise ValueError(
      f"{len(empty)} folders of classes hold no images or videos, and each"
      f" folder is a class: fill or remove {', '.join(empty[:3])}"
      f"{', ...' if empty[3:] else ''}"
    )
  return Listing(tuple(entries), tuple(classes))


def _is_flat(folder: str, path: str) -> bool:
  """Whether images and videos lie in a folder itself, and so have no classes.

  Raises:
    ValueError: some do, and others lie in folders.
  """
  with os.scandir(folder) as listed:
    files = sorted(
      entry.name
      for entry in listed
      if media.is_named_as_media(entry.name)
      and not listing_lib.is_system(entry.name)
      and not entry.is_dir()
    )
  if not files:
    return False
  for name in listing_lib.folders(folder):
    if _holds_media(os.path.join(folder, name)):
      raise ValueError(
        f"dataset.path={path}: {listing_lib.text(folder)} has {len(files)}"
        f" images or videos ({listing_lib.text(files[0])}, ...) beside the"
        f" folder {listing_lib.text(name)!r}, which may be a class: put each"
        " into the folder of its class, or all into one folder"
      )
  return True


def _say_what_is_left_out(path: str) -> None:
  """A line on images and videos beside the folders of the splits."""
  others = [
    listing_lib.text(name)
    for name in listing_lib.folders(path)
    if name not in ("train", *HELD_OUT)
    and _holds_media(os.path.join(path, name))
  ]
  if others:
    entries_lib.say_once(
      f"dataset.path={path}: not read, because there is a folder 'train' or of"
      f" held-out files: {', '.join(others[:5])}{', ...' if others[5:] else ''}"
    )


def _holds_media(folder: str) -> bool:
  return any(map(media.is_named_as_media, listing_lib.scan(folder)))


def _present(path: str, names: Iterable[str]) -> list[str]:
  return [n for n in names if os.path.isdir(os.path.join(path, n))]


def splits_by_hash(path: str, held_out: str) -> bool:
  """Whether no folder says which files are held out, but their names do."""
  return not held_out and not _present(path, HELD_OUT)


def hashed_folder(path: str) -> str:
  """The folder whose files are split by their names."""
  return os.path.join(path, *_present(path, ("train",)))


def split_folder(path: str, split: str, held_out: str) -> str:
  """The folder of a split; ValueError if there is none, or several may be."""
  names = ("train",) if split == "train" else HELD_OUT
  present = _present(path, names)
  if split == "held_out" and held_out:
    if held_out not in present:
      raise ValueError(
        f"dataset.path={path} lacks the folder {held_out!r} that"
        f" dataset.held_out names, and holds {present}"
      )
    return os.path.join(path, held_out)
  if len(present) > 1:
    raise ValueError(
      f"dataset.path={path} holds {present}, any of which may be the split"
      f" 'held_out': say which with dataset.held_out={present[0]}"
      " (`prepare --held_out`)"
    )
  if not present:
    raise ValueError(
      f"dataset.path={path} must hold one of the folders {list(names)} for the"
      f" split {split!r}, and holds none: put its files there"
    )
  return os.path.join(path, present[0])
