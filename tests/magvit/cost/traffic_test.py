"""Tests of reading compiled programs, by hand-made and by real ones."""

import jax
from jax import lax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec
import numpy as np
import pytest

from magvit.cost import kernels as kernels_lib
from magvit.cost import links as links_lib
from magvit.cost import traffic as traffic_lib

_LOOP = """
HloModule made_by_hand

%fused (p.0: f32[12,16,128], p.1: s32[]) -> f32[1,16,128] {
  %p.0 = f32[12,16,128]{2,1,0:T(8,128)} parameter(0)
  %p.1 = s32[]{:T(128)} parameter(1)
  ROOT %slice = f32[1,16,128]{2,1,0:T(8,128)} dynamic-slice(%p.0, %p.1)
}

%body (b: (s32[], f32[12,16,128])) -> (s32[], f32[12,16,128]) {
  %b = (s32[]{:T(128)}, f32[12,16,128]{2,1,0:T(8,128)}) parameter(0)
  %i = s32[]{:T(128)S(2)} get-tuple-element(%b), index=0
  %stack = f32[12,16,128]{2,1,0:T(8,128)} get-tuple-element(%b), index=1
  %one = f32[1,16,128]{2,1,0:T(8,128)S(1)} fusion(%stack, %i), calls=%fused
  %sum = f32[1,16,128]{2,1,0:T(8,128)} all-reduce(%one), to_apply=%add
  ROOT %out = (s32[], f32[12,16,128]) tuple(%i, %stack)
}

%test (c: (s32[], f32[12,16,128])) -> pred[] {
  %limit = s32[]{:T(128)} constant(12)
  %c = (s32[]{:T(128)}, f32[12,16,128]{2,1,0:T(8,128)}) parameter(0)
  %j = s32[]{:T(128)} get-tuple-element(%c), index=0
  ROOT %less = pred[]{:T(512)} compare(%j, %limit), direction=LT
}

ENTRY %main (x: f32[12,16,128], y: bf16[3,130]) -> f32[12,16,128] {
  %x = f32[12,16,128]{2,1,0:T(8,128)} parameter(0)
  %y = bf16[3,130]{1,0:T(8,128)(2,1)} parameter(1)
  %z = bf16[3,130]{1,0:T(8,128)(2,1)} negate(%y)
  %zero = s32[]{:T(128)S(2)} constant(0)
  %start = (s32[], f32[12,16,128]) tuple(%zero, %x)
  %loop = (s32[], f32[12,16,128]) while(%start), condition=%test, body=%body
  ROOT %end = f32[12,16,128]{2,1,0:T(8,128)} get-tuple-element(%loop), index=1
}
"""


def test_a_loop_a_slice_and_padding_by_hand():
  traffic = traffic_lib.traffic(_LOOP)
  layer = 16 * 128 * 4
  assert traffic.collective_count == {"all-reduce": 12}
  # Each device sends its part, and then the sum.
  assert traffic.collective_bytes == {"all-reduce": 12 * 2 * layer}
  # Twelve times the slice is read, not the stack, and lands on the chip, and a
  # sum is written. Twelve comparisons read two numbers and write a byte. Once
  # 3 x 130 numbers, padded to 8 x 256, are read and written.
  compared = 12 * (4 + 4 + 1)
  assert traffic.bytes == 12 * 2 * layer + compared + 2 * 8 * 256 * 2


def test_collectives_of_a_compiled_program():
  mesh = jax.make_mesh((8,), ("data",), (jax.sharding.AxisType.Auto,))
  split = NamedSharding(mesh, PartitionSpec("data"))
  whole = NamedSharding(mesh, PartitionSpec())

  def loop(x, w):
    def body(x, w):
      # A sum over the devices in every layer.
      return x * jnp.tanh(x.mean(0) @ w)[None], None

    return lax.scan(body, x, w)[0]

  x = jax.ShapeDtypeStruct((16, 32), jnp.float32, sharding=split)
  w = jax.ShapeDtypeStruct((5, 32, 32), jnp.float32, sharding=whole)
  compiled = jax.jit(loop, out_shardings=split).lower(x, w).compile()
  traffic = traffic_lib.traffic(compiled.as_text() or "")
  assert traffic.collective_count == {"all-reduce": 5}
  sent = 2 * 7 / 8 * 5 * 32 * 4
  assert traffic.collective_bytes == {"all-reduce": sent}
  # The program moves at least the weights and, in each layer, the activations.
  least = w.size * 4 + 5 * 2 * x.size // 8 * 4
  assert least < traffic.bytes < 20 * least
  assert np.isfinite(traffic.bytes)


def test_the_compilers_cycles_count_as_often_as_a_loop_runs():
  marked = _LOOP.replace(
    "calls=%fused", 'calls=%fused, backend_config={"estimated_cycles":"7"}'
  ).replace(
    "%z = bf16[3,130]{1,0:T(8,128)(2,1)} negate(%y)",
    "%z = bf16[3,130]{1,0:T(8,128)(2,1)} custom-call(%y),"
    ' custom_call_target="tpu_custom_call"',
  )
  traffic = traffic_lib.traffic(marked)
  assert traffic.cycles == 12 * 7
  # A kernel that nothing is known of reads and writes its arrays once.
  once = traffic_lib.KernelRuns(1, 0, 2 * 8 * 256 * 2)
  assert traffic.kernels == {"z": once}
  assert traffic_lib.traffic(_LOOP).cycles == 0


# As libtpu writes them for 16 chips as 4 x 4, shortened: a gather whose parts
# lie in two fusions, a sum of which a part is kept, and a kernel.
_SPLIT = (
  """
%start (a: bf16[64,128]) -> bf16[256,128] {
  %a = bf16[64,128]TILED parameter(0)
  ROOT %g.1 = bf16[256,128]TILED all-gather(%a), channel_id=7, ROWS, FIRST
}

%done (b: bf16[64,128]) -> bf16[256,128] {
  %b = bf16[64,128]TILED parameter(0)
  ROOT %g.2 = bf16[256,128]TILED all-gather(%b), channel_id=7, ROWS, FIRST
}

%all-reduce-scatter.clone.1 (c: bf16[256,128]) -> bf16[64,128] {
  %c = bf16[256,128]TILED parameter(0)
  %s = bf16[256,128]TILED all-reduce(%c), channel_id=8, replica_groups=LISTED
  %z = u32[] constant(0)
  ROOT %d = bf16[64,128]TILED dynamic-slice(%s, %z, %z)
}

ENTRY %main (p: bf16[64,128]) -> bf16[64,128] {
  %p = bf16[64,128]TILED parameter(0)
  %f = bf16[256,128]CHIP fusion(%p), calls=%start
  %h = bf16[256,128]CHIP fusion(%p), calls=%done
  %k.4 = bf16[256,128]TILED custom-call(%h, %p), KERNEL, NAMED
  %t = token[] after-all()
  %to = (bf16[256,128]TILED, u32[]{:S(2)}, token[]) send(%k.4, %t), HOST
  ROOT %r = bf16[64,128]CHIP fusion(%k.4), calls=%all-reduce-scatter.clone.1
}
""".replace("TILED", "{1,0:T(8,128)(2,1)}")
  .replace("CHIP", "{1,0:T(8,128)(2,1)S(1)}")
  .replace("ROWS", "replica_groups=mesh['axis_0'=4,'axis_1'=4] {'axis_1'}")
  .replace("FIRST", 'frontend_attributes={chain_id="3"}')
  .replace("HOST", "is_host_transfer=true")
  .replace("LISTED", "{{0,1,2,3},{4,5,6,7}}")
  .replace("KERNEL", 'custom_call_target="tpu_custom_call"')
  .replace("NAMED", 'metadata={op_name="jit(step)/attention/pallas_call"}')
)


def test_what_devices_and_slices_send_by_recorded_text():
  whole = 256 * 128 * 2
  grid = tuple((i % 4, i // 4, 0) for i in range(16))
  traffic = traffic_lib.traffic(_SPLIT, links=links_lib.Links(grid, 4e9))
  assert traffic.collective_count == {"all-gather": 1, "reduce-scatter": 1}
  sent = whole * 3 // 4
  assert traffic.collective_bytes == {
    "all-gather": sent,
    "reduce-scatter": sent,
  }
  # Both groups are rows, which close to rings: two of four links.
  assert traffic.link_seconds == 2 * sent / 2e9
  assert traffic.network_bytes == whole


@pytest.mark.parametrize(
  ("kind", "slices", "sent"),
  [
    # A sum over two sends one array; over four, half as much again.
    ("ALL_REDUCE", "1,2", 1.0),
    ("ALL_REDUCE", "1,2,3,4", 1.5),
    ("ALL_REDUCE", "1:4", 1.5),
    ("ALL_GATHER", "1,2,3,4", 3.0),
    ("REDUCE_SCATTER", "1,2,3,4", 0.75),
    ("ONE_TO_ONE", "1,2,3,4", 1.0),
  ],
)
def test_what_hosts_of_slices_send_for_a_chip(kind, slices, sent):
  attributes = (
    f'frontend_attributes={{_xla_megascale_target="{{{slices}}}x{{0:3}}",'
    f'_xla_megascale_transfer_type="{kind}"}}'
  )
  before = "is_host_transfer=true"
  assert before in _SPLIT
  text = _SPLIT.replace(before, f"{before}, {attributes}")
  whole = traffic_lib.traffic(_SPLIT).network_bytes
  assert traffic_lib.traffic(text).network_bytes == sent * whole


def test_a_kernel_moves_its_blocks_as_often_as_it_reads_them():
  kernels = {
    ("attention", ((256, 128),)): kernels_lib.Kernel(9, (70, 50), (30,))
  }
  before, traffic = (traffic_lib.traffic(_SPLIT, k) for k in ({}, kernels))
  # The first operand lies on the chip, where it was made.
  assert traffic.kernels == {"attention": traffic_lib.KernelRuns(1, 9, 80)}
  assert before.bytes - before.kernels["attention"].bytes == traffic.bytes - 80
