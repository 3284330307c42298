"""What a tokenizer's step keeps for its backward pass, and what that costs.

  python -m benchmarks.step_memory [--config=FILE:ARG] [--dtype=bfloat16]

Estimates from shapes (magvit/tokenizer/kept.py) what each level keeps of a clip
by each choice of `tokenizer.remat`, counts the products that each step of the
ladder recomputes, and says what "auto" takes on devices of several sizes.
Nothing is compiled; it takes two minutes. The output is two tables of
docs/plan_a_job.md.
"""

import argparse
import dataclasses

import jax
import jax.numpy as jnp

from magvit import mesh as mesh_lib
from magvit.cost import flops
from magvit.cost import programs as cost_programs
from magvit.tokenizer import describe
from magvit.tokenizer import kept
from magvit.workdir import folder as workdir_lib

_GIB = 2**30
_DEVICES = (16, 32, 80, 95)  # GiB
_CLIPS = (1, 2, 4, 8)


def main():
  parser = argparse.ArgumentParser()
  add = parser.add_argument
  add("--config", default="configs/tokenizer_video.py:ucf101", help="FILE:ARG")
  add("--dtype", default="bfloat16", help="type of activations")
  args = parser.parse_args()
  config = workdir_lib.read_config_file(args.config)
  if "tokenizer" not in config:
    parser.error(f"--config={args.config} must be that of a tokenizer")
  config.batch_size = 1
  config.tokenizer.dtype = args.dtype
  mesh = mesh_lib.data_mesh(jax.devices()[:1])
  algorithm = cost_programs.describe(config, mesh)
  memory = algorithm.measure_memory()
  print(
    f"state {memory.state / _GIB:.1f} GiB; a clip beside the levels"
    f" {(memory.other + memory.block) / _GIB:.1f} GiB\n"
  )
  _levels(config, memory)
  print(f"\n| clips | {' | '.join(f'{n} GiB' for n in _DEVICES)} |")
  print("|---" * (len(_DEVICES) + 1) + "|")
  for clips in _CLIPS:
    several = dataclasses.replace(memory, clips=clips)
    chosen = [f"`{kept.choose(several, n * _GIB)}`" for n in _DEVICES]
    print(f"| {clips} | {' | '.join(chosen)} |")


def _levels(config, memory: kept.Memory) -> None:
  """Prints bytes of a clip and products by the steps of the ladder."""
  levels = len(memory.levels)
  heads = " | ".join(f"level {level}, GiB" for level in range(levels))
  print(f"| `tokenizer.remat` | {heads} | products |")
  print("|---" * (levels + 2) + "|")
  least = None
  for choices in kept.ladder(levels):
    products = _products(config, ",".join(choices))
    least = least or products
    sizes = " | ".join(
      f"{level[choice] / _GIB:.2f}"
      for level, choice in zip(memory.levels, choices, strict=True)
    )
    print(
      f"| `{','.join(choices)}` | {sizes} | {products / least - 1:+.1%} |",
      flush=True,
    )


def _products(config, remat: str) -> int:
  """FLOP of the generator's forward and backward pass on a clip."""
  config.tokenizer.remat = remat
  net = describe.define_tokenizer(config)
  params = jax.eval_shape(net.init, jax.random.key(0))
  shape = (1, *describe.clip_shape(config), 3)
  clip = jax.ShapeDtypeStruct(shape, jnp.float32)
  loss = lambda params, x: jnp.square(net(params, x)[0]).sum()
  return flops.count(jax.grad(loss), params, clip)


if __name__ == "__main__":
  main()
