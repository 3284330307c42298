"""One of the two processes of frechet_test: ADDRESS INDEX OUTPUT.npz."""

import os
import sys

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.pop("XLA_FLAGS", None)
sys.path.insert(0, os.getcwd())

import jax  # noqa: E402
import numpy as np  # noqa: E402

from evaluation import frechet  # noqa: E402


def main(address: str, index: str, output: str) -> None:
  jax.distributed.initialize(address, num_processes=2, process_id=int(index))
  x = 1000 + 0.3 * np.random.default_rng(0).normal(size=(101, 6))
  own = frechet.statistics(x[int(index) :: 2])
  total = frechet.merge_processes(own, 6)
  # A process without any examples takes part, too.
  alone = frechet.merge_processes(own if index == "1" else None, 6)
  assert alone.count == 50, alone.count
  np.savez(
    output,
    features=x,
    count=total.count,
    mean=total.mean,
    scatter=total.scatter,
  )


if __name__ == "__main__":
  main(*sys.argv[1:])
