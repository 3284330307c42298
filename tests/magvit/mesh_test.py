"""Tests of sharding: eight devices compute what one computes."""

import dataclasses
import types

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
import ml_collections
import numpy as np
import pytest

from configs import autoregressive as autoregressive_configs
from configs import masked as masked_configs
from configs import masked_diffusion as masked_diffusion_configs
from configs import next_frame_flow as next_frame_flow_configs
from configs import tokenizer_video
from input_pipeline import pipeline
from magvit import algorithm as algorithm_lib
from magvit import mesh as mesh_lib
from magvit import optimizer
from magvit import trained as trained_lib
from magvit.generators import autoregressive
from magvit.generators import masked
from magvit.generators import masked_diffusion
from magvit.generators import next_frame_flow
from magvit.tokenizer import describe
from magvit.tokenizer import gan
from tests import tiny

_LAYOUTS = {
  "data 8": (8, 1, 1),
  "data 2 x fsdp 4": (2, 4, 1),
  "data 2 x fsdp 2 x tensor 2": (2, 2, 2),
  "2 slices x data 4": (4, 1, 1, 2),
}


def _layouts(*kept):
  """Those named, and the others for `make test-rows`."""
  for layout in sorted(_LAYOUTS):
    marks = () if layout in kept else pytest.mark.rows
    yield pytest.param(layout, marks=marks)


def _mesh(data, fsdp, tensor=1, slices=-1, devices=None):
  sizes = {"slices": slices, "data": data, "fsdp": fsdp, "tensor": tensor}
  return mesh_lib.make_mesh(ml_collections.ConfigDict(sizes), devices)


def _run(build, config, mesh, steps=5):
  """Trains a few steps: their metrics, and the parameters after them."""
  config.optimizer.peak_learning_rate = (
    1e-4  # on which the tolerance of _assert_same depends
  )
  algorithm = build(config, mesh)
  state = algorithm_lib.create(algorithm, mesh, jax.random.key(0))
  axes = {
    axis
    for leaf in jax.tree.leaves(state.params)
    for entry in leaf.sharding.spec
    for axis in (entry if isinstance(entry, tuple) else (entry,))
  }
  for axis in ("fsdp", "tensor"):  # parameters are split over it
    assert (axis in axes) == (mesh.shape[axis] > 1)
  step_fn = jax.jit(
    algorithm.step,
    donate_argnums=0,
    out_shardings=(
      algorithm_lib.shardings_of(state),
      mesh_lib.replicated(mesh),
    ),
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
  # Sums of float32 in another order differ by 1e-4 of a metric. Adam turns a
  # gradient near 0 into a step of the learning rate (1e-4) of either sign,
  # which the entropy's temperature of 0.01 enlarges in the gradients of later
  # steps. The five learning rates add up to 2.9e-4; two runs may end twice as
  # far apart.
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
    np.testing.assert_allclose(a, b, atol=6e-4)


@pytest.fixture(scope="module")
def one_device_tokenizer():
  mesh = _mesh(1, 1, devices=jax.devices()[:1])
  return _run(gan.TokenizerGan.build, tiny.tokenizer(), mesh)


@pytest.mark.slow
@pytest.mark.parametrize(
  "layout", list(_layouts("2 slices x data 4", "data 2 x fsdp 2 x tensor 2"))
)
def test_tokenizer_step_on_eight_devices(
  one_device_tokenizer, layout, monkeypatch
):
  monkeypatch.setattr(mesh_lib, "_SMALLEST_SHARDED", 64)
  eight = _run(
    gan.TokenizerGan.build, tiny.tokenizer(), _mesh(*_LAYOUTS[layout])
  )
  _assert_same(one_device_tokenizer, eight)


def _muon(tokenizer_workdir: str):
  """Orthogonal matrices of split kernels; here of heads, and of stacks."""
  config = tiny.masked(tokenizer_workdir)
  config.optimizer.name = "muon"
  return config


@pytest.fixture(
  scope="module",
  params=[
    tiny.masked,
    pytest.param(_muon, marks=pytest.mark.rows),
    tiny.masked_diffusion,
    tiny.next_frame_flow,
    tiny.diffusion,
    # tests/magvit/training/loop_test.py trains a recognizer on slices.
    pytest.param(tiny.recognition, marks=pytest.mark.rows),
    pytest.param(tiny.masked_pretraining, marks=pytest.mark.rows),
  ],
  ids=lambda make: make.__name__,
)
def one_device_generator(request, tiny_tokenizer_workdir):
  """What builds an algorithm, its config, and its run on one device."""
  config = request.param(tiny_tokenizer_workdir)
  build = trained_lib.find_algorithm(config).build
  mesh = _mesh(1, 1, devices=jax.devices()[:1])
  return build, config, _run(build, config, mesh)


@pytest.mark.slow
@pytest.mark.parametrize("layout", list(_layouts("data 2 x fsdp 2 x tensor 2")))
def test_generator_step_on_eight_devices(
  one_device_generator, layout, monkeypatch
):
  monkeypatch.setattr(mesh_lib, "_SMALLEST_SHARDED", 64)
  build, config, one = one_device_generator
  _assert_same(one, _run(build, config, _mesh(*_LAYOUTS[layout])))


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


def test_rules_split_the_last_dimensions_and_fsdp_another():
  leaf = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)
  state = {
    "params": {"qkv": leaf(3, 512, 3, 4, 128), "norm": leaf(512)},
    "moments": {"qkv": leaf(3, 512, 3, 4, 128)},
    "table": leaf(1024, 512),
  }
  rules = [["qkv$", ["tensor", None]], ["table|qkv", ["tensor", None]]]
  split = lambda *mesh: jax.tree.map(
    lambda s: s.spec, mesh_lib.state_shardings(state, _mesh(*mesh), rules)
  )
  specs = split(2, 2, 2)
  heads = PartitionSpec(None, "fsdp", None, "tensor")
  assert specs["params"]["qkv"] == specs["moments"]["qkv"] == heads
  assert specs["params"]["norm"] == PartitionSpec()
  assert specs["table"] == PartitionSpec("tensor", "fsdp")
  assert split(4, 1, 2)["table"] == PartitionSpec("tensor")
  assert split(2, 4, 1)["table"] == PartitionSpec("fsdp")


@pytest.mark.parametrize(
  "rule, message",
  [
    (("heads", ("tensor",)), "mesh.tensor=2 must divide dimension 1 of heads"),
    (("heads", ("model", None)), "must be a mesh axis .* of heads"),
    (("heads", (None, None, "tensor")), "last dimensions of heads"),
  ],
)
def test_rules_that_do_not_fit_are_refused(rule, message):
  state = {"heads": jax.ShapeDtypeStruct((4, 3), jnp.float32)}
  with pytest.raises(ValueError, match=message):
    mesh_lib.state_shardings(state, _mesh(2, 2, 2), [rule])


def _latents(num, channels):
  """The facts about latents that a network is made by."""
  shape = (num // 256, 16, 16)
  return types.SimpleNamespace(num=num, shape=shape, channels=channels)


@pytest.mark.parametrize(
  "make",
  [
    lambda: (describe.define_tokenizer, tokenizer_video.get_config("ucf101")),
    lambda: (
      lambda c: masked.define_transformer(c, 1280),
      masked_configs.get_config("ucf101"),
    ),
    lambda: (
      lambda c: autoregressive.define_transformer(c, 1280),
      autoregressive_configs.get_config("ucf101"),
    ),
    lambda: (
      lambda c: masked_diffusion.define_denoiser(c, _latents(256, 16)),
      masked_diffusion_configs.get_config("imagenet256_l"),
    ),
    lambda: (
      lambda c: next_frame_flow.define_denoiser(c, _latents(1280, 18)),
      next_frame_flow_configs.get_config("ucf101"),
    ),
  ],
)
@pytest.mark.parametrize(
  "layout", [pytest.param((1, 8, 1), marks=pytest.mark.rows), (2, 2, 2)]
)
def test_no_large_parameter_of_the_papers_models_is_whole(make, layout):
  define, config = make()
  net = define(config)
  params = jax.eval_shape(net.init, jax.random.key(0))
  shardings = mesh_lib.state_shardings(
    {"params": params}, _mesh(*layout), config.mesh.rules
  )
  for leaf, sharding in zip(
    jax.tree.leaves(params), jax.tree.leaves(shardings), strict=True
  ):
    if leaf.size * leaf.dtype.itemsize > 2**20:
      assert "fsdp" in sharding.spec, leaf.shape
  if layout[2] > 1:
    specs = {axis for s in jax.tree.leaves(shardings) for axis in s.spec}
    assert "tensor" in specs


@pytest.mark.parametrize("layout", [(4, 2, 1), (4, 1, 2), (2, 2, 2)])
@pytest.mark.parametrize("name, moments", [("adam", 2), ("muon", 1)])
def test_moments_of_a_kernel_are_split_like_the_kernel(name, moments, layout):
  config = tiny.tokenizer()
  config.optimizer.name = name
  descent = optimizer.make_optimizer(config.optimizer, config.num_steps)
  params = {
    "kernel": jax.ShapeDtypeStruct((3, 3, 3, 64, 128), jnp.float32),
    "bias": jax.ShapeDtypeStruct((128,), jnp.float32),
  }
  trees = {"params": params, "opt": jax.eval_shape(descent.init, params)}
  rules = [("kernel$", ("tensor", None))]
  mesh = _mesh(*layout)
  kernels = [
    sharding.spec
    for path, sharding in jax.tree_util.tree_leaves_with_path(
      mesh_lib.state_shardings(trees, mesh, rules)
    )
    if getattr(path[-1], "key", "") == "kernel"
  ]
  split = {
    (4, 2, 1): PartitionSpec(None, None, None, None, "fsdp"),
    (4, 1, 2): PartitionSpec(None, None, None, "tensor"),
    (2, 2, 2): PartitionSpec(None, None, None, "tensor", "fsdp"),
  }
  assert kernels == [split[layout]] * (1 + moments)


def test_meshes_that_do_not_use_all_devices_are_refused():
  assert tuple(_mesh(-1, 2).shape.values()) == (1, 4, 2, 1)
  assert tuple(_mesh(-1, 2, 2).shape.values()) == (1, 2, 2, 2)
  for sizes in ((3, 1), (-1, 3), (8, 2), (-1, 0), (-1, 1, 3), (4, 1, 1)):
    message = f"mesh.data={sizes[0]} x mesh.fsdp={sizes[1]} .* 8 devices"
    with pytest.raises(ValueError, match=message):
      _mesh(*sizes)


@pytest.mark.parametrize(
  "batch_size, nearest", [(50, "48 and 56"), (3, "8"), (0, "8")]
)
def test_batches_that_devices_do_not_divide_are_refused(batch_size, nearest):
  with pytest.raises(ValueError, match=f"batch_size={batch_size}.*{nearest}$"):
    mesh_lib.check_batch_size(batch_size, _mesh(8, 1))


def test_devices_that_share_a_layer_share_its_examples():
  mesh_lib.check_batch_size(4, _mesh(2, 2, 2))
  with pytest.raises(ValueError, match="batch_size=2 .* 4 devices .*: 4$"):
    mesh_lib.check_batch_size(2, _mesh(2, 2, 2))
  with pytest.raises(
    ValueError, match="batch_size=32 .* 3 microbatches.* 24 and 48$"
  ):
    mesh_lib.check_batch_size(32, _mesh(8, 1), microbatches=3)


@pytest.mark.parametrize("layout", sorted(_LAYOUTS))
def test_a_batch_lies_on_the_mesh_in_its_order(layout):
  mesh = _mesh(*_LAYOUTS[layout])
  assert mesh_lib.local_parts(mesh) == list(range(mesh_lib.batch_parts(mesh)))
  batch = {"label": np.arange(16), "video": np.arange(48).reshape(16, 3)}
  placed = mesh_lib.place_batch(batch, mesh)
  for name, x in batch.items():
    assert placed[name].sharding == mesh_lib.batch_sharding(mesh)
    np.testing.assert_array_equal(placed[name], x)


@dataclasses.dataclass(frozen=True)
class _Chip:
  """A device of a TPU that is not there."""

  id: int
  slice_index: int
  platform: str = "tpu"


@pytest.mark.parametrize("slices", [-1, 2])
def test_slices_of_tpus_are_the_first_axis(slices):
  chips = [_Chip(i, i % 2) for i in range(8)]
  mesh = _mesh(-1, 2, slices=slices, devices=chips)
  assert mesh.shape == {"slice": 2, "data": 2, "fsdp": 2, "tensor": 1}
  assert [[c.id for c in each.flat] for each in mesh.devices] == [
    [0, 2, 4, 6],
    [1, 3, 5, 7],
  ]
  assert mesh_lib.batch_parts(mesh) == 8
  with pytest.raises(
    ValueError, match="all 4 devices of each of the 2 slices; .* divisor of 4$"
  ):
    _mesh(1, 8, devices=chips)


def test_slices_that_are_not_there_are_refused():
  chips = [_Chip(i, i % 2) for i in range(8)]
  for number in (0, 1, 3):
    match = f"^mesh.slices={number} must be the 2 of the TPUs at hand, or -1"
    with pytest.raises(ValueError, match=match):
      _mesh(-1, 1, slices=number, devices=chips)
  with pytest.raises(ValueError, match="^slices of 4, 3 devices .* one size$"):
    _mesh(-1, 1, devices=chips[:-1])


def test_other_devices_are_split_into_slices_in_order():
  mesh = _mesh(-1, 2, slices=2)
  assert mesh.shape == {"slice": 2, "data": 2, "fsdp": 2, "tensor": 1}
  assert mesh.devices.ravel().tolist() == jax.devices()
  match = "^mesh.slices=3 must divide the 8 devices: take 2, or -1$"
  with pytest.raises(ValueError, match=match):
    _mesh(-1, 1, slices=3)
  with pytest.raises(
    ValueError, match="batch_size=12 .* 8 devices .* 8 and 16"
  ):
    mesh_lib.check_batch_size(12, mesh)


def test_configs_of_before_have_no_slices():
  config = ml_collections.ConfigDict({"data": 4, "fsdp": 2, "tensor": 1})
  assert mesh_lib.make_mesh(config).shape["slice"] == 1
