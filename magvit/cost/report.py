"""Report on a config's programs, compiled for TPUs that are not at hand.

libtpu compiles for any topology that it knows, without a TPU. The report says
what a device's memory holds, what the program computes, reads, writes and
sends, and from these how long a step would take at the least.
"""

from collections.abc import Sequence
import logging
from typing import Any

from jax.sharding import Mesh
import ml_collections
import numpy as np

from magvit import mesh as mesh_lib
from magvit import trained as trained_lib
from magvit.cost import chips
from magvit.cost import compiled
from magvit.cost import fit as fit_lib
from magvit.cost import programs as cost_programs
from magvit.cost import remedies
from storage import files
from storage.version import VERSION

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
  fit: bool = False,
) -> None:
  """Writes WORKDIR/results/compile-TOPOLOGY.json and prints a table.

  Compiles the exact step of training and the program of evaluation (a
  tokenizer's reconstruction, a generator's sampling).

  Args:
    config: the experiment. A generator's `tokenizer_workdir` may name a
      tokenizer's config (FILE:ARG); with `dataset.tokens` it reads tokens.
    workdir: folder of the results.
    topology: a name as `chips.devices` takes it.
    names: programs to compile; None for all of the config.
    fit: whether to choose mesh, microbatches and remat first, and to report on
      these.

  Raises:
    ValueError: no libtpu, an unknown topology or program, a config that cannot
      work, or with `fit` none that fits.
  """
  devices = chips.devices(topology)
  chip = chips.chip_of(topology, devices[0].device_kind)
  chosen = _choose(names, cost_programs.names(config, devices[:1]), fit)
  fitted: fit_lib.Fitted | None = None
  if fit:
    fitted = fit_lib.run(config, devices, chip)
    config = trained_lib.with_fields(config, fitted.best.changes)
  mesh = mesh_lib.make_mesh(config.mesh, devices)
  mesh_lib.check_batch_size(
    config.batch_size, mesh, microbatches=config.microbatches
  )
  report = _start(config, topology, mesh)
  if fitted is not None:
    report["fit"] = fitted.describe()
    _say(fitted.lines())
  path = files.inside(
    workdir, "results", f"compile-{topology.replace(':', '-')}.json"
  )
  algorithm = cost_programs.describe(config, mesh)
  programs = cost_programs.programs(config, algorithm, mesh)
  for name in chosen:
    if fitted is not None and name == "train":
      figures = fitted.best.figures
    else:
      log.info("compiling %s of %s for %s", name, config.name, topology)
      model_flops = cost_programs.model_flops(config, mesh, name)
      figures = compiled.figures(mesh, chip, model_flops, programs[name])
    figures["advice"] = _advise(name, config, mesh, programs[name], figures)
    report["programs"][name] = figures
    files.write_json(path, report)
    _say(table(name, report))
  log.info("wrote %s", path)


def _advise(name: str, config, mesh: Mesh, program, figures) -> list[str]:
  """What binds the program and what to change, in a sentence or two."""
  about = remedies.Program(
    name,
    config,
    dict(mesh.shape),
    remedies.state_bytes(program.arguments[0]),
  )
  chip = chips.CHIPS[mesh.devices.flat[0].device_kind]
  return remedies.advise(about, figures, chip)


def _say(lines: list[str]) -> None:
  for line in lines:
    log.info("%s", line)


def _choose(
  names: Sequence[str] | None, known: list[str], fit: bool
) -> list[str]:
  """The programs to compile, in the order in which a config has them."""
  given = ",".join(names or ())
  unknown = [name for name in names or () if name not in known]
  if unknown:
    raise ValueError(
      f"--programs={given} names {unknown[0]!r}: this config's programs are"
      f" {', '.join(known)}"
    )
  if fit and names is not None and "train" not in names:
    raise ValueError(
      f"--programs={given} must have train with --fit, which plans a training:"
      " add it, or leave --fit out"
    )
  return [name for name in known if names is None or name in names]


def _start(config, topology: str, mesh: Mesh) -> dict[str, Any]:
  """The report before any program is compiled."""
  return {
    "config": config.name,
    "version": VERSION,
    "topology": topology,
    "chip": mesh.devices.flat[0].device_kind,
    "slices": mesh.shape["slice"],
    "mesh": dict(mesh.shape),
    "batch_size": config.batch_size,
    "parameters": cost_programs.parameters(
      cost_programs.describe(config, mesh)
    ),
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
