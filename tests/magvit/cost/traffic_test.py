"""Tests of reading compiled programs, by hand-made and by real ones."""

import jax
from jax import lax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec
import numpy as np

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
  assert traffic.collective_bytes == {"all-reduce": 12 * layer}
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
  traffic = traffic_lib.traffic(compiled.as_text())
  assert traffic.collective_count == {"all-reduce": 5}
  assert traffic.collective_bytes == {"all-reduce": 5 * 32 * 4}
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
  assert (traffic.cycles, traffic.kernels) == (12 * 7, 1)
  assert traffic_lib.traffic(_LOOP).cycles == 0
