"""Tests of programs compiled for TPUs that are not there; they need libtpu."""

import importlib.util

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec
import numpy as np
import pytest

from magvit import mesh as mesh_lib
from magvit.cost import chips
from magvit.cost import compiled
from magvit.cost import programs
from models.transformers import attend

pytestmark = [
  pytest.mark.slow,
  pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="needs libtpu"
  ),
]
_V5E = chips.CHIPS["TPU v5 lite"]


def _figures(function, out, mesh: Mesh, *arguments):
  program = programs.Program(function, out, (), arguments)
  return compiled.figures(mesh, _V5E, 1, program)


@pytest.mark.parametrize(("slices", "arrays"), [(2, 1.0), (4, 1.5)])
def test_gradients_are_summed_in_each_slice_first(slices, arrays, monkeypatch):
  monkeypatch.delenv("XLA_FLAGS", raising=False)
  mesh = mesh_lib.data_mesh(chips.devices(f"{slices}xv5e:2x4"))
  assert mesh.shape == {"slice": slices, "data": 8, "fsdp": 1, "tensor": 1}
  whole = mesh_lib.replicated(mesh)
  w = jax.ShapeDtypeStruct((512, 1024), jnp.float32, sharding=whole)
  x = jax.ShapeDtypeStruct(
    (8 * mesh.size, 512), jnp.float32, sharding=mesh_lib.batch_sharding(mesh)
  )
  gradient = jax.grad(lambda w, x: ((x @ w) ** 2).mean())
  figures = _figures(gradient, whole, mesh, w, x)
  # Each chip has an eighth of the slice's sum, which a sum over two slices
  # sends once, and over four half as much again.
  assert figures["network_bytes"] == arrays * w.size * 4 / 8
  assert figures["seconds"]["network"] == (
    figures["network_bytes"] / _V5E.network
  )
  in_slice = {"reduce-scatter", "all-gather"}
  assert figures["collective_bytes"].keys() == in_slice
  for size in figures["collective_bytes"].values():
    assert size == w.size * 4 * 7 // 8


def test_a_kernel_is_found_in_what_is_compiled(monkeypatch):
  monkeypatch.delenv("XLA_FLAGS", raising=False)
  devices = np.asarray(chips.devices("v5e:2x4")[:1])
  mesh = mesh_lib.data_mesh(list(devices))
  whole = NamedSharding(mesh, PartitionSpec())
  tokens = jax.ShapeDtypeStruct((2, 640, 4, 64), jnp.bfloat16, sharding=whole)
  form = attend.Form("kernel")
  attention = lambda q: attend.attend(q, q, q, form=form)
  figures = _figures(attention, whole, mesh, tokens)
  kernel = figures["kernels"]["attention"]
  # Three blocks of 256 queries and 640 keys, for two clips and four heads.
  products = 2 * 2 * 8 * 3 * 256 * 640 * 64
  assert kernel["runs"] == 1 and kernel["flops"] == products
  assert figures["flops"] == products
  one = 8 * 640 * 64 * 2
  assert 3 * one < kernel["bytes"] < 6 * one
