"""Time and MFU of a config's step of training, and of what an evaluation runs.

  python -m benchmarks.steps [--config=configs/tokenizer_video.py:digits]
    [--tokenizer=configs/tokenizer_video.py:digits] [--batch_size=N]
    [--dtype=bfloat16] [--repeats=5] [--output=FILE]

The exact programs of `--mode=compile`, on the devices that are there, with
drawn weights and pixels: the step (`train`), a tokenizer's `reconstruct`, a
generator's `sample`. `--tokenizer` is whose tokens a generator models. The
floor is the time that one large matrix product in the same type takes for as
many operations on one device, times as many devices: its share is the MFU, of
what the device does and not of what is printed on it. Remat's second
computations count in neither.
"""

import argparse
import json
import os
import pathlib
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from magvit import mesh as mesh_lib
from magvit import trained as trained_lib
from magvit.cost import flops
from magvit.cost import programs as cost_programs
from magvit.workdir import folder as workdir_lib

_GEMM = {"cpu": 1024}  # rows, columns and depth of the floor's matrix product
_GEMM_ELSEWHERE = 8192


def main():
  parser = argparse.ArgumentParser()
  add = parser.add_argument
  add("--config", default="configs/tokenizer_video.py:digits")
  add("--tokenizer", default="configs/tokenizer_video.py:digits")
  add("--batch_size", type=int)
  add("--dtype", choices=("float32", "bfloat16"))
  add("--repeats", type=int, default=5)
  add("--output", type=pathlib.Path, help="also write JSON")
  args = parser.parse_args()
  config = workdir_lib.read_config_file(args.config)
  section = trained_lib.find_algorithm(config).facts.section
  config.batch_size = args.batch_size or config.batch_size
  config[section].dtype = args.dtype or config[section].dtype
  if "tokenizer_workdir" in config:
    config.tokenizer_workdir = args.tokenizer
  mesh = mesh_lib.make_mesh(config.mesh)
  algorithm = cost_programs.describe(config, mesh)
  device = mesh.devices.flat[0]
  per_second = _products_per_second(device, config[section].dtype)
  result = {
    "config": args.config,
    "batch_size": config.batch_size,
    "dtype": config[section].dtype,
    "device": f"{mesh.size} x {device.device_kind}",
    "cores": os.cpu_count(),
    "load": os.getloadavg()[0],
    "products_per_second": per_second,
    "programs": {},
  }
  for name, program in cost_programs.programs(config, algorithm, mesh).items():
    found = _measure(program, args.repeats, donates=name == "train")
    floor = found["flops"] / mesh.size / per_second
    found |= {"floor_seconds": floor, "mfu": floor / found["seconds"]}
    found["clips_per_second"] = config.batch_size / found["seconds"]
    result["programs"][name] = found
    print(
      f"{name}: {found['seconds']:.4f} s, floor {floor:.4f} s, MFU"
      f" {found['mfu']:.0%}; compiled in {found['compile_seconds']:.0f} s"
    )
  if args.output:
    args.output.write_text(json.dumps(result, indent=2) + "\n")


def _products_per_second(device: jax.Device, dtype: str) -> float:
  """FLOP/s of a large matrix product, the best of ten."""
  size = _GEMM.get(device.platform, _GEMM_ELSEWHERE)
  a = jax.device_put(jnp.ones((size, size), dtype), device)
  product = jax.jit(lambda a: a @ a)
  seconds = []
  for _ in range(11):
    start = time.perf_counter()
    jax.block_until_ready(product(a))
    seconds.append(time.perf_counter() - start)
  return 2 * size**3 / min(seconds[1:])


def _measure(program, repeats: int, donates: bool):
  shapes = program.arguments
  operations = flops.count(program.function, *shapes)
  start = time.perf_counter()
  compiled = (
    jax.jit(
      program.function,
      donate_argnums=program.donated,
      out_shardings=program.out_shardings,
    )
    .lower(*shapes)
    .compile()
  )
  compile_seconds = time.perf_counter() - start
  arguments = jax.tree.map(_draw, shapes)
  seconds = []
  for _ in range(repeats + 1):  # the first warms up
    start = time.perf_counter()
    outputs = jax.block_until_ready(compiled(*arguments))
    seconds.append(time.perf_counter() - start)
    if donates:
      arguments = (outputs[0], *arguments[1:])
  return {
    "flops": operations,
    "seconds": statistics.median(seconds[1:]),
    "compile_seconds": compile_seconds,
  }


def _draw(shape: jax.ShapeDtypeStruct) -> jax.Array:
  """Small weights, any pixels, class and task 0."""
  if jnp.issubdtype(shape.dtype, jax.dtypes.prng_key):
    return jax.device_put(jax.random.key(0), shape.sharding)
  rng = np.random.default_rng(0)
  if shape.dtype == np.uint8:
    array = rng.integers(0, 256, shape.shape, np.uint8)
  elif jnp.issubdtype(shape.dtype, jnp.floating):
    array = np.float32(0.02) * rng.standard_normal(shape.shape, np.float32)
    array = np.abs(array)  # Adam's second moments are under a root
  else:
    array = np.zeros(shape.shape)
  return jax.device_put(array.astype(shape.dtype), shape.sharding)


if __name__ == "__main__":
  main()
