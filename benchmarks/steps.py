"""Time and MFU of a config's programs: training step, evaluation.

  python -m benchmarks.steps [--config=configs/tokenizer_video.py:digits]
    [--tokenizer=configs/tokenizer_video.py:digits] [--batch_size=N]
    [--dtype=bfloat16] [--repeats=5] [--output=FILE]

Runs the exact programs of `--mode=compile` on the devices at hand, with drawn
weights and pixels: the step (`train`), a tokenizer's `reconstruct`, a
generator's `sample`. `--tokenizer` is the config whose tokens a generator
models. The floor is the time of as many operations as one large matrix product
in the same type, on all devices. MFU is the floor over the measured time: a
share of what the device does, not of its data sheet. Operations that remat
repeats count in neither.
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

from benchmarks import timing
from magvit import mesh as mesh_lib
from magvit import trained as trained_lib
from magvit.cost import programs as cost_programs
from magvit.workdir import folder as workdir_lib

# Rows, columns and depth of the floor's matrix product.
_GEMM = {"cpu": 1024}
_GEMM_ELSEWHERE = 8192


def main():
  parser = argparse.ArgumentParser()
  add = parser.add_argument
  digits = "configs/tokenizer_video.py:digits"
  add("--config", default=digits, help="config to measure, FILE:ARG")
  add("--tokenizer", default=digits, help="config of a generator's tokenizer")
  add("--batch_size", type=int, help="clips in a step; default: the config's")
  add("--dtype", choices=("float32", "bfloat16"), help="type of activations")
  add("--repeats", type=int, default=5, help="timed runs")
  add("--output", type=pathlib.Path, help="JSON to write as well")
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
    row = _measure(program, args.repeats, donates=name == "train")
    row["flops"] = cost_programs.model_flops(config, mesh, name)
    floor = row["flops"] / mesh.size / per_second
    row |= {"floor_seconds": floor, "mfu": floor / row["seconds"]}
    row["clips_per_second"] = config.batch_size / row["seconds"]
    result["programs"][name] = row
    print(
      f"{name}: {row['seconds']:.4f} s, floor {floor:.4f} s, MFU"
      f" {row['mfu']:.0%}; compiled in {row['compile_seconds']:.0f} s"
    )
  if args.output:
    args.output.write_text(json.dumps(result, indent=2) + "\n")


def _products_per_second(device: jax.Device, dtype: str) -> float:
  """Measures the FLOP/s of a large matrix product, the best of ten."""
  size = _GEMM.get(device.platform, _GEMM_ELSEWHERE)
  a = jax.device_put(jnp.ones((size, size), dtype), device)
  product = jax.jit(lambda a: a @ a)
  return 2 * size**3 / min(timing.calls(lambda: product(a), 10))


def _measure(program, repeats: int, donates: bool):
  shapes = program.arguments
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
  seconds = timing.program(compiled, arguments, repeats, donates)
  return {
    "seconds": statistics.median(seconds),
    "compile_seconds": compile_seconds,
  }


def _draw(shape: jax.ShapeDtypeStruct) -> jax.Array:
  """Draws small weights or random pixels; class and task are 0."""
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
