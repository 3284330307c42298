"""What a TPU's compiler makes of the tokenizer's residual blocks.

  python -m benchmarks.tpu_convolution [--topology=v5e:2x2] [--blocks=4]
    [--clips=1] [--size=64] [--channels=256]

Compiles equal blocks on clips of 17 frames in bfloat16, forward and backward,
for a TPU that need not be there, and prints the CPU seconds of compiling, the
compiler's own cycles, memory traffic and temporaries.
"""

import argparse
import glob
import os
import tempfile
import time

from flax import nnx
import jax
import jax.numpy as jnp

from magvit.cost import chips
from magvit.cost import traffic as traffic_lib
from models.tokenizer import layers

_FRAMES = 17


def main():
  parser = argparse.ArgumentParser()
  add = parser.add_argument
  add("--topology", default="v5e:2x2", help="libtpu's name of a slice")
  add("--blocks", type=int, default=4, help="residual blocks in turn")
  add("--clips", type=int, default=1, help="clips on the device")
  add("--size", type=int, default=64, help="height and width")
  add("--channels", type=int, default=256, help="width of the blocks")
  args = parser.parse_args()
  device = chips.devices(args.topology)[0]
  sharding = jax.sharding.SingleDeviceSharding(device)

  def make():
    return layers.ResidualBlock(
      args.channels, args.channels, layers.Convention(), rngs=nnx.Rngs(0)
    )

  graphdef, _ = nnx.split(nnx.eval_shape(make))
  params = jax.eval_shape(lambda: nnx.split(make())[1])
  shape = (args.clips, _FRAMES, args.size, args.size, args.channels)

  def loss(blocks, x_BTHWC):
    for block in blocks:
      x_BTHWC = nnx.merge(graphdef, block)(x_BTHWC)
    return jnp.square(x_BTHWC.astype(jnp.float32)).mean()

  arguments = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
    ([params] * args.blocks, jax.ShapeDtypeStruct(shape, jnp.bfloat16)),
  )
  lowered = jax.jit(jax.value_and_grad(loss, argnums=(0, 1))).lower(*arguments)
  with tempfile.TemporaryDirectory() as folder:
    start = time.process_time()
    dump = {"xla_dump_to": folder, "xla_dump_hlo_as_text": True}
    compiled = lowered.compile(dump)
    seconds = time.process_time() - start
    (path,) = glob.glob(os.path.join(folder, "*after_codegen.txt"))
    with open(path) as f:
      traffic = traffic_lib.traffic(f.read())
  memory = compiled.memory_analysis()
  assert memory is not None  # libtpu tells
  print(
    f"{args.blocks} blocks, {shape}, {args.topology}: compiled in"
    f" {seconds:.0f} CPU s, {traffic.cycles / 1e6:.1f} M cycles,"
    f" {traffic.bytes / 1e9:.2f} GB,"
    f" {memory.temp_size_in_bytes / 2**30:.2f} GiB of temporaries"
  )


if __name__ == "__main__":
  main()
