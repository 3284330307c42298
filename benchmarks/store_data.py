"""Training data in an object store: same batches, bounded cache, flat memory.

  python -m benchmarks.store_data [--clips=10000] [--media] [--url=gs://...]

Makes shards of tokens (with --media: of small videos), copies them to a store
(without --url: a folder of the disk, by its file:// URL), and reads an epoch,
shuffled, from the disk, from the store through a cache of a fifth of their
bytes, and from the store through one that holds them all, twice. Prints time,
the most bytes of the cache after any batch, memory, and whether all batches are
equal.
"""

import argparse
import contextlib
import hashlib
import os
import pathlib
import tempfile
import time

import av
import fsspec
import numpy as np

from benchmarks import random_tokens
from configs import tokenizer_video
from input_pipeline import pipeline
from input_pipeline.decoding import frame_reader
from input_pipeline.sources import media_shards
from storage import shard_cache
from storage import shards

_FRAMES, _SIZE, _BATCH = 5, 64, 16
_VIDEOS = 64  # that differ; a clip is one of them, with a label of its own
_PER_SHARD = 256


def _video(seed: int) -> bytes:
  """An mp4 of noise that moves, about 7 kB."""
  rng = np.random.default_rng(seed)
  picture = rng.integers(0, 256, (_SIZE + 32, _SIZE + 32, 3), np.uint8)
  file = tempfile.SpooledTemporaryFile()
  with av.open(file, "w", format="mp4") as container:
    stream = container.add_stream("libx264", rate=25, options={"crf": "20"})
    stream.width, stream.height, stream.pix_fmt = _SIZE, _SIZE, "yuv420p"
    for i in range(_FRAMES):
      frame_HWC = np.ascontiguousarray(picture[i : i + _SIZE, i : i + _SIZE])
      frame = av.VideoFrame.from_ndarray(frame_HWC, format="rgb24")
      container.mux(stream.encode(frame))
    container.mux(stream.encode())
  file.seek(0)
  return file.read()


def _make_media(folder: pathlib.Path, clips: int) -> int:
  """Writes the split "train" of shards; returns their bytes."""
  folder.mkdir(parents=True)
  videos = [_video(seed) for seed in range(_VIDEOS)]
  plan = media_shards.Plan(
    *("noise", "train", tuple(f"{i:06}" for i in range(clips))),
    *(clips, "0" * 64, _PER_SHARD, {}),
  )
  made = []
  for number, name in enumerate(plan.layout.names):
    places = plan.layout.places(number)
    records = (
      media_shards.pack(
        frame_reader.Encoded(f"{i}.mp4", i, (videos[i % _VIDEOS],))
      )
      for i in places
    )
    shards.write(str(folder / name), records, compress=False)
    shard = shards.describe(str(folder), name)
    lengths = (_FRAMES,) * len(places)
    made.append(
      media_shards.Shard(shard.name, shard.bytes, shard.sha256, lengths, ())
    )
  (folder / "media.json").write_text(media_shards.to_json(plan, made))
  return sum(shard.bytes for shard in made)


def _memory() -> float:
  """MB of this process that are in memory, without files that are mapped."""
  pages = pathlib.Path("/proc/self/statm").read_text().split()
  return (int(pages[1]) - int(pages[2])) * os.sysconf("SC_PAGE_SIZE") / 1e6


def _kept(folder: pathlib.Path) -> int:
  """Bytes of all files of the cache, as the disk counts them."""
  total = 0
  for parent, _, names in os.walk(folder):
    for name in names:
      with contextlib.suppress(FileNotFoundError):
        total += 512 * os.stat(os.path.join(parent, name)).st_blocks
  return total


def _epoch(
  path: str, media: bool, clips: int, cache: pathlib.Path, label: str
) -> str:
  """Reads an epoch and prints figures; returns a checksum of all batches."""
  if media:
    dataset = tokenizer_video.get_config("folder64").dataset
    dataset.update({"name": "noise", "path": path})
    dataset.update({"frames": _FRAMES, "size": _SIZE})
  else:
    dataset = tokenizer_video.get_config("digits").dataset
    dataset.tokens = path
  dataset.shuffle = True
  digest, most, memory = hashlib.sha256(), 0, []
  begun = time.monotonic()
  data = pipeline.train_batches(dataset, _BATCH)
  count = clips // _BATCH
  for number in range(count):
    batch = next(data)
    for name in sorted(batch):
      digest.update(batch[name].tobytes())
    most = max(most, _kept(cache))
    if number % (count // 5) == count // 5 - 1:
      memory.append(f"{_memory():.0f}")
  data.close()
  seconds = time.monotonic() - begun
  print(
    f"{label}: {count * _BATCH / seconds:.0f} clips/s, cache at most"
    f" {most / 1e6:.1f} MB, memory {' '.join(memory)} MB",
    flush=True,
  )
  return digest.hexdigest()


def main() -> None:
  parser = argparse.ArgumentParser(description="Reads shards from a store.")
  parser.add_argument("--clips", type=int, default=10_000)
  parser.add_argument("--media", action="store_true")
  parser.add_argument("--url", default="")
  args = parser.parse_args()
  with contextlib.ExitStack() as stack:
    # Threads that read ahead may still write into the cache at the end.
    folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    root = pathlib.Path(stack.enter_context(folder))
    if args.media:
      size = _make_media(root / "shards" / "train", args.clips)
    else:
      size = random_tokens.write(root / "shards", args.clips, 4 * _PER_SHARD)
    url = args.url or f"file://{root}/store"
    system, path = fsspec.url_to_fs(url)
    system.put(f"{root}/shards/", f"{path}/", recursive=True)
    print(f"{args.clips} clips, {size / 1e6:.1f} MB in {url}", flush=True)
    cache = root / "cache"
    os.environ[shard_cache.FOLDER] = str(cache)
    run = lambda path, label: digests.append(
      _epoch(path, args.media, args.clips, cache, label)
    )
    digests: list[str] = []
    run(str(root / "shards"), "disk")
    for label, share in (
      ("store, cache of a fifth", 0.2),
      ("store, cache of all", 1.3),
      ("store, cache of all, again", 1.3),
    ):
      bound = size * share
      os.environ[shard_cache.GIGABYTES] = f"{bound / 1e9:.6f}"
      run(url, f"{label} ({bound / 1e6:.1f} MB)")
  print("all batches equal:", len(set(digests)) == 1)


if __name__ == "__main__":
  main()
