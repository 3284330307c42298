"""Tests of models/transformers/walt.py, windows.py and modulation.py."""

import dataclasses

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models import network
from models.transformers import attend
from models.transformers import attention
from models.transformers import modulation
from models.transformers import walt
from models.transformers import windows
from tests import tiny

_PAPER = walt.Design(
  latent_shape=(5, 16, 16),
  channels=8,
  patch=1,
  spatial_window=(16, 16),
  space_time_window=(5, 8, 8),
  lora_rank=2,
  num_classes=101,
  text_width=0,
  text_layers="all",
  self_conditioning=True,
  completes=False,
  upscales=False,
)
_TEXT = {"text_width": 2048, "num_classes": 1}
_TINY = dataclasses.replace(
  _PAPER,
  latent_shape=(3, 4, 4),
  channels=2,
  spatial_window=(4, 4),
  space_time_window=(3, 2, 2),
  num_classes=3,
)
_SIZE = attention.TransformerSize(2, 8, 16, 2)


def _define(size=_SIZE, **changes):
  design = dataclasses.replace(_TINY, **changes)
  return network.define(lambda rngs: walt.Walt(design, size, rngs=rngs))


def _inputs(batch=2, frames=3):
  """(noisy latents, times, classes), each image with its own two."""
  rng = np.random.default_rng(0)
  z_BthwC = jnp.asarray(rng.normal(size=(batch, frames, 4, 4, 2)), jnp.float32)
  time_Bf = jnp.asarray(rng.uniform(0, 1000, (batch, frames)), jnp.float32)
  class_Bf = jnp.asarray(rng.integers(0, 4, (batch, frames)))
  return z_BthwC, time_Bf, class_Bf


def _layer(window):
  """A layer with weights, as a function of tokens (B, t, h, w, 8)."""
  design = dataclasses.replace(_TINY, lora_rank=0)
  net = network.define(
    lambda rngs: walt.Layer(design, _SIZE, window, False, rngs)
  )
  params = tiny.trained_like(net)
  condition_BfD = jnp.ones((1, 1, 8))
  return lambda x, stacked_B=None: net(
    params, x, (None, condition_BfD), stacked_B, None
  )


def _reach(function, shape=(3, 4, 4)):
  """Tokens (t, h, w) that token (0, 0, 0) of the output depends on."""
  x_BthwD = jax.random.normal(jax.random.key(0), (1, *shape, 8))
  first = lambda x: (function(x)[0, 0, 0, 0] * jnp.arange(1.0, 9.0)).sum()
  gradient = jax.jit(jax.grad(first))(x_BthwD)[0]
  return np.asarray(gradient != 0).any(-1)


@pytest.mark.parametrize(
  "layers, width, changes, millions",
  [
    (24, 1024, {}, 313.2),
    (24, 1024, {"lora_rank": 4}, 313.6),
    (24, 1024, {"lora_rank": 16}, 315.6),
    (24, 1024, {"lora_rank": 64}, 323.9),
    (24, 1024, {"lora_rank": 256}, 356.9),
    (28, 1152, {}, 460.0),
    (24, 1024, {"lora_rank": 0}, 457.7),
    (
      24,
      1024,
      {
        "lora_rank": 0,
        "num_classes": 1000,
        "latent_shape": (1, 32, 32),
        "spatial_window": (32, 32),
      },
      460.0,
    ),
    (24, 1024, _TEXT, 416.1),
    (24, 1024, {**_TEXT, "text_layers": "spatial"}, 365.6),
    (
      40,
      1408,
      {
        **_TEXT,
        "latent_shape": (5, 32, 56),
        "patch": 2,
        "spatial_window": (16, 28),
        "space_time_window": (5, 8, 7),
        "upscales": True,
      },
      1293.5,
    ),
  ],
)
def test_sizes_are_those_of_the_paper(layers, width, changes, millions):
  """313, 314, 316, 324, 357, 460, 458, 460, 416, 366 and 1,293 million."""
  design = dataclasses.replace(_PAPER, **changes)
  size = attention.TransformerSize(layers, width, 4 * width, 16)
  net = network.define(lambda rngs: walt.Walt(design, size, rngs=rngs))
  count = network.count(jax.eval_shape(net.init, jax.random.key(0)))
  assert round(count / 1e6, 1) == millions


def test_an_image_of_a_stack_is_the_image_alone():
  net = _define(self_conditioning=False)
  params = tiny.trained_like(net)
  z, time, label = _inputs()
  stacked = jnp.ones(2, bool)
  stack = jax.jit(lambda *args: net(params, *args, stacked_B=stacked))
  alone = jax.jit(lambda *args: net(params, *args))
  images = alone(*(x.reshape(6, 1, *x.shape[2:]) for x in (z, time, label)))

  np.testing.assert_array_equal(
    stack(z, time, label).reshape(6, 1, *z.shape[2:]), images
  )
  # Nor does an image change with its neighbours.
  others = z.at[:, 1:].add(1.0)
  np.testing.assert_array_equal(
    stack(others, time, label)[:, :1], stack(z, time, label)[:, :1]
  )


def test_stacks_and_videos_of_one_batch_do_not_mix():
  net = _define(self_conditioning=False)
  params = tiny.trained_like(net)
  z, time, label = _inputs()
  run = jax.jit(lambda stacked: net(params, z, time, label, stacked_B=stacked))
  joint = run(jnp.array([False, True]))

  np.testing.assert_array_equal(joint[0], run(jnp.zeros(2, bool))[0])
  np.testing.assert_array_equal(joint[1], run(jnp.ones(2, bool))[1])
  assert not np.array_equal(joint[1], run(jnp.zeros(2, bool))[1])


@pytest.mark.parametrize("window", [(1, 4, 4), (3, 2, 2), (1, 2, 4)])
def test_a_token_outside_the_window_has_no_gradient(window):
  reached = np.zeros((3, 4, 4), bool)
  reached[: window[0], : window[1], : window[2]] = True

  np.testing.assert_array_equal(_reach(_layer(window)), reached)


def test_in_a_stack_a_token_reaches_itself_alone():
  layer = _layer((3, 2, 2))
  reached = np.zeros((3, 4, 4), bool)
  reached[0, 0, 0] = True

  stacked = jnp.ones(1, bool)
  np.testing.assert_array_equal(_reach(lambda x: layer(x, stacked)), reached)


def test_a_layer_of_each_kind_reaches_all_tokens():
  spatial, space_time = _layer((1, 4, 4)), _layer((3, 2, 2))

  assert _reach(lambda x: space_time(spatial(x))).all()


@pytest.mark.parametrize("rank", [0, 2])
def test_without_gates_the_network_is_its_final_layer(rank):
  net = _define(lora_rank=rank, text_width=4)
  params = tiny.trained_like(net)
  new = jax.jit(net.init)(jax.random.key(0))
  for kind in ("spatial", "space_time"):
    layer, fresh = params["pairs"][kind], new["pairs"][kind]
    layer["modulation"]["up"] = fresh["modulation"]["up"]
    layer["cross"]["out"] = fresh["cross"]["out"]
  if rank:
    params["shared"] = new["shared"]
  z, time, label = _inputs()
  text = jax.random.normal(jax.random.key(2), (2, 1, 5, 4))
  run = jax.jit(
    lambda z: net(params, z, time, label, hint_BthwC=z, text_BfMK=text)
  )
  output = run(z)

  module = nnx.merge(net.graphdef, params)
  x = module.patches(jnp.concatenate([z, z], -1)) + module._positions(3)
  last = module.last_modulation(
    jax.nn.silu(module._condition(time, label, None))
  )
  shift, scale = jnp.split(last[:, :, None, None], 2, -1)
  expected = module.outputs(modulation.modulate(module.norm(x), shift, scale))
  np.testing.assert_allclose(output, expected, atol=1e-5)
  assert not np.allclose(output, 0.0)


def test_a_new_network_predicts_zero():
  net = _define()
  z, time, label = _inputs()
  params = jax.jit(net.init)(jax.random.key(0))

  output = jax.jit(lambda z: net(params, z, time, label, hint_BthwC=z))(z)

  np.testing.assert_array_equal(output, jnp.zeros_like(z))


@pytest.mark.parametrize("layers", walt.TEXT_LAYERS)
def test_text_of_an_image_reaches_that_image_alone(layers):
  net = _define(text_width=4, text_layers=layers, self_conditioning=False)
  params = tiny.trained_like(net)
  z, time, label = _inputs()
  stacked = jnp.ones(2, bool) if layers == "spatial" else None
  frames = 3 if layers == "spatial" else 1
  text = jax.random.normal(jax.random.key(2), (2, frames, 5, 4))
  run = jax.jit(
    lambda text: net(params, z, time, label, stacked_B=stacked, text_BfMK=text)
  )
  changed = np.asarray(run(text) != run(text.at[0, 0].add(1.0))).any((2, 3, 4))

  reached = [True] * 3 if layers == "all" else [True, False, False]
  np.testing.assert_array_equal(changed, [reached, [False] * 3])


def test_what_is_given_is_read():
  """Hints, given latents, their mask, coarse latents and their time."""
  net = _define(completes=True, upscales=True)
  params = tiny.trained_like(net)
  z, time, label = _inputs()
  low = z[:, :, ::2, ::2]
  inputs = {
    "hint_BthwC": z,
    "given_BthwC": z,
    "mask_Bthw": jnp.zeros(z.shape[:-1], bool),
    "low_BthwC": low,
    "low_time_B": jnp.zeros(2),
  }
  run = jax.jit(lambda inputs: net(params, z, time, label, **inputs))
  output = run(inputs)

  assert output.shape == z.shape
  for name, value in inputs.items():
    other = ~value if value.dtype == bool else value + 1.0
    assert not np.allclose(output, run({**inputs, name: other})), name


def test_the_kernel_form_is_that_of_plain_attention_where_it_takes_text():
  """A bias keeps the rest plain."""
  kernel = dataclasses.replace(_SIZE, attention=attend.Form("kernel"))
  nets = [
    _define(size, text_width=4, self_conditioning=False)
    for size in (_SIZE, kernel)
  ]
  params = tiny.trained_like(nets[0])
  inputs = _inputs()
  text = jax.random.normal(jax.random.key(2), (2, 1, 5, 4))
  plain, fused = (
    jax.jit(lambda *inputs, net=net: net(params, *inputs, text_BfMK=text))(
      *inputs
    )
    for net in nets
  )

  np.testing.assert_allclose(plain, fused, atol=1e-5)


def test_windows_are_put_back():
  x = jnp.arange(2 * 3 * 4 * 4 * 5).reshape(2, 3, 4, 4, 5)
  for window in ((1, 4, 4), (3, 2, 2), (3, 4, 1)):
    parts = windows.to_windows(x, window)
    assert parts.shape[1] == np.prod(window)
    np.testing.assert_array_equal(
      windows.from_windows(parts, window, x.shape[:4]), x
    )
  first = windows.to_windows(x, (3, 2, 2))[0]
  np.testing.assert_array_equal(first, x[0, :, :2, :2].reshape(12, 5))


def test_patches_are_put_back():
  x = jnp.arange(2 * 3 * 4 * 4 * 5).reshape(2, 3, 4, 4, 5)
  patches = windows.to_patches(x, 2)

  assert patches.shape == (2, 3, 2, 2, 20)
  np.testing.assert_array_equal(
    patches[1, 2, 0, 1], x[1, 2, :2, 2:].reshape(-1)
  )
  np.testing.assert_array_equal(windows.from_patches(patches, 2), x)


def test_a_bias_belongs_to_where_a_key_is_seen_from_a_query():
  window = (2, 3, 4)
  places = windows.relative_places(window)
  at = lambda *place: np.ravel_multi_index(place, window)

  assert places[at(0, 0, 0), at(1, 2, 1)] == places[at(0, 0, 2), at(1, 2, 3)]
  assert places[at(0, 0, 0), at(1, 2, 1)] != places[at(1, 2, 1), at(0, 0, 0)]
  assert len(np.unique(places)) == places.max() + 1 == 3 * 5 * 7


def test_a_bias_is_added_to_the_scores():
  q, k, v = jax.random.normal(jax.random.key(0), (3, 2, 4, 2, 8))
  bias_ANS = jnp.full((2, 4, 4), -jnp.inf)
  bias_ANS = bias_ANS.at[:, :, 3].set(0.0)  # every query sees key 3 alone

  y = attend.attend(q, k, v, form=attend.Form("kernel"), bias_ANS=bias_ANS)

  np.testing.assert_allclose(y, jnp.broadcast_to(v[:, 3:], y.shape), atol=1e-6)


@pytest.mark.parametrize(
  "changes, message",
  [
    ({"patch": 3}, "denoiser.patch=3 must divide the 4 x 4 latents"),
    (
      {"spatial_window": (3, 4)},
      r"spatial_window=\(3, 4\) must divide .* tokens",
    ),
    ({"space_time_window": (2, 2, 2)}, r"space_time_window=\(2, 2, 2\) must"),
    ({"text_layers": "some"}, "text_layers='some' must be one of"),
  ],
)
def test_a_design_that_cannot_be_is_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    _define(**changes)


@pytest.mark.parametrize(
  "changes, message",
  [
    ({"num_layers": 3}, "denoiser.num_layers=3 must be even"),
    ({"num_heads": 3}, "denoiser.width=8 must be a multiple of .*num_heads=3"),
  ],
)
def test_a_size_that_cannot_be_is_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    _define(dataclasses.replace(_SIZE, **changes))


def test_images_need_no_window_in_time():
  net = _define(latent_shape=(1, 4, 4), self_conditioning=False)
  z, time, label = _inputs(frames=1)

  output = jax.eval_shape(net, tiny.trained_like(net), z, time, label)
  assert output.shape == z.shape
