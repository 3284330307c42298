"""Program of each of the two processes of rows_test: ADDRESS INDEX FOLDER."""

import os
import sys

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.pop("XLA_FLAGS", None)
sys.path.insert(0, os.getcwd())

import jax  # noqa: E402
import numpy as np  # noqa: E402

from evaluation.metrics import frechet  # noqa: E402
from evaluation.protocols import clips as clips_lib  # noqa: E402
from evaluation.protocols import measurements  # noqa: E402
from evaluation.protocols import table as protocol_table  # noqa: E402
from storage import rows as rows_lib  # noqa: E402


def main(address: str, index: str, folder: str) -> None:
  jax.distributed.initialize(address, num_processes=2, process_id=int(index))
  x = 1000 + 0.3 * np.random.default_rng(0).normal(size=(101, 6))
  made_here = []

  def make(place):
    made_here.append(place)
    return rows_lib.Part(place, {"x": x[place]})

  made = rows_lib.compute(
    os.path.join(folder, "f"), {"name": "x"}, 101, 10, make
  )
  total = frechet.streamed(made.rows["x"], rows=16)

  # Both processes hold the 5 clips of a protocol within training.
  sizes = []  # number of clips in each call of the network

  def network(clips):
    sizes.append(len(clips))
    means = clips.mean((2, 3)).reshape(len(clips), -1)
    return {"probabilities": means.astype(np.float32)}

  work = measurements.Work(
    os.path.join(folder, "work"),
    protocol_table.get("is_c3d"),
    network,
    model=None,
    part_size=5,
    seed=0,
    collective=True,
  )
  video = np.arange(5 * 16 * 3).reshape(5, 16, 1, 1, 3).astype(np.uint8)
  clips = clips_lib.Clips(
    5,
    {"name": "x"},
    lambda index: clips_lib.ClipsRead(video[index], index),
  )
  shared = work.features(clips, 5, "made").rows["probabilities"]
  np.savez(
    os.path.join(folder, f"{index}.npz"),
    features=made.rows["x"],
    parts=len(made_here),
    sizes=sizes,
    shared=shared,
    alone=network(video)["probabilities"],  # a further entry of `sizes`
    mean=total.mean,
    scatter=total.scatter,
  )


if __name__ == "__main__":
  main(*sys.argv[1:])
