"""Report on a config's programs, compiled for TPUs that are not at hand.

libtpu compiles for any topology that it knows, without a TPU. The report says
what a device's memory holds, what the program computes, reads, writes and
sends, and from these how long a step would take at the least.
"""

from collections.abc import Sequence
import logging
from typing import Any

import ml_collections
import numpy as np

from magvit import mesh as mesh_lib
from magvit.cost import chips
from magvit.cost import compiled
from magvit.cost import flops
from magvit.cost import programs as cost_programs
from magvit.cost import remedies
from storage import files

log = logging.getLogger(__name__)

_ASSUMPTIONS = (
  "least seconds: the longest of four that are taken to overlap wholly, matrix"
  " products at the peak of bfloat16, memory traffic at full bandwidth,"
  " collectives at the bandwidth of the links that their group has, and what"
  " goes to other slices at the chip's share of the hosts' network; MFU counts"
  " the products of the model, without those that are rematerialised"
)


def write(
  config: ml_collections.ConfigDict,
  workdir: str,
  topology: str,
  names: Sequence[str] | None = None,
) -> None:
  """Writes WORKDIR/results/compile-TOPOLOGY.json and prints a table.

  Compiles the exact step of training and the program of evaluation (a
  tokenizer's reconstruction, a generator's sampling). `tokenizer_workdir` of a
  generator may name a tokenizer's config (FILE:ARG) instead of a workdir; with
  `dataset.tokens` its step reads stored tokens.

  Args:
    config: the experiment.
    workdir: folder of the results.
    topology: a name as `chips.devices` takes it.
    names: programs to compile; None for all of the config.

  Raises:
    ValueError: no libtpu, an unknown topology or program, or a config that
      cannot work.
  """
  devices = chips.devices(topology)
  mesh = mesh_lib.make_mesh(config.mesh, devices)
  chip = chips.chip_of(topology, devices[0].device_kind)
  mesh_lib.check_batch_size(
    config.batch_size, mesh, microbatches=config.microbatches
  )
  algorithm = cost_programs.describe(config, mesh)
  programs = cost_programs.programs(config, algorithm, mesh)
  chosen = _choose(names, list(programs))
  report = _start(config, topology, mesh, algorithm)
  path = files.inside(
    workdir, "results", f"compile-{topology.replace(':', '-')}.json"
  )
  plain = cost_programs.plain_programs(config, mesh)
  for name in chosen:
    log.info("compiling %s of %s for %s", name, config.name, topology)
    model_flops = flops.count(plain[name].function, *plain[name].arguments)
    figures = compiled.figures(mesh, chip, model_flops, programs[name])
    program = remedies.Program(
      name,
      config,
      dict(mesh.shape),
      chips.slices(devices),
      remedies.state_bytes(programs[name].arguments[0]),
    )
    figures["advice"] = remedies.advise(program, figures, chip)
    report["programs"][name] = figures
    files.write_json(path, report)
    for line in table(name, report):
      log.info("%s", line)
  log.info("wrote %s", path)


def _choose(names: Sequence[str] | None, known: list[str]) -> list[str]:
  """The programs to compile, in the order in which a config has them."""
  unknown = [name for name in names or () if name not in known]
  if unknown:
    raise ValueError(
      f"--programs={','.join(names or ())} names {unknown[0]!r}: this config's"
      f" programs are {', '.join(known)}"
    )
  return [name for name in known if names is None or name in names]


def _start(config, topology: str, mesh, algorithm) -> dict[str, Any]:
  """The report before any program is compiled."""
  return {
    "config": config.name,
    "topology": topology,
    "chip": mesh.devices.flat[0].device_kind,
    "slices": chips.slices(list(mesh.devices.flat)),
    "mesh": dict(mesh.shape),
    "batch_size": config.batch_size,
    "parameters": cost_programs.parameters(algorithm),
    "assumptions": _ASSUMPTIONS,
    "programs": {},
  }


def table(name: str, report: dict[str, Any]) -> list[str]:
  """Lines of text about one program of a report."""
  program = report["programs"][name]
  lines = [f"{name}, each of the {_count(report['mesh'])} {report['chip']}:"]
  if not program["fits"]:
    lines.append(f"  DOES NOT FIT: {program['error']}")
    return [*lines, *(f"  {line}" for line in program["advice"])]
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
  lines += [
    f"  kernel     {name} {k['runs']} times, {k['flops']:.3e} FLOP and"
    f" {k['bytes']:.3e} bytes, which are in the sums above"
    for name, k in sorted(program["kernels"].items())
  ]
  if program["network_bytes"]:
    lines.append(
      f"  network    {program['network_bytes']:.3e} bytes to other slices"
      f" ({seconds['network']:.4f} s)"
    )
  if program["cycles"]:
    chip = chips.CHIPS[report["chip"]]
    without = ", without our own kernels" if program["kernels"] else ""
    lines.append(
      f"  compiler   {program['cycles']:.3e} cycles"
      f" ({program['cycles'] / chip.clock:.4f} s){without}"
    )
  return [
    *lines,
    f"  estimate   {seconds['least']:.4f} s, MFU {program['mfu']:.0%} at most,"
    f" bound by {program['bound']}; compiled in"
    f" {program['compile_seconds']:.0f} s",
    *(f"  {line}" for line in program["advice"]),
  ]


def _count(mesh: dict[str, int]) -> int:
  return int(np.prod(list(mesh.values())))
