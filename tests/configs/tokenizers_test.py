"""Tests of every row of configs/tokenizer_*.py: sizes, and a step of each."""

import functools
import json

import jax
import ml_collections
import numpy as np
import pytest

from configs import base
from configs import tokenizer_image
from configs import tokenizer_video
from magvit import mesh as mesh_lib
from magvit.tokenizer import describe
from magvit.tokenizer import gan
from models import network
from tests import tiny

_ROWS = [
  (module, arg)
  for module in (tokenizer_image, tokenizer_video)
  for arg in module.VARIANTS
]
# Millions of parameters of generator and discriminator, from the papers, from
# Google's code, or counted in the authors' published state dicts.
_PUBLISHED = {
  "image imagenet128": (113.1, 23.9),
  "image imagenet256": (116.3, 28.9),
  "image imagenet512": (167.7, 28.9),
  "image v1_b": (13.8, 6.0),
  "image v1_l": (53.1, 23.9),
  "image ablation_adaptive": (113.1, 23.9),
  "image open_magvit2": (115.1, None),
  "video ucf101": (376.0, 61.3),
  "video kinetics600": (376.0, 61.3),
  "video v1_b": (40.6, 15.3),
  "video v1_l": (157.8, 61.3),
  "video v1_h": (308.4, 61.3),
  "video v1_bair_b": (36.6, None),
  "video v1_bair_l": (141.9, None),
  "video joint_magvit": (38.6, None),
  "video joint_cvivit": (89.5, None),  # the paper prints 90
  "video joint_hybrid": (66.8, None),  # the paper prints 67
  "video joint_causal": (57.8, None),
  "video open_magvit2": (370.5, None),
}


def _name(row):
  module, arg = row
  return f"{module.__name__.rsplit('_', 1)[1]} {arg}"


def _millions(net):
  params = jax.eval_shape(net.init, jax.random.key(0))
  return round(network.count(params) / 1e6, 1)


# Many rows share a network.
@functools.cache
def _generator_millions(tokenizer, quantizer):
  sections = {"tokenizer": tokenizer, "quantizer": quantizer}
  c = {name: json.loads(section) for name, section in sections.items()}
  c = ml_collections.ConfigDict(c)
  return _millions(describe.define_tokenizer(c))


@functools.cache
def _discriminator_millions(settings, shape):
  c = ml_collections.ConfigDict({"discriminator": json.loads(settings)})
  return _millions(describe.define_discriminator(c, shape))


def _sized():
  """Rows whose size somebody published, and others for `make test-rows`."""
  for row in _ROWS:
    marks = () if _name(row) in _PUBLISHED else pytest.mark.rows
    yield pytest.param(row, id=_name(row), marks=marks)


@pytest.mark.parametrize("row", list(_sized()))
def test_sizes(row):
  module, arg = row
  c = module.get_config(arg)
  generator = _generator_millions(c.tokenizer.to_json(), c.quantizer.to_json())
  shape = describe.clip_shape(c)
  discriminator = _discriminator_millions(c.discriminator.to_json(), shape)
  published = _PUBLISHED.get(_name(row), (None, None))
  assert published[0] in (generator, None)
  assert published[1] in (discriminator, None)
  documented = next(
    line.split() for line in module.__doc__.splitlines() if f" {arg} " in line
  )
  assert str(generator) in documented


def _shrunk(row):
  """Config of a row, narrow, shallow and with the smallest clip."""
  module, arg = row
  c = module.get_config(arg)
  c.name, c.inflate_from, frames = "", "none", c.dataset.frames
  c.dataset = base.tokenizer().dataset  # a step gets its clip from the test
  c.dataset.frames = frames
  c.num_steps, c.batch_size, c.optimizer.warmup_steps = 10, 1, 1
  c.dataset.size = 2 ** len(c.tokenizer.temporal_downsample)
  if not c.tokenizer.causal:
    c.dataset.frames = 4
  elif c.tokenizer.temporal:
    c.dataset.frames = 5
  c.tokenizer.base_channels = 4
  c.tokenizer.num_res_blocks = 1
  c.tokenizer.norm_groups = 2
  c.tokenizer.transformer.width = 8
  c.tokenizer.transformer.mlp_width = 16
  c.tokenizer.transformer.num_heads = 2
  c.tokenizer.transformer.temporal_layers = 2
  c.tokenizer.transformer.latent_size = (1, 1)
  c.discriminator.base_channels = 4
  c.discriminator.channel_multipliers = (2,)
  c.loss.perceptual_network = "off"
  return c


def _groups():
  """Groups of rows that are the same when shrunk, as test parameters.

  A step takes half a minute to compile, so `make test` runs a few, and `make
  test-rows` all.
  """
  groups = {}
  for row in _ROWS:
    groups.setdefault(_shrunk(row).to_json(), []).append(row)
  for rows in groups.values():
    names = [_name(row) for row in rows]
    marks = () if set(names) & _BY_DEFAULT else pytest.mark.rows
    yield pytest.param(rows[0], id=" = ".join(names), marks=marks)


# The networks that tests/tiny.py has not: of both directions, and transformers.
_BY_DEFAULT = {"video v1_b", "video joint_cvivit"}


@pytest.mark.slow
@pytest.mark.parametrize("row", list(_groups()))
def test_one_step(row):
  c = _shrunk(row)
  mesh = mesh_lib.make_mesh(c.mesh, jax.devices()[:1])
  algorithm = gan.TokenizerGan.build(c, mesh)
  shape = (1, *describe.clip_shape(c), 3)
  video = np.random.default_rng(0).uniform(size=shape).astype(np.float32)
  state, metrics = jax.jit(algorithm.step)(
    tiny.drawn_state(algorithm), {"video": video}, jax.random.key(2)
  )
  assert state.step == 1
  for name, value in metrics.items():
    assert np.isfinite(value).all(), name
  for name in ("generator", "discriminator"):
    assert metrics[f"{name}/gradient_norm"] > 0


def test_an_unknown_row_is_refused():
  for module in (tokenizer_image, tokenizer_video):
    with pytest.raises(ValueError, match="unknown variant 'x': expected"):
      module.get_config("x")


@pytest.mark.parametrize(
  "module, arg, latents",
  [
    (tokenizer_video, "walt_c4", (5, 16, 16, 4)),
    *(
      pytest.param(*row, marks=pytest.mark.rows)
      for row in (
        (tokenizer_video, "walt_ucf101", (5, 16, 16, 8)),
        (tokenizer_video, "walt_c16", (5, 16, 16, 16)),
        (tokenizer_video, "walt_c32", (5, 16, 16, 32)),
        (tokenizer_video, "walt_kinetics600", (5, 16, 16, 8)),
        (tokenizer_image, "walt_imagenet256", (1, 32, 32, 8)),
      )
    ),
    (tokenizer_video, "digits_continuous", (5, 4, 4, 8)),
    (tokenizer_image, "digits_continuous", (1, 4, 4, 8)),
  ],
)
def test_latents_without_a_quantizer(module, arg, latents):
  c = module.get_config(arg)
  net = describe.define_tokenizer(c)
  params = jax.eval_shape(net.init, jax.random.key(0))
  clip = (1, *describe.clip_shape(c), 3)
  video = jax.ShapeDtypeStruct(clip, np.float32)
  output, quantized, _ = jax.eval_shape(net, params, video)
  assert (quantized.z.shape, quantized.ids) == ((1, *latents), None)
  assert output.shape == clip
