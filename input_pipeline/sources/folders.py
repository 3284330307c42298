"""Folders of images and videos: the examples and classes of a split.

`dataset.name` says how a folder is laid out:

  ucf101       CLASS/v_CLASS_g01_c01.avi; lists classInd.txt, trainlist01.txt,
               testlist01.txt (dataset.fold of 1..3)
  kinetics600  ID_000010_000020.mp4 in any folder below; lists train.csv and
  kinetics400  validation.csv (or val.csv) with the columns label, youtube_id,
               time_start, time_end
  ssv2         ID.webm in any folder below; lists labels.json, train.json,
               validation.json
  bair         {train,test}/.../VIDEO/*.png, a folder of frames for each video,
               or a video file; no lists, no classes
  any other    {train,held_out}/CLASS/..., images or videos; no lists;
               "val", "validation" or "test" may stand for "held_out", and
               `dataset.held_out` says which of several. Without a held-out
               folder `dataset.held_out_share` of the files is held out, by
               their names (hash_split.py), and without any of these folders
               the classes, CLASS/..., may be in the folder itself. Files that
               are in no folder of a class make a set without classes.

Lists lie in `dataset.lists`, or beside the media. Listed files that are missing
are reported, and so are classes that the list of classes lacks. Without a list
files are in natural order. Classes are numbered in the order of their names as
text, where "10" comes before "2", as ImageNet's synsets and torchvision's
folders are: trained models know them by number. Links are followed, and folders
of systems are none of the data (storage/listing.py). A class without examples
is an error, for the numbers of the classes after it would mean others.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence
import csv
import os
from typing import Annotated
from typing import Any

from input_pipeline.decoding import media
from input_pipeline.sources import entries as entries_lib
from input_pipeline.sources import hash_split
from input_pipeline.sources import own_folders
from input_pipeline.sources.entries import Entry
from input_pipeline.sources.entries import Listing
from storage import listing as listing_lib
from storage import schema

# Sets with lists of splits.
WITH_LISTS = ("ucf101", "kinetics400", "kinetics600", "ssv2")


def listing(
  name: str,
  path: str,
  lists: str,
  split: str,
  fold: int,
  held_out: str = "",
  held_out_share: float = own_folders.HELD_OUT_SHARE,
) -> Listing:
  """The examples of a split, with their files on disk.

  Args:
    name: name of the data set, see the top of this file.
    path: folder of the media.
    lists: folder of the lists; "": that of the media.
    split: "train" or "held_out".
    fold: number of UCF-101's split, 1 to 3.
    held_out: folder of the split "held_out", one of HELD_OUT; "": the only one
      of them that there is. Sets with lists have no such folders.
    held_out_share: share of the files that is held out, by their names, where
      a set without lists has no such folder.

  Raises:
    ValueError: a folder or list that is missing or not as expected, or a class
      without examples.
  """
  for field, folder in (("path", path), ("lists", lists or path)):
    if not os.path.isdir(folder):
      raise ValueError(f"dataset.{field}={folder!r} is no folder")
  hash_split.check_share("dataset.held_out_share", held_out_share)
  if held_out and held_out not in own_folders.HELD_OUT:
    raise ValueError(
      f"dataset.held_out={held_out!r} must be '' or one of"
      f" {list(own_folders.HELD_OUT)}"
    )
  if held_out and name in WITH_LISTS:
    raise ValueError(
      f"dataset.held_out={held_out!r} is for sets in folders, and {name!r} has"
      " lists of its splits: leave it out"
    )
  if name == "ucf101":
    result = _ucf101(path, lists or path, split, fold)
  elif name in _BY_STEM:
    result = _by_stem(path, *_BY_STEM[name](lists or path, split))
  elif name == "bair":
    result = _bair(split_folder(name, path, split, held_out), path)
  else:
    result = own_folders.listing(path, split, held_out, held_out_share)
  if not result.entries:
    raise ValueError(f"dataset.path={path} has no {split!r} images or videos")
  return result


def splits_by_hash(name: str, path: str, held_out: str) -> bool:
  """Whether names of files say which are held out; see own_folders.py."""
  known = name in WITH_LISTS or name == "bair"
  return not known and own_folders.splits_by_hash(path, held_out)


def split_folder(name: str, path: str, split: str, held_out: str) -> str:
  """The folder that files of a split lie in, in a set without lists."""
  if splits_by_hash(name, path, held_out):
    return own_folders.hashed_folder(path)
  return own_folders.split_folder(path, split, held_out)


def _ucf101(path: str, lists: str, split: str, fold: int) -> Listing:
  if fold not in (1, 2, 3):
    raise ValueError(f"dataset.fold={fold} must be 1, 2 or 3")
  index_path = _list_file(lists, "classInd.txt")
  classes = [line.split() for line in _lines(index_path)]
  if [x[0] for x in classes] != [str(i + 1) for i in range(len(classes))]:
    raise ValueError(
      f"{index_path}: expected lines '1 ApplyEyeMakeup', numbered from 1"
    )
  numbers = {x[1]: i for i, x in enumerate(classes)}
  part = {"train": "train", "held_out": "test"}[split]
  list_path = _list_file(lists, f"{part}list{fold:02}.txt")
  # Lists and archive differ in the case of some names (HandStandPushups).
  files = {name.lower(): name for name in media.find(path)[0]}
  entries = []
  for line in _lines(list_path):
    name = line.split()[0]
    label = entries_lib.number(numbers, name.split("/")[0], list_path, name)
    present = files.get(name.lower())
    paths = (os.path.join(path, present),) if present else ()
    entries.append(Entry(present or name, label, paths))
  return Listing(tuple(entries), tuple(x[1] for x in classes))


def _kinetics(lists: str, split: str):
  """(path of the list, [(file without suffix, class)], classes) of a split."""
  train_path = _list_file(lists, "train.csv")
  path = train_path
  if split == "held_out":
    path = _list_file(lists, "validation.csv", "val.csv")
  rows = {path: [], train_path: []}
  for each, pairs in rows.items():
    with open(each, newline="") as f:
      reader = csv.DictReader(f)
      wanted = {"label", "youtube_id", "time_start", "time_end"}
      if not wanted <= set(reader.fieldnames or ()):
        raise ValueError(
          f"{each}: its first line must name the columns {sorted(wanted)}, and"
          f" has {reader.fieldnames}"
        )
      for row in reader:
        start, end = (int(row[k]) for k in ("time_start", "time_end"))
        stem = f"{row['youtube_id']}_{start:06}_{end:06}"
        pairs.append((stem, row["label"]))
  classes = sorted({label for _, label in rows[train_path]})
  return path, rows[path], classes


def _ssv2(lists: str, split: str):
  """(path of the list, [(file without suffix, class)], classes) of a split."""
  labels_path = _list_file(lists, "labels.json")
  number = Annotated[str, schema.matches("[0-9]{1,9}", "of digits")] | int
  labels = schema.load(labels_path, dict[str, number])
  numbers = {name: int(text) for name, text in labels.items()}
  classes = sorted(numbers, key=numbers.__getitem__)
  if sorted(numbers.values()) != list(range(len(numbers))):
    raise ValueError(f"{labels_path}: expected the numbers 0 and up, each once")
  part = {"train": "train", "held_out": "validation"}[split]
  path = _list_file(lists, f"{part}.json")
  rows = schema.load(path, tuple[dict[str, Any], ...])
  for i, row in enumerate(rows):
    for field in ("id", "template"):
      schema.convert(row.get(field), str, path, "", f"[{i}].{field}")
  # Templates put placeholders in brackets; the list of classes does not.
  plain = str.maketrans("", "", "[]")
  pairs = [(row["id"], row["template"].translate(plain)) for row in rows]
  return path, pairs, classes


_BY_STEM: dict[str, Callable] = {
  "kinetics400": _kinetics,
  "kinetics600": _kinetics,
  "ssv2": _ssv2,
}


def _by_stem(
  path: str,
  list_path: str,
  rows: Iterable[tuple[str, str]],
  class_names: Sequence[str],
) -> Listing:
  numbers = {name: i for i, name in enumerate(class_names)}
  files = {}
  for name in media.find(path)[0]:
    stem = os.path.splitext(os.path.basename(name))[0]
    files.setdefault(stem, []).append(name)
  entries = []
  for stem, class_name in rows:
    label = entries_lib.number(numbers, class_name, list_path, stem)
    same = files.get(stem, [])
    if len(same) > 1:
      raise ValueError(
        f"dataset.path={path} holds {stem} more than once: {', '.join(same)};"
        " keep one of them"
      )
    paths = tuple(os.path.join(path, name) for name in same)
    entries.append(Entry(same[0] if same else stem, label, paths))
  return Listing(tuple(entries), tuple(class_names))


def _bair(folder: str, path: str) -> Listing:
  """Video files and folders of frames as entries, without classes."""
  videos = {}
  for name in media.find(folder)[0]:
    full = os.path.join(folder, name)
    image = name.lower().endswith(media.IMAGE_SUFFIXES)
    videos.setdefault(os.path.dirname(full) if image else full, []).append(full)
  return Listing(
    tuple(
      Entry(os.path.relpath(video, path), 0, tuple(videos[video]))
      for video in sorted(videos, key=listing_lib.natural)
    ),
    (),
  )


def _list_file(folder: str, *names: str) -> str:
  for name in names:
    if os.path.isfile(os.path.join(folder, name)):
      return os.path.join(folder, name)
  raise ValueError(
    f"dataset.lists={folder} lacks the official list {' or '.join(names)}:"
    " put it there, or name its folder"
  )


def _lines(path: str) -> list[str]:
  with open(path) as f:
    return [line.strip() for line in f if line.strip()]
