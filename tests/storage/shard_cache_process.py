"""A process that reads a set through storage/shard_cache.py; see its test.

Usage: FOLDER MOST_BYTES SEED COUNT FILE...: reads COUNT random ranges of the
files, writes a line to FOLDER.log for each request, and compares all bytes.
"""

import os
import random
import sys
import time

from storage import shard_cache


def main() -> None:
  folder, most_bytes, seed, count, *paths = sys.argv[1:]
  shard_cache.BLOCK_BYTES = 4096
  contents = [open(path, "rb").read() for path in paths]

  def fetch(number: int, start: int, end: int) -> bytes:
    with open(f"{folder}.log", "a") as f:
      f.write(f"{number} {start} {end}\n")
    time.sleep(0.002)  # as a store takes its time, so that others come by
    return contents[number][start:end]

  reader = shard_cache.Reader(
    "set",
    [len(c) for c in contents],
    fetch,
    shard_cache.Settings(folder, int(most_bytes)),
  )
  draw = random.Random(int(seed))
  print("ready", flush=True)
  for _ in range(int(count)):
    number = draw.randrange(len(contents))
    start = draw.randrange(len(contents[number]))
    end = min(len(contents[number]), start + draw.randrange(1, 9000))
    assert reader.read(number, start, end) == contents[number][start:end]
  print("done", os.getpid(), flush=True)


if __name__ == "__main__":
  main()
