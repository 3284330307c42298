"""Makes shards that training reads from raw images and videos.

  python -m input_pipeline.prepare --format=ucf101 --input=UCF-101 \
    --lists=ucfTrainTestlist --output=SHARDS --split=train

Every file is decoded once, to the end: broken and missing ones are left out and
listed with the reason in SHARDS/train/media.json. After an interruption the
same command goes on: finished shards stay. `--reencode` stores smaller copies
(input_pipeline/decoding/reencode.py); without it the files are stored as they
are. `--check` reads the finished shards of a folder again and compares their
sha256.

  python -m input_pipeline.prepare --format=film --output=SHARDS --size=64
  python -m input_pipeline.prepare --format=shots --input=FILMS --output=SHARDS

cut long videos at their shots (input_pipeline/cutting.py), and write both
splits. The first one fetches a film for it (input_pipeline/sources/film.py).
"""

from storage import interrupts

if __name__ == "__main__":
  interrupts.end_at_once()  # the other imports take seconds

import argparse
import dataclasses
import hashlib
import json
import logging
import os
from typing import Any

from input_pipeline import cutting
from input_pipeline import prepare_flags
from input_pipeline.decoding import frame_reader
from input_pipeline.decoding import reencode as reencode_lib
from input_pipeline.decoding import spans
from input_pipeline.sources import entries
from input_pipeline.sources import film
from input_pipeline.sources import folders
from input_pipeline.sources import hash_split
from input_pipeline.sources import media_shards
from storage import files
from storage import listing as listing_lib
from storage import lock
from storage import parts
from storage import progress as progress_lib
from storage import schema
from storage import shards as shards_lib

log = logging.getLogger(__name__)

_FILM_SIZE = 64  # pixels of the short side of the film
_FILM_CRF = 10  # small frames show each error of H.264


def prepare(
  listing: entries.Listing,
  name: str,
  split: str,
  output: str,
  encoding: reencode_lib.Encoding | None = None,
  examples_per_shard: int = 256,
  max_broken: float = 0.01,
  workers: int = 1,
  attribution: str = "",
) -> dict[str, Any]:
  """Writes OUTPUT/SPLIT, or what is still missing there; returns the manifest.

  Args:
    listing: the examples of the split.
    name: name of the data set.
    split: "train" or "held_out".
    output: folder that is new, empty, or holds shards of the same examples.
    encoding: how files are encoded again; None stores them as they are.
    examples_per_shard: number of listed examples for each shard, broken ones
      included, which are left out.
    max_broken: share of the listed examples that may be broken.
    workers: number of processes.
    attribution: whose the media are, for those who see pictures of them.

  Raises:
    ValueError: too many broken files, a folder of something else or of another
      process, or arguments that cannot work.
  """
  if examples_per_shard < 1 or workers < 1 or not 0 <= max_broken <= 1:
    raise ValueError(
      f"--examples_per_shard={examples_per_shard} and --workers={workers} must"
      f" be at least 1, and --max_broken={max_broken} a share in [0, 1]"
    )
  plan = media_shards.Plan(
    name=name,
    split=split,
    class_names=listing.class_names,
    listed=len(listing.entries),
    listing_sha256=_digest(listing),
    examples_per_shard=examples_per_shard,
    encoding=dataclasses.asdict(encoding) if encoding else {},
    attribution=attribution,
  )
  folder = files.inside(output, split)
  with lock.held(folder, "input_pipeline.prepare"):
    return _write(folder, plan, listing, encoding, max_broken, workers)


def _write(
  folder: str,
  plan: media_shards.Plan,
  listing: entries.Listing,
  encoding: reencode_lib.Encoding | None,
  max_broken: float,
  workers: int,
) -> dict[str, Any]:
  """Writes the shards that are missing in a folder of this process."""
  names = plan.layout.names
  shards = {shard.name: shard for shard in _claim(folder, plan)}
  missing = [i for i, name in enumerate(names) if name not in shards]
  total = sum(len(plan.layout.places(number)) for number in missing)
  made = parts.in_workers(
    _write_shard,
    [names[number] for number in missing],
    workers,
    _start_worker,
    (folder, plan, listing, encoding),
    progress_lib.Progress(plan.split, total, "examples"),
  )
  for shard in made:
    shards[shard.name] = shard
    for path, reason in shard.broken:
      log.warning("left out: %s: %s", path, reason)
    _check_broken(shards, plan, max_broken)
  _check_broken(shards, plan, max_broken)
  return _finish(folder, plan, [shards[name] for name in names])


def _finish(folder, plan, shards) -> dict[str, Any]:
  """Writes the manifest and removes the notes that it replaces."""
  text = media_shards.to_json(plan, shards)
  media_shards.FORMAT.finish(folder, text)
  for shard in shards:
    if os.path.exists(_note(folder, shard.name)):
      os.remove(_note(folder, shard.name))
  return json.loads(text)


def _digest(listing: entries.Listing) -> str:
  lines = (
    f"{entry.label} {entry.name}{entry.file_sha256}\n"
    for entry in listing.entries
  )
  return hashlib.sha256(os.fsencode("".join(lines))).hexdigest()


def _claim(folder: str, plan: media_shards.Plan) -> list[media_shards.Shard]:
  """Claims the folder; returns the shards that are finished there."""
  whole = parts.Folder(folder, plan.layout.names)
  shards = media_shards.FORMAT.claim(whole, media_shards.to_json(plan))
  for shard in shards:
    media_shards.FORMAT.check(folder, shard, contents=False)
  for number, name in enumerate(whole.names):
    note = _note(folder, name)
    if not os.path.exists(note) or not os.path.exists(whole.part(number)):
      continue
    # A power loss can leave a file that is cut, empty or full of zeros.
    try:
      shard = schema.load(note, media_shards.Shard)
      if shard.name != name:
        raise ValueError(f"{note} describes {shard.name!r}")
      media_shards.FORMAT.check(folder, shard, contents=True)
    except ValueError as error:
      log.warning("%s is made again: %s", name, error)
    else:
      shards.append(shard)
  return shards


def _note(folder: str, name: str) -> str:
  """Path of a file that describes a finished shard until all are finished."""
  return files.inside(folder, f".{name}.json")


def _check_broken(
  shards: dict[str, media_shards.Shard],
  plan: media_shards.Plan,
  max_broken: float,
) -> None:
  broken = [pair for shard in shards.values() for pair in shard.broken]
  problem = (
    f"examples are broken, more than --max_broken={max_broken:g}; finished"
    " shards stay: repair the files and use a new --output, or raise"
    " --max_broken and run the command again"
  )
  parts.check_failures(
    broken, plan.listed, max_broken, problem, shown=50, start="\n  "
  )


_job: tuple = ()  # arguments of this worker process, set as it starts


def _start_worker(*job) -> None:
  global _job
  _job = job


def _write_shard(name: str) -> media_shards.Shard:
  folder, plan, listing, encoding, done = _job
  lengths, broken = [], []

  def records():
    for place in plan.layout.places(plan.layout.names.index(name)):
      entry = listing.entries[place]
      try:
        encoded, length = _load(entry, encoding)
      except (OSError, ValueError) as error:
        broken.append(
          (listing_lib.text(entry.name), " ".join(str(error).split()))
        )
      else:
        lengths.append(length)
        yield media_shards.pack(encoded)
      with done.get_lock():
        done.value += 1

  # Media are compressed already.
  shards_lib.write(os.path.join(folder, name), records(), compress=False)
  described = vars(shards_lib.describe(folder, name))
  shard = media_shards.Shard(
    **described, lengths=tuple(lengths), broken=tuple(broken)
  )
  text = json.dumps(dataclasses.asdict(shard))
  files.write_atomically(_note(folder, name), text)
  return shard


def _load(
  entry: entries.Entry, encoding: reencode_lib.Encoding | None
) -> tuple[frame_reader.Encoded, int]:
  """(example as bytes, number of its frames); decodes it to the end."""
  if not entry.files:
    raise ValueError("it is listed, but its file is missing")
  if entry.span and encoding:
    part = spans.probe(entry.files[0], *entry.span)
    data, length = reencode_lib.mp4(part, encoding, exact=True)
    return frame_reader.Encoded(entry.name, entry.label, (data,)), length
  encoded = frame_reader.Encoded(entry.name, entry.label, entry.files)
  if encoding:
    return reencode_lib.reencode(encoded, encoding)
  length = sum(1 for _ in frame_reader.every_frame(encoded))
  contents = []
  for path in entry.files:
    with open(path, "rb") as f:
      contents.append(f.read())
  return dataclasses.replace(encoded, parts=tuple(contents)), length


def check(path: str) -> None:
  """Raises ValueError that names a changed or missing shard of any split.

  The live action beside a film is read, too.
  """
  sets = (path, film.live_action(path))
  splits = [
    os.path.join(s, split) for s in sets for split in prepare_flags.SPLITS
  ]
  folders = [split for split in splits if os.path.isdir(split)]
  if not folders:
    raise ValueError(
      f"--check={path} holds neither 'train' nor 'held_out': name the --output"
      " of an earlier run"
    )
  for folder in folders:
    _, shards = media_shards.FORMAT.read(folder)
    for shard in shards:
      media_shards.FORMAT.check(folder, shard, contents=True)
    log.info("%s: %d shards are as they were made", folder, len(shards))


def main() -> None:
  parser = prepare_flags.parser()
  args = parser.parse_args()
  logging.basicConfig(
    level=logging.INFO, format="%(asctime)s %(message)s", force=True
  )
  with interrupts.in_one_line():
    try:
      _run(args)
    except ValueError as error:
      parser.exit(1, f"error: {error}\n")
    except OSError as error:
      # Those of reading name their file as ValueErrors; a full disk is left.
      parser.exit(
        1,
        f"error: {error.filename or args.output}: {error.strerror or error}:"
        " see that the disk has room, or name another --output, and run the"
        " same command again, which goes on\n",
      )


def _run(args: argparse.Namespace) -> None:
  if args.check:
    return check(args.check)
  for name in ("format", "input", "output"):
    if not getattr(args, name) and (name, args.format) != ("input", "film"):
      raise ValueError(f"--{name} is needed, or --check=FOLDER")
  if args.format in prepare_flags.CUT:
    return _cut(args)
  encoding = reencode_lib.Encoding(
    args.short_side or 0,
    args.fps,
    18 if args.crf is None else args.crf,
    args.keyframes,
    args.quality,
  )
  split = args.split or "train"
  manifest = prepare(
    folders.listing(
      *(args.format, args.input, args.lists, split, args.fold),
      *(args.held_out, args.held_out_share),
    ),
    args.format,
    split,
    args.output,
    encoding if args.reencode else None,
    args.examples_per_shard,
    args.max_broken,
    args.workers,
  )
  _say(split, manifest)


def _say(split: str, manifest: dict[str, Any]) -> None:
  log.info(
    "%s: %d examples in %d shards, %d left out",
    *(split, manifest["examples"], len(manifest["shards"])),
    manifest["broken"],
  )


def _cut(args: argparse.Namespace) -> None:
  """Cuts a film, or a folder of videos, at its shots; writes both splits."""
  is_film = args.format == "film"
  refused = ("split", "held_out", "lists", "fps")
  for flag in (*refused, "attribution") if is_film else refused:
    if getattr(args, flag):
      raise ValueError(
        f"--{flag}={getattr(args, flag)} is not for --format={args.format}:"
        " leave it out"
      )
  hash_split.check_share("--held_out_share", args.held_out_share)
  if not is_film and not os.path.isdir(args.input):
    raise ValueError(f"--input={args.input} is no folder: name one of videos")
  size = args.short_side
  if size is None:
    if not is_film:
      raise ValueError("--size=PIXELS is needed, the short side of the pieces")
    size = _FILM_SIZE
  crf = _FILM_CRF if args.crf is None else args.crf
  encoding = reencode_lib.Encoding(size, 0, crf, args.keyframes, args.quality)
  if is_film:
    sets = film.fetch(args.output, args.input)
  else:
    owned = (args.output, (), False, args.attribution)
    sets = [film.Videos("shots", args.input, *owned)]
  for videos in sets:
    rule = cutting.Rule(
      args.frames, args.first_seconds, args.last_seconds, videos.left_out
    )
    scans = cutting.scan_folder(
      videos.path, videos.output, rule, args.workers, args.max_broken
    )
    log.info("%s: %s", videos.name, cutting.describe(scans))
    share = 1.0 if videos.is_held_out else args.held_out_share
    for split, listing in cutting.listings(videos.path, scans, share).items():
      if videos.is_held_out and split == "train":
        continue
      manifest = prepare(
        *(listing, videos.name, split, videos.output, encoding),
        *(args.examples_per_shard, args.max_broken, args.workers),
        videos.attribution,
      )
      _say(f"{videos.name}, {split}", manifest)


if __name__ == "__main__":
  main()
