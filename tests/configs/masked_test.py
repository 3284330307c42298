"""Tests of every row of configs/masked.py, described but not allocated."""

import jax
import pytest

from configs import masked as configs
from configs import tokenizer_image
from configs import tokenizer_video
from magvit.generators import masked
from magvit.generators import sampling
from magvit.generators import tasks
from magvit.tokenizer import describe
from models import network

_TOKENIZERS = {
  "digits": (tokenizer_video, "digits"),
  "digits_multitask": (tokenizer_video, "digits"),
  "folder64": (tokenizer_video, "folder64"),
  "folder64_images": (tokenizer_image, "folder64"),
  "folder128": (tokenizer_video, "folder128"),
  "folder256": (tokenizer_video, "folder256"),
  "film64": (tokenizer_video, "film64"),
  "film64_small": (tokenizer_video, "film64_small"),
  "film128": (tokenizer_video, "film128"),
  "ucf101": (tokenizer_video, "ucf101"),
  "ucf101_b": (tokenizer_video, "ucf101"),
  "ucf101_h": (tokenizer_video, "ucf101"),
  "kinetics600": (tokenizer_video, "kinetics600"),
  "imagenet128": (tokenizer_image, "imagenet128"),
  "imagenet256": (tokenizer_image, "imagenet256"),
  "imagenet512": (tokenizer_image, "imagenet512"),
  "v1_ucf101_b": (tokenizer_video, "v1_b"),
  "v1_ucf101_l": (tokenizer_video, "v1_l"),
  "bair": (tokenizer_video, "v1_bair_l"),
  "bair_b": (tokenizer_video, "v1_bair_b"),
  "ssv2": (tokenizer_video, "v1_l"),
}
# Millions of parameters, from the papers or counted from their tables.
_PUBLISHED = {
  "ucf101": 306.9,  # the paper prints 307
  "imagenet256": 306.8,
  "imagenet512": 306.8,
  "v1_ucf101_l": 305.6,  # the paper prints 306
}


@pytest.mark.parametrize("arg", configs.VARIANTS)
def test_a_row_fits_its_tokenizer_and_has_the_size_it_says(arg):
  c = configs.get_config(arg)
  module, name = _TOKENIZERS[arg]
  made_by = module.get_config(name)
  sizes = describe.sizes(made_by)
  latent_shape = sizes.latent(describe.clip_shape(c))
  assert "x".join(map(str, latent_shape)).removeprefix("1x") in (
    _documented(arg)
  )
  assert 2 ** sum(c.transformer.factor_bits) == describe.vocabulary(made_by)
  for task in tasks.task_names(c):
    tasks.given_latents(
      task, latent_shape, c.condition_frames, sizes.time, sizes.causal
    )
  sampling.check_settings(c.sampling)
  tokens = latent_shape[0] * latent_shape[1] * latent_shape[2]
  net = masked.define_transformer(c, tokens)
  params = jax.eval_shape(net.init, jax.random.key(0))
  millions = round(network.count(params) / 1e6, 1)
  assert str(millions) in _documented(arg)
  assert _PUBLISHED.get(arg, millions) == millions


def _documented(arg):
  """Words of a row in the table of the config's header."""
  return next(
    line.split()
    for line in configs.__doc__.splitlines()
    if line.split()[:1] == [arg]
  )


@pytest.mark.parametrize("arg, millions", [("b", 87), ("h", 634)])
def test_the_papers_sizes_b_and_h(arg, millions):
  """The papers print them for v1's vocabulary."""
  c = configs.get_config(f"ucf101_{arg}")
  c.transformer.factor_bits = (10,)
  net = masked.define_transformer(c, 1024)
  params = jax.eval_shape(net.init, jax.random.key(0))
  assert round(network.count(params) / 1e6) == millions


@pytest.mark.parametrize(
  "arg, count",
  [("bair", 8), ("ssv2", 10), ("digits_multitask", 10), ("film64_small", 8)],
)
def test_multi_task_rows_have_the_papers_tasks(arg, count):
  names = tasks.task_names(configs.get_config(arg))
  assert len(names) == count
  assert ("class_conditional" in names) == (count == 10)


def test_kinetics600_keeps_two_latents_of_five_frames():
  c = configs.get_config("kinetics600")
  kept = tasks.kept_latents(
    "frame_prediction", (5, 16, 16), c.condition_frames, 4
  )
  assert kept[:2].all() and not kept[2:].any()
  assert c.sampling.choice_temperature == 32.0 and c.sampling.steps == 12


def test_imagenet_guidance_is_the_papers_scale_25():
  c = configs.get_config("imagenet512")
  assert c.sampling.guidance == sampling.guidance_of_scale(25.0)


def test_an_unknown_row_is_refused():
  with pytest.raises(ValueError, match="unknown variant 'x': expected"):
    configs.get_config("x")
