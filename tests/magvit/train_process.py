"""One of the processes of distributed_test: ADDRESS INDEX FOLDER TOKENIZER."""

import os
import sys

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
  "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0"
)
sys.path.insert(0, os.getcwd())

import jax  # noqa: E402
import numpy as np  # noqa: E402

from magvit import distributed  # noqa: E402
from magvit import masked  # noqa: E402
from magvit import mesh as mesh_lib  # noqa: E402
from magvit import preemption  # noqa: E402
from magvit import tokenizer  # noqa: E402
from tests import tiny  # noqa: E402
from tests.magvit import five_steps  # noqa: E402


def main(address: str, index: str, folder: str, tokenizer_workdir: str) -> None:
  distributed.join(address, 2, int(index))
  mesh = mesh_lib.data_mesh(jax.devices())
  for name, build, config in (
    ("tokenizer", tokenizer.build, tiny.tokenizer()),
    ("masked", masked.build, tiny.masked(tokenizer_workdir)),
  ):
    arrays = five_steps.run(build, config, mesh)
    if index == "0":
      np.savez(os.path.join(folder, f"{name}.npz"), *arrays)
  # Process 1 alone is asked to leave, and both agree on it.
  with preemption.Listener() as listener:
    answers = []
    for step in range(4):
      if step == 1 and index == "1":
        os.kill(os.getpid(), preemption.signal.SIGTERM)
      answers.append(listener.asked())
  np.save(os.path.join(folder, f"asked{index}.npy"), answers)


if __name__ == "__main__":
  main(*sys.argv[1:])
