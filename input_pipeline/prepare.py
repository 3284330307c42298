"""Raw images and videos to shards that training reads.

  python -m input_pipeline.prepare --format=ucf101 --input=UCF-101 \
    --lists=ucfTrainTestlist --output=SHARDS --split=train

Every file is decoded once, to the end: those that are broken or missing are
left out and listed with the reason in SHARDS/train/media.json. The same command
again goes on after an interruption: finished shards stay. `--reencode` stores
smaller copies (input_pipeline/decoding/reencode.py), else the files' own bytes
are kept. `--check` reads finished shards of a folder again and compares their
sha256.
"""

import argparse
from collections.abc import Iterator
from collections.abc import Sequence
from concurrent import futures
import dataclasses
import datetime
import hashlib
import json
import logging
import multiprocessing
import os
import time
from typing import Any

from array_record.python import array_record_module

from input_pipeline.decoding import frame_reader
from input_pipeline.decoding import media
from input_pipeline.decoding import reencode as reencode_lib
from input_pipeline.sources import folders
from input_pipeline.sources import media_shards

log = logging.getLogger(__name__)

_LOG_SECONDS = 10


def prepare(
  listing: folders.Listing,
  name: str,
  split: str,
  output: str,
  encoding: reencode_lib.Encoding | None = None,
  examples_per_shard: int = 256,
  max_broken: float = 0.01,
  workers: int = 1,
) -> dict[str, Any]:
  """Writes OUTPUT/SPLIT, or what is still missing there; returns the manifest.

  Args:
    listing: of the split.
    name: of the data set.
    split: "train" or "held_out".
    output: new, empty, or of the same examples.
    encoding: None keeps the files' own bytes.
    examples_per_shard: listed ones; broken ones are left out of them.
    max_broken: share of the listed examples that may be broken.
    workers: processes.

  Raises:
    ValueError: too many broken files, a folder of something else, or arguments
      that cannot work.
  """
  if examples_per_shard < 1 or workers < 1 or not 0 <= max_broken <= 1:
    raise ValueError(
      f"--examples_per_shard={examples_per_shard} and --workers={workers} must"
      f" be at least 1, --max_broken={max_broken} a share in [0, 1]"
    )
  plan = media_shards.Plan(
    name=name,
    split=split,
    class_names=listing.class_names,
    listed=len(listing.entries),
    listing_sha256=_digest(listing),
    examples_per_shard=examples_per_shard,
    encoding=dataclasses.asdict(encoding) if encoding else {},
  )
  folder = os.path.join(output, split)
  shards = _claim(folder, plan)
  missing = [n for n in plan.shard_names if n not in shards]
  limit = max_broken * plan.listed
  for shard in _write(folder, plan, listing, encoding, missing, workers):
    shards[shard.name] = shard
    for path, reason in shard.broken:
      log.warning("left out: %s: %s", path, reason)
    _check_broken(shards, plan, limit)
  _check_broken(shards, plan, limit)
  ordered = [shards[name] for name in plan.shard_names]
  text = media_shards.to_json(plan, ordered)
  _publish(os.path.join(folder, media_shards.MANIFEST), text)
  for name in plan.shard_names:
    if os.path.exists(_note(folder, name)):
      os.remove(_note(folder, name))
  return json.loads(text)


def _digest(listing: folders.Listing) -> str:
  lines = (f"{entry.label} {entry.name}\n" for entry in listing.entries)
  return hashlib.sha256("".join(lines).encode()).hexdigest()


def _claim(
  folder: str, plan: media_shards.Plan
) -> dict[str, media_shards.Shard]:
  """Shards that are there already; else the folder's first manifest."""
  os.makedirs(folder, exist_ok=True)
  path = os.path.join(folder, media_shards.MANIFEST)
  if not os.path.exists(path):
    if os.listdir(folder):
      raise ValueError(
        f"--output={folder} is not empty and holds no {media_shards.MANIFEST}:"
        " choose another folder"
      )
    _publish(path, media_shards.to_json(plan))
    return {}
  manifest = media_shards.read_manifest(folder)
  stored = media_shards.plan_of(manifest)
  for field in dataclasses.fields(plan):
    ours, other = getattr(plan, field.name), getattr(stored, field.name)
    if ours != other:
      raise ValueError(
        f"--output={folder} holds other examples: their {field.name} is"
        f" {other!r}, and that of these would be {ours!r}; choose another"
        " folder"
      )
  shards = media_shards.shards_of(manifest)
  for name in plan.shard_names:
    if os.path.exists(_note(folder, name)):
      with open(_note(folder, name)) as f:
        shards += media_shards.shards_of({"shards": [json.load(f)]})
  found = {}
  for shard in shards:
    if os.path.exists(os.path.join(folder, shard.name)):
      media_shards.check_size(folder, shard)
      found[shard.name] = shard
  return found


def _note(folder: str, name: str) -> str:
  """What is known of a finished shard while others are not."""
  return os.path.join(folder, f".{name}.json")


def _publish(path: str, text: str) -> None:
  temporary = f"{path}.tmp"
  with open(temporary, "w") as f:
    f.write(text)
  os.replace(temporary, path)


def _check_broken(
  shards: dict[str, media_shards.Shard], plan: media_shards.Plan, limit: float
) -> None:
  broken = [pair for shard in shards.values() for pair in shard.broken]
  if len(broken) > limit:
    lines = "".join(f"\n  {path}: {reason}" for path, reason in broken[:50])
    if broken[50:]:
      lines += f"\n  and {len(broken) - 50} more, in the log above"
    raise ValueError(
      f"{len(broken)} of {plan.listed} examples are broken, more than"
      f" --max_broken={limit / plan.listed:g}; finished shards stay: mend the"
      f" files in a new --output, or allow more and go on:{lines}"
    )


def _write(
  folder: str,
  plan: media_shards.Plan,
  listing: folders.Listing,
  encoding: reencode_lib.Encoding | None,
  names: Sequence[str],
  workers: int,
) -> Iterator[media_shards.Shard]:
  """Makes shards in processes, and says how far they are."""
  if not names:
    return
  context = multiprocessing.get_context("spawn")
  done = context.Value("q", 0)
  total = sum(len(plan.places(plan.shard_names.index(n))) for n in names)
  start = time.monotonic()
  job = (folder, plan, listing, encoding)
  pool = futures.ProcessPoolExecutor(
    min(workers, len(names)), context, _start_worker, (*job, done)
  )
  try:
    left = {pool.submit(_write_shard, name) for name in names}
    while left:
      finished, left = futures.wait(left, _LOG_SECONDS, futures.FIRST_COMPLETED)
      rate = done.value / (time.monotonic() - start)
      eta = datetime.timedelta(
        seconds=round((total - done.value) / max(rate, 1e-9))
      )
      log.info(
        "%s %d/%d examples, %.3g/s, %s left",
        *(plan.split, done.value, total, rate, eta),
      )
      for future in finished:
        yield future.result()
  finally:
    pool.shutdown(cancel_futures=True)


_job: tuple = ()  # of this worker process, set as it starts


def _start_worker(*job) -> None:
  global _job
  _job = job


def _write_shard(name: str) -> media_shards.Shard:
  folder, plan, listing, encoding, done = _job
  temporary = os.path.join(folder, f".{name}.tmp")
  # Groups of one record: readers jump, so none decompresses its neighbours.
  # Media are compressed already.
  writer = array_record_module.ArrayRecordWriter(
    temporary, "group_size:1,uncompressed"
  )
  lengths, broken = [], []
  for place in plan.places(plan.shard_names.index(name)):
    entry = listing.entries[place]
    try:
      encoded, length = _load(entry, encoding)
    except ValueError as error:
      broken.append((entry.name, str(error)))
    else:
      writer.write(media_shards.pack(encoded))
      lengths.append(length)
    with done.get_lock():
      done.value += 1
  writer.close()
  size, digest = media_shards.describe_file(temporary)
  shard = media_shards.Shard(name, size, digest, tuple(lengths), tuple(broken))
  os.replace(temporary, os.path.join(folder, name))
  _publish(_note(folder, name), json.dumps(dataclasses.asdict(shard)))
  return shard


def _load(
  entry: folders.Entry, encoding: reencode_lib.Encoding | None
) -> tuple[frame_reader.Encoded, int]:
  """(an example as bytes, its frames), decoded to the end."""
  if not entry.files:
    raise ValueError("listed, and no such file")
  encoded = frame_reader.Encoded(entry.name, entry.label, entry.files)
  if encoding:
    return reencode_lib.reencode(encoded, encoding)
  if len(entry.files) > 1:
    length = len(frame_reader.read(encoded, range))
  else:
    length = sum(1 for _ in media.probe(entry.files[0]).frames())
  parts = []
  for path in entry.files:
    with open(path, "rb") as f:
      parts.append(f.read())
  return dataclasses.replace(encoded, parts=tuple(parts)), length


def check(path: str) -> None:
  """Raises ValueError naming a shard that was changed, of any split."""
  splits = [s for s in ("train", "held_out") if os.path.isdir(f"{path}/{s}")]
  if not splits:
    raise ValueError(f"--check={path} holds neither 'train' nor 'held_out'")
  for split in splits:
    folder = os.path.join(path, split)
    shards = media_shards.shards_of(media_shards.read_manifest(folder))
    for shard in shards:
      media_shards.check_contents(folder, shard)
    log.info("%s: %d shards as they were made", folder, len(shards))


def main() -> None:
  parser = argparse.ArgumentParser(
    description="Raw images and videos to shards that training reads."
  )
  add = parser.add_argument
  layouts = ["classes", "ucf101", "kinetics600", "ssv2", "bair"]
  add("--format", choices=layouts, help="of --input: see folders.py")
  add("--input", help="folder of the raw media")
  add("--lists", default="", help="folder of the lists, if another")
  add("--output", help="folder of the shards; the split is a folder in it")
  add("--split", choices=["train", "held_out"], default="train")
  add("--fold", type=int, default=1, help="which of UCF-101's three")
  add("--workers", type=int, default=os.cpu_count(), help="processes")
  add("--examples_per_shard", type=int, default=256)
  add("--max_broken", type=float, default=0.01, help="share left out at most")
  add("--check", help="folder of shards to read again; nothing is made")
  add("--reencode", action="store_true", help="store copies, made thus:")
  add("--short_side", type=int, default=0, help="pixels; 0: as it is")
  add("--fps", type=float, default=0, help="frames per second; 0: every frame")
  add("--crf", type=int, default=18, help="of H.264; 0 is lossless")
  add("--keyframes", type=int, default=12, help="frames from one to the next")
  add("--quality", type=int, default=95, help="of JPEG")
  args = parser.parse_args()
  logging.basicConfig(
    level=logging.INFO, format="%(asctime)s %(message)s", force=True
  )
  try:
    if args.check:
      return check(args.check)
    for name in ("format", "input", "output"):
      if not getattr(args, name):
        raise ValueError(f"--{name} is needed, or --check=FOLDER")
    encoding = reencode_lib.Encoding(
      args.short_side, args.fps, args.crf, args.keyframes, args.quality
    )
    manifest = prepare(
      folders.listing(
        args.format, args.input, args.lists, args.split, args.fold
      ),
      args.format,
      args.split,
      args.output,
      encoding if args.reencode else None,
      args.examples_per_shard,
      args.max_broken,
      args.workers,
    )
  except ValueError as error:
    parser.exit(1, f"error: {error}\n")
  log.info(
    "%d examples in %d shards, %d left out",
    *(manifest["examples"], len(manifest["shards"]), manifest["broken"]),
  )


if __name__ == "__main__":
  main()
