"""One of the two processes of rows_test: ADDRESS INDEX FOLDER."""

import os
import sys

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.pop("XLA_FLAGS", None)
sys.path.insert(0, os.getcwd())

import jax  # noqa: E402
import numpy as np  # noqa: E402

from evaluation import frechet  # noqa: E402
from magvit import rows  # noqa: E402


def main(address: str, index: str, folder: str) -> None:
  jax.distributed.initialize(address, num_processes=2, process_id=int(index))
  x = 1000 + 0.3 * np.random.default_rng(0).normal(size=(101, 6))
  parts = []

  def make(place):
    parts.append(place)
    return rows.Part(place, {"x": x[place]})

  made = rows.compute(os.path.join(folder, "f"), {"name": "x"}, 101, 10, make)
  total = frechet.streamed(made.rows["x"], rows=16)
  np.savez(
    os.path.join(folder, f"{index}.npz"),
    features=made.rows["x"],
    parts=len(parts),
    mean=total.mean,
    scatter=total.scatter,
  )


if __name__ == "__main__":
  main(*sys.argv[1:])
