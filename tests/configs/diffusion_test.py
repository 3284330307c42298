"""Tests of every row of configs/diffusion.py, described but not allocated."""

import jax
import pytest

from configs import diffusion as configs
from configs import tokenizer_video
from magvit.generators import denoising
from magvit.generators import tasks
from magvit.tokenizer import describe
from models import network

_SHAPES = {  # latents of the paper's tokenizers: strides 4 and 8
  "imagenet256": (1, 32, 32),
  "sr": (5, 32, 32),
}
# Millions of parameters that the paper prints.
_PUBLISHED = {
  "ucf101": 313,
  "ucf101_xl": 460,
  "ucf101_full": 458,
  "kinetics600": 313,
  "imagenet256": 460,
  "text": 416,
  "sr": 1293,
}


def _latents(arg, config):
  """(t, h, w) and channels of a row's latents."""
  if arg not in ("digits", "film64"):
    return _SHAPES.get(arg, (5, 16, 16)), 8
  made_by = tokenizer_video.get_config(arg)
  shape = describe.sizes(made_by).latent(describe.clip_shape(config))
  return shape, made_by.quantizer.bits


@pytest.mark.parametrize("arg", configs.VARIANTS)
def test_a_row_has_the_size_it_says(arg):
  c = configs.get_config(arg)
  shape, channels = _latents(arg, c)
  assert "x".join(map(str, shape)).removeprefix("1x") in _documented(arg)
  for task in tasks.task_names(c):
    tasks.given_latents(task, shape, c.condition_frames, 4)
  net = denoising.define_denoiser(c, shape, channels)
  params = jax.eval_shape(net.init, jax.random.key(0))
  millions = network.count(params) / 1e6
  assert f"{millions:.1f}" in _documented(arg)
  assert round(millions) == _PUBLISHED.get(arg, round(millions))


def test_every_row_of_the_paper_is_there():
  assert _PUBLISHED.keys() <= configs.VARIANTS.keys()


def _documented(arg: str) -> list[str]:
  """The words of a row in the file's table."""
  rows = [line.split() for line in configs.__doc__.splitlines()]
  return next(row for row in rows if row[:1] == [arg])
