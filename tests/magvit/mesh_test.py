"""Tests of sharding: eight devices compute what one computes."""

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
import ml_collections
import numpy as np
import pytest

from input_pipeline import pipeline
from magvit import masked
from magvit import mesh as mesh_lib
from magvit import state as state_lib
from magvit import tokenizer
from tests import tiny

_LAYOUTS = {"data 8": (8, 1), "data 2 x fsdp 4": (2, 4)}


def _mesh(data, fsdp, devices=None):
  config = ml_collections.ConfigDict({"data": data, "fsdp": fsdp})
  return mesh_lib.make_mesh(config, devices)


def _run(build, config, mesh, steps=3):
  """Metrics of a few steps, and the parameters after them."""
  algorithm = build(config, mesh)
  state = state_lib.create(algorithm, mesh, jax.random.key(0))
  step_fn = jax.jit(
    algorithm.step,
    donate_argnums=0,
    out_shardings=(state_lib.shardings_of(state), mesh_lib.replicated(mesh)),
  )
  data = pipeline.train_batches(config.dataset, config.batch_size)
  history = []
  for step in range(steps):
    batch = mesh_lib.place_batch(next(data), mesh)
    state, metrics = step_fn(state, batch, jax.random.key(step))
    history.append(jax.device_get(metrics))
  assert step_fn._cache_size() == 1
  return history, jax.device_get(state.params)


def _assert_same(one, eight, check_params=True):
  # float32 sums in another order: 1e-4 of a metric. Adam turns a gradient
  # near 0 into a step of the learning rate (1e-3) of either sign, which the
  # entropy's temperature of 0.01 enlarges in the gradients of later steps.
  for step, (a, b) in enumerate(zip(one[0], eight[0], strict=True)):
    assert a.keys() == b.keys()
    for name in a:
      late_gradient = step > 1 and name.endswith("gradient_norm")
      rtol = 1e-3 if late_gradient else 1e-4
      np.testing.assert_allclose(
        a[name], b[name], rtol=rtol, atol=1e-4, err_msg=name
      )
  for a, b in zip(
    jax.tree.leaves(one[1]), jax.tree.leaves(eight[1]), strict=True
  ):
    np.testing.assert_allclose(a, b, atol=3e-3)


@pytest.fixture(scope="module")
def one_device_tokenizer():
  return _run(tokenizer.build, tiny.tokenizer(), _mesh(1, 1, jax.devices()[:1]))


@pytest.mark.slow
@pytest.mark.parametrize("layout", sorted(_LAYOUTS))
def test_tokenizer_step_on_eight_devices(
  one_device_tokenizer, layout, monkeypatch
):
  monkeypatch.setattr(mesh_lib, "_SMALLEST_SHARDED", 64)
  eight = _run(tokenizer.build, tiny.tokenizer(), _mesh(*_LAYOUTS[layout]))
  _assert_same(one_device_tokenizer, eight)


@pytest.mark.slow
def test_generator_step_on_eight_devices(tiny_tokenizer_workdir, monkeypatch):
  monkeypatch.setattr(mesh_lib, "_SMALLEST_SHARDED", 64)
  config = tiny.masked(tiny_tokenizer_workdir)
  one = _run(masked.build, config, _mesh(1, 1, jax.devices()[:1]))
  for layout in _LAYOUTS.values():
    _assert_same(one, _run(masked.build, config, _mesh(*layout)))


def test_fsdp_splits_the_largest_dimension_of_large_arrays_only():
  state = {
    "large": jax.ShapeDtypeStruct((3, 3, 3, 256, 512), jnp.float32),
    "odd": jax.ShapeDtypeStruct((333, 333), jnp.float32),
    "small": jax.ShapeDtypeStruct((512,), jnp.float32),
    "step": jax.ShapeDtypeStruct((), jnp.int32),
  }
  specs = jax.tree.map(
    lambda s: s.spec, mesh_lib.state_shardings(state, _mesh(2, 4))
  )
  assert specs["large"] == PartitionSpec(None, None, None, None, "fsdp")
  assert specs["odd"] == specs["small"] == specs["step"] == PartitionSpec()


def test_meshes_that_do_not_use_all_devices_are_refused():
  assert _mesh(-1, 2).shape == {"data": 4, "fsdp": 2}
  for data, fsdp in ((3, 1), (-1, 3), (8, 2), (-1, 0)):
    with pytest.raises(ValueError, match="must use all 8 devices"):
      _mesh(data, fsdp)


@pytest.mark.parametrize(
  "batch_size, nearest", [(50, "48 and 56"), (3, "8"), (0, "8")]
)
def test_batches_that_devices_do_not_divide_are_refused(batch_size, nearest):
  with pytest.raises(ValueError, match=f"batch_size={batch_size}.*{nearest}$"):
    mesh_lib.check_batch_size(batch_size, _mesh(8, 1))
