"""A config's programs, compiled for TPUs that are not there.

libtpu compiles for any topology it knows, without one at hand. The report says
what a device's memory holds, what the program computes, reads, writes and
sends, and from these how long a step would take at the least.
"""

import glob
import json
import logging
import os
import re
import runpy
import tempfile
import time
from typing import Any

import jax
from jax.experimental import topologies
from jax.sharding import Mesh
import ml_collections
import numpy as np

from evaluation import files
from input_pipeline import token_shards
from magvit import autoregressive
from magvit import checkpoint
from magvit import flops
from magvit import hlo
from magvit import masked
from magvit import masking
from magvit import mesh as mesh_lib
from magvit import starts
from magvit import state as state_lib
from magvit import tokenizer
from magvit import tokens as tokens_lib
from models import network
from models import perceptual

log = logging.getLogger(__name__)

# Per chip: peak of bfloat16 in FLOP/s, memory in GiB and in bytes/s, links in
# bytes/s of both directions together (cloud.google.com/tpu/docs, system
# architecture of each).
_CHIPS = {
  "TPU v4": (275e12, 32, 1.2e12, 300e9),
  "TPU v5 lite": (197e12, 16, 819e9, 200e9),
  "TPU v5": (459e12, 95, 2.765e12, 600e9),
  "TPU v6 lite": (918e12, 32, 1.64e12, 448e9),
}
_GIB = 2**30
_REMEDIES = (
  "split the parameters over more devices (mesh.fsdp), compute again instead"
  " of keeping (remat=all), compute in bfloat16, lower batch_size or raise"
  " microbatches, or take a larger topology"
)
_ASSUMPTIONS = (
  "at the least: the longest of matrix products at the peak of bfloat16, memory"
  " traffic at its full bandwidth and collectives at that of all links, as if"
  " the three overlapped wholly; MFU counts the products of the model, without"
  " those computed again"
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
  algorithm = describe(config, mesh)
  plain = programs(config, describe(_without_remat(config), mesh), mesh)
  chip = mesh.devices.flat[0].device_kind
  report = {
    "config": config.name,
    "topology": topology,
    "chip": chip,
    "mesh": dict(mesh.shape),
    "batch_size": config.batch_size,
    "parameters": _parameters(algorithm),
    "assumptions": _ASSUMPTIONS,
    "programs": {},
  }
  path = os.path.join(
    workdir, "results", f"compile-{topology.replace(':', '-')}.json"
  )
  for name, program in programs(config, algorithm, mesh).items():
    log.info("compiling %s of %s for %s", name, config.name, topology)
    function, *_, arguments = plain[name]
    of_model = flops.count(function, *arguments)
    report["programs"][name] = _report(mesh, chip, of_model, *program)
    files.write_atomically(path, json.dumps(report, indent=2) + "\n")
    for line in table(name, report):
      log.info("%s", line)
  log.info("wrote %s", path)


def table(name: str, report: dict[str, Any]) -> list[str]:
  """One program of a report for people."""
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
  return [
    *lines,
    f"  estimate   {seconds['least']:.4f} s, MFU {program['mfu']:.0%} at most,"
    f" bound by {program['bound']}; compiled in"
    f" {program['compile_seconds']:.0f} s",
  ]


def _devices(topology: str) -> list[Any]:
  # Read by libtpu: there is no machine to ask about its TPUs.
  os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
  jax.config.update("jax_platforms", "cpu")
  jax.config.update("jax_enable_compilation_cache", False)  # time is reported
  try:
    return topologies.get_topology_desc(
      platform="tpu", topology_name=topology
    ).devices
  except Exception as error:  # of plugins: no common class
    raise ValueError(
      f"--topology={topology} cannot be compiled for ({error}): it needs libtpu"
      " (pip install libtpu==0.0.52) and a name that libtpu knows, like"
      " v5e:16x16, v5p:4x4x4 or v6e:16x16"
    ) from error


def describe(
  config: ml_collections.ConfigDict, mesh: Mesh
) -> state_lib.Algorithm:
  """The algorithm, with shapes for whatever it would read from disk."""
  if config.algorithm == "tokenizer":
    config = starts.without_sources(config)
    name = config.loss.perceptual_network
    distance = None if name == "off" else perceptual.describe(name)
    return tokenizer.build(config, mesh, distance)
  build = {"masked": masked.build, "autoregressive": autoregressive.build}
  made_by = _tokenizer_config(config.tokenizer_workdir)
  tokens = tokens_lib.describe_tokenizer(config, made_by)
  return build[config.algorithm](config, mesh, tokens)


def _tokenizer_config(workdir: str) -> ml_collections.ConfigDict:
  if workdir.partition(":")[0].endswith(".py"):
    return read_config(workdir)
  return checkpoint.read_config(workdir)


def read_config(name: str) -> ml_collections.ConfigDict:
  """The config FILE:ARG; raises ValueError if there is no such file."""
  file, _, arg = name.partition(":")
  if not os.path.isfile(file):
    raise ValueError(f"{name}: there is no file {file}")
  return runpy.run_path(file)["get_config"](*([arg] if arg else []))


def _without_remat(config) -> ml_collections.ConfigDict:
  config = ml_collections.ConfigDict(config.to_dict())
  section = "tokenizer" if config.algorithm == "tokenizer" else "transformer"
  config[section].remat = "off"
  return config


def _parameters(algorithm: state_lib.Algorithm) -> dict[str, int]:
  state = jax.eval_shape(algorithm.init, jax.random.key(0))
  networks = {**state.params, **algorithm.frozen}
  return {name: network.count(tree) for name, tree in networks.items()}


def programs(
  config: ml_collections.ConfigDict, algorithm: state_lib.Algorithm, mesh: Mesh
) -> dict[str, tuple]:
  """name -> (function, shardings of its results, donated, arguments).

  "train" is the step of training, of a state that it donates; "reconstruct" and
  "sample" are those of an evaluation. Arguments are shapes with shardings.
  """
  placed = lambda tree, shardings: jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
    tree,
    shardings,
  )
  whole = mesh_lib.replicated(mesh)
  shard = lambda tree, rules: placed(
    tree, mesh_lib.state_shardings(tree, mesh, rules)
  )
  key = placed(jax.eval_shape(lambda: jax.random.key(0)), whole)
  state = shard(
    jax.eval_shape(algorithm.init, jax.random.key(0)), algorithm.sharding_rules
  ).replace(frozen=shard(algorithm.frozen, ()))
  array = lambda dtype, *shape: jax.ShapeDtypeStruct(
    (config.batch_size, *shape),
    dtype,
    sharding=mesh_lib.batch_sharding(mesh),
  )
  clip = tokenizer.clip_shape(config)
  video = array(np.uint8, *clip, 3)
  batch = {"video": video, "label": array(np.int32)}
  if config.dataset.tokens:
    made_by = _tokenizer_config(config.tokenizer_workdir)
    ids = array(np.int32, *tokenizer.sizes(made_by).latent(clip))
    batch = {"ids": ids, "label": batch["label"]}
    for task in masking.task_names(config):
      if tokens_lib.needs_condition_tokens(task, made_by.tokenizer.causal):
        batch[token_shards.CONDITION + task] = ids
  if config.dataset.joint_images:
    size = (config.dataset.joint_images, 1, *clip[1:], 3)
    batch["image"] = jax.ShapeDtypeStruct(
      size, np.uint8, sharding=mesh_lib.batch_sharding(mesh)
    )
  found = {
    "train": (
      algorithm.step,
      (state_lib.shardings_of(state), whole),
      0,
      (state, batch, key),
    )
  }
  for name in ("reconstruct", "sample"):
    if name in algorithm.predict:
      task = jax.ShapeDtypeStruct((), np.int32, sharding=whole)
      inputs = {"video": video}
      if name == "sample":
        inputs |= {"label": batch["label"], "task": task}
      arguments = (state.predict_params(), inputs, key)
      found[name] = (algorithm.predict[name], whole, (), arguments)
  return found


def _report(
  mesh, chip, of_model, function, out_shardings, donated, arguments
) -> dict[str, Any]:
  peak, hbm, bandwidth, links = _CHIPS.get(chip, (None,) * 4)
  if peak is None:
    raise ValueError(f"no peak is known of {chip!r}, only of {sorted(_CHIPS)}")
  start = time.monotonic()
  lowered = jax.jit(
    function, donate_argnums=donated, out_shardings=out_shardings
  ).lower(*arguments)
  with tempfile.TemporaryDirectory() as folder:
    # Its own text of the program: jaxlib cannot read back all of libtpu's.
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
      traffic = hlo.traffic(f.read())
  seconds = time.monotonic() - start
  memory = compiled.memory_analysis()
  gib = {
    "arguments": memory.argument_size_in_bytes / _GIB,
    "results": memory.output_size_in_bytes / _GIB,
    "shared by both": -memory.alias_size_in_bytes / _GIB,
    "temporaries": memory.temp_size_in_bytes / _GIB,
    "code": memory.generated_code_size_in_bytes / _GIB,
  }
  gib["total"] = sum(gib.values())
  run = flops.count(function, *arguments)
  times = {
    "compute": run / mesh.size / peak,
    "memory": traffic.bytes / bandwidth,
    "links": sum(traffic.collective_bytes.values()) / links,
  }
  bound = max(times, key=times.get)
  times["least"] = times[bound]
  return {
    "fits": True,
    "hbm_gib": hbm,
    "memory_gib": gib,
    "flops": run / mesh.size,
    "flops_of_model": of_model / mesh.size,
    "bytes": traffic.bytes,
    "collective_count": traffic.collective_count,
    "collective_bytes": traffic.collective_bytes,
    "seconds": times,
    "mfu": of_model / mesh.size / peak / times["least"],
    "bound": bound,
    "compile_seconds": seconds,
  }


def _count(mesh: dict[str, int]) -> int:
  return int(np.prod(list(mesh.values())))
