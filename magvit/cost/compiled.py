"""A program compiled for a mesh of TPUs: memory, products, traffic, times."""

import glob
import os
import re
import tempfile
import time
from typing import Any

import jax
from jax.sharding import Mesh

from magvit.cost import chips
from magvit.cost import flops
from magvit.cost import kernels
from magvit.cost import programs as cost_programs
from magvit.cost import traffic as traffic_lib

_GIB = 2**30


def figures(
  mesh: Mesh,
  chip: chips.Chip,
  model_flops: int,
  program: cost_programs.Program,
) -> dict[str, Any]:
  """Compiles a program; what it costs a device, as the report has it.

  `model_flops` counts the products without those that are rematerialised.
  """
  jaxpr = jax.make_jaxpr(program.function)(*program.arguments).jaxpr
  start = time.monotonic()
  lowered = jax.jit(
    program.function,
    donate_argnums=program.donated,
    out_shardings=program.out_shardings,
  ).lower(*program.arguments)
  with tempfile.TemporaryDirectory() as folder:
    # libtpu writes the program's text, as jaxlib cannot read all of it back.
    dump = {"xla_dump_to": folder, "xla_dump_hlo_as_text": True}
    try:
      compiled = lowered.compile(dump)
    except jax.errors.JaxRuntimeError as error:
      reason = re.search(r"Ran out of memory[^\n]*", str(error))
      if reason is None:
        raise
      return {
        "fits": False,
        "error": reason[0],
        "compile_seconds": time.monotonic() - start,
      }
    (path,) = glob.glob(os.path.join(folder, "*after_codegen.txt"))
    with open(path) as f:
      text = f.read()
  seconds = time.monotonic() - start
  traffic = traffic_lib.traffic(
    text,
    kernels.find(jaxpr, "tpu"),
    chips.links_of(chip, list(mesh.devices.flat)),
  )
  run = flops.count_in(jaxpr, "tpu")
  return {
    "fits": True,
    "hbm_gib": chip.memory_gib,
    "memory_gib": _memory_gib(compiled),
    **_rates(mesh.size, chip, run, model_flops, traffic),
    "compile_seconds": seconds,
  }


def _rates(
  devices: int,
  chip: chips.Chip,
  run: int,
  model_flops: int,
  traffic: traffic_lib.Traffic,
) -> dict[str, Any]:
  """Figures of work and time, from counts over all devices and traffic."""
  times = {
    "compute": run / devices / chip.peak,
    "memory": traffic.bytes / chip.bandwidth,
    "links": traffic.link_seconds,
    "network": traffic.network_bytes / chip.network,
  }
  bound = max(times, key=times.__getitem__)
  times["least"] = times[bound]
  return {
    "flops": run / devices,
    "flops_of_model": model_flops / devices,
    "bytes": traffic.bytes,
    "collective_count": traffic.collective_count,
    "collective_bytes": traffic.collective_bytes,
    "network_bytes": traffic.network_bytes,
    "seconds": times,
    "cycles": traffic.cycles,
    "kernels": {k: vars(v) for k, v in traffic.kernels.items()},
    "mfu": model_flops / devices / chip.peak / times["least"],
    "bound": bound,
  }


def _memory_gib(compiled: jax.stages.Compiled) -> dict[str, float]:
  """Memory of a device by what it is for, and in all."""
  memory = compiled.memory_analysis()
  if memory is None:
    raise ValueError("the compiler of this device tells nothing of memory")
  gib = {
    "arguments": memory.argument_size_in_bytes / _GIB,
    "results": memory.output_size_in_bytes / _GIB,
    "shared by both": -memory.alias_size_in_bytes / _GIB,
    "temporaries": memory.temp_size_in_bytes / _GIB,
    "code": memory.generated_code_size_in_bytes / _GIB,
  }
  return {**gib, "total": sum(gib.values())}
