"""Cycles of the attention kernels for TPUs, by the compiler's own schedule.

  python -m benchmarks.tpu_attention [--topology=v5e:2x2] [--clips=8]
    [--blocks=128,256,384] [--output=FILE]

libtpu compiles without a TPU and writes the bundles that the chip would run, a
cycle each unless it waits. The table has bundles of one step of the grid times
the number of steps: for one layer of MAGVIT-L, 1,281 tokens, 16 heads of 64,
bfloat16, dropout 0.1. Nothing runs, so waiting for memory is not in it.
"""

import argparse
import glob
import json
import os
import pathlib
import re
import tempfile

import jax
from jax.experimental import topologies
import jax.numpy as jnp
from jax.sharding import SingleDeviceSharding

from models.transformers import kernels
from models.transformers import tpu_attention

_TOKENS, _HEADS, _DEPTH, _RATE = 1281, 16, 64, 0.1
_BUNDLE = re.compile(r"^\s*0x[0-9a-f]+\s*[:>]", re.MULTILINE)


def compile_kernels(device, clips: int) -> None:
  sharding = SingleDeviceSharding(device)
  shape = lambda dtype, *sizes: jax.ShapeDtypeStruct(
    sizes, dtype, sharding=sharding
  )
  tokens = shape(jnp.bfloat16, clips, _TOKENS, _HEADS, _DEPTH)
  inputs = (
    *(tokens, tokens, tokens),
    shape(jnp.int32, clips, _HEADS, 2),
    shape(jnp.int32, 1),
  )
  how = kernels.How(_TOKENS, causal=False, rate=_RATE)

  def both(*inputs_and_gradient):
    *inputs, g = inputs_and_gradient
    y = tpu_attention.forward(*inputs, how)
    return y, tpu_attention.backward(*inputs, g, how)

  jax.jit(both).lower(*inputs, tokens).compile()


def bundles(folder: str) -> dict[str, int]:
  """Bundles of each kernel in the newest dump of libtpu."""
  counts = {}
  for path in sorted(glob.glob(f"{folder}/*-final_bundles.txt")):
    name = re.search(r"-(attention\w*)\.\d+-\d+-final_bundles", path)
    if name:
      text = pathlib.Path(path).read_text(errors="replace")
      counts[name[1]] = len(_BUNDLE.findall(text))
  return counts


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--topology", default="v5e:2x2")
  parser.add_argument("--clips", type=int, default=8)
  parser.add_argument("--blocks", default="128,256,384")
  parser.add_argument("--output", type=pathlib.Path, help="JSON to write")
  arguments = parser.parse_args()
  # libtpu reads both when it is loaded.
  os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
  folder = tempfile.mkdtemp()
  os.environ["LIBTPU_INIT_ARGS"] = (
    f"--xla_jf_dump_to={folder} --xla_jf_dump_llo_text=true"
  )
  jax.config.update("jax_platforms", "cpu")
  jax.config.update("jax_enable_compilation_cache", False)
  device = topologies.get_topology_desc(
    platform="tpu", topology_name=arguments.topology
  ).devices[0]
  report = {"topology": arguments.topology, "clips": arguments.clips}
  for block in map(int, arguments.blocks.split(",")):
    tpu_attention.BLOCK = block
    compile_kernels(device, arguments.clips)
    steps = arguments.clips * _HEADS * -(-_TOKENS // block)
    for name, count in bundles(folder).items():
      print(
        f"blocks of {block}, {name}: {count} bundles x {steps} steps ="
        f" {count * steps / 1e6:.2f} M cycles"
      )
      report[f"{name}_{block}"] = {"bundles": count, "steps": steps}
  if arguments.output:
    arguments.output.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
  main()
