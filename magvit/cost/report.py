"""Report on a config's programs, compiled for TPUs that are not at hand.

libtpu compiles for any topology that it knows, without a TPU. The report says
what a device's memory holds, what the program computes, reads, writes and
sends, and from these how long a step would take at the least.
"""

import dataclasses
import glob
import logging
import os
import re
import tempfile
import time
from typing import Any

import jax
from jax.experimental import topologies
from jax.sharding import Mesh
import ml_collections
import numpy as np

from magvit import mesh as mesh_lib
from magvit.cost import flops
from magvit.cost import programs as cost_programs
from magvit.cost import traffic as traffic_lib
from storage import files

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Chip:
  """Limits of a chip (cloud.google.com/tpu/docs)."""

  peak: float  # FLOP/s in bfloat16
  memory_gib: int
  bandwidth: float  # bytes/s from and to the memory
  links: float  # bytes/s from and to other chips, over all links
  clock: float  # cycles/s


CHIPS = {
  "TPU v4": Chip(275e12, 32, 1.2e12, 300e9, 1.05e9),
  "TPU v5 lite": Chip(197e12, 16, 819e9, 200e9, 1.5e9),
  "TPU v5": Chip(459e12, 95, 2.765e12, 600e9, 1.75e9),
  "TPU v6 lite": Chip(918e12, 32, 1.64e12, 448e9, 1.75e9),
}
_GIB = 2**30
_REMEDIES = (
  "split the parameters over more devices (mesh.fsdp), rematerialise instead"
  " of keeping (remat=all), compute in bfloat16, lower batch_size or raise"
  " microbatches, or take a larger topology"
)
_ASSUMPTIONS = (
  "least seconds: the longest of three that are taken to overlap wholly, matrix"
  " products at the peak of bfloat16, memory traffic at full bandwidth and"
  " collectives at the bandwidth of all links; MFU counts the products of the"
  " model, without those that are rematerialised"
)


def write(
  config: ml_collections.ConfigDict, workdir: str, topology: str
) -> None:
  """Writes WORKDIR/results/compile-TOPOLOGY.json and prints a table.

  Compiles the exact step of training and the program of evaluation (a
  tokenizer's reconstruction, a generator's sampling). `tokenizer_workdir` of a
  generator may name a tokenizer's config (FILE:ARG) instead of a workdir; with
  `dataset.tokens` its step reads stored tokens.

  Raises:
    ValueError: no libtpu, an unknown topology, or a config that cannot work.
  """
  mesh = mesh_lib.make_mesh(config.mesh, _devices(topology))
  mesh_lib.check_batch_size(
    config.batch_size, mesh, microbatches=config.microbatches
  )
  algorithm = cost_programs.describe(config, mesh)
  plain = cost_programs.programs(
    config,
    cost_programs.describe(cost_programs.without_remat(config), mesh),
    mesh,
  )
  kind = mesh.devices.flat[0].device_kind
  if kind not in CHIPS:
    raise ValueError(
      f"--topology={topology} has chips {kind!r} of unknown peak: choose one of"
      f" {sorted(CHIPS)}"
    )
  report = {
    "config": config.name,
    "topology": topology,
    "chip": kind,
    "mesh": dict(mesh.shape),
    "batch_size": config.batch_size,
    "parameters": cost_programs.parameters(algorithm),
    "assumptions": _ASSUMPTIONS,
    "programs": {},
  }
  path = files.inside(
    workdir, "results", f"compile-{topology.replace(':', '-')}.json"
  )
  for name, program in cost_programs.programs(config, algorithm, mesh).items():
    log.info("compiling %s of %s for %s", name, config.name, topology)
    model_flops = flops.count(plain[name].function, *plain[name].arguments)
    report["programs"][name] = _report(mesh, CHIPS[kind], model_flops, program)
    files.write_json(path, report)
    for line in table(name, report):
      log.info("%s", line)
  log.info("wrote %s", path)


def table(name: str, report: dict[str, Any]) -> list[str]:
  """Lines of text about one program of a report."""
  program = report["programs"][name]
  lines = [f"{name}, each of the {_count(report['mesh'])} {report['chip']}:"]
  if not program["fits"]:
    return [*lines, f"  DOES NOT FIT: {program['error']}; {_REMEDIES}"]
  memory, seconds = program["memory_gib"], program["seconds"]
  kept = ", ".join(f"{k} {v:.2f}" for k, v in memory.items() if k != "total")
  lines += [
    f"  memory     {memory['total']:.2f} of {program['hbm_gib']} GiB ({kept})",
    f"  products   {program['flops']:.3e} FLOP ({seconds['compute']:.4f} s)",
    f"  traffic    {program['bytes']:.3e} bytes ({seconds['memory']:.4f} s)",
    f"  links      {sum(program['collective_bytes'].values()):.3e} bytes"
    f" ({seconds['links']:.4f} s)",
  ]
  lines += [
    f"    {kind}: {program['collective_count'][kind]} times, {size:.3e} bytes"
    for kind, size in sorted(program["collective_bytes"].items())
  ]
  if program["cycles"]:
    chip = CHIPS[report["chip"]]
    runs = program["kernels"]
    without = f", without {runs} runs of our own kernels" if runs else ""
    lines.append(
      f"  compiler   {program['cycles']:.3e} cycles"
      f" ({program['cycles'] / chip.clock:.4f} s){without}"
    )
  return [
    *lines,
    f"  estimate   {seconds['least']:.4f} s, MFU {program['mfu']:.0%} at most,"
    f" bound by {program['bound']}; compiled in"
    f" {program['compile_seconds']:.0f} s",
  ]


def _devices(topology: str) -> list[Any]:
  # libtpu reads this: there is no machine to ask about its TPUs.
  os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
  # Compiling takes no TPU from others, so that any number may do it at once.
  os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
  jax.config.update("jax_platforms", "cpu")
  # A cached program would hide the time that the report gives.
  jax.config.update("jax_enable_compilation_cache", False)
  try:
    return topologies.get_topology_desc(
      platform="tpu", topology_name=topology
    ).devices
  except Exception as error:  # errors of plugins share no class
    if "lockfile" in str(error):
      raise ValueError(
        f"another process uses libtpu ({error}): set"
        " ALLOW_MULTIPLE_LIBTPU_LOAD=1, which lets several compile at once, or"
        " wait for that process to end"
      ) from error
    raise ValueError(
      f"--topology={topology} cannot be compiled for ({error}): it needs libtpu"
      " (pip install libtpu==0.0.52) and a name that libtpu knows, like"
      " v5e:16x16, v5p:4x4x4 or v6e:16x16"
    ) from error


def _report(
  mesh: Mesh, chip: Chip, model_flops: int, program: cost_programs.Program
) -> dict[str, Any]:
  """The report's entry of one program: memory, products, traffic, times.

  `model_flops` counts the products without those that are rematerialised.
  """
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
      return {"fits": False, "error": reason[0]}
    (path,) = glob.glob(os.path.join(folder, "*after_codegen.txt"))
    with open(path) as f:
      traffic = traffic_lib.traffic(f.read())
  seconds = time.monotonic() - start
  gib = _memory_gib(compiled)
  run = flops.count(program.function, *program.arguments)
  times = {
    "compute": run / mesh.size / chip.peak,
    "memory": traffic.bytes / chip.bandwidth,
    "links": sum(traffic.collective_bytes.values()) / chip.links,
  }
  bound = max(times, key=times.__getitem__)
  times["least"] = times[bound]
  return {
    "fits": True,
    "hbm_gib": chip.memory_gib,
    "memory_gib": gib,
    "flops": run / mesh.size,
    "flops_of_model": model_flops / mesh.size,
    "bytes": traffic.bytes,
    "collective_count": traffic.collective_count,
    "collective_bytes": traffic.collective_bytes,
    "seconds": times,
    "cycles": traffic.cycles,
    "kernels": traffic.kernels,
    "mfu": model_flops / mesh.size / chip.peak / times["least"],
    "bound": bound,
    "compile_seconds": seconds,
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


def _count(mesh: dict[str, int]) -> int:
  return int(np.prod(list(mesh.values())))
