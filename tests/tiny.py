"""The smallest experiments that still have every part; for tests."""

from typing import Any

import jax
import ml_collections

from configs import base
from models import network


def get_config(arg: str) -> ml_collections.ConfigDict:
  """For --config=tests/tiny.py:ARG; the generator's tokenizer is a flag."""
  return {
    "tokenizer": tokenizer,
    "image": lambda: tokenizer(temporal=False),
    "masked": lambda: masked(base.REQUIRED),
  }[arg]()


def tokenizer(temporal: bool = True) -> ml_collections.ConfigDict:
  """Clips 5 x 16 x 16 (or images) to 3 x 8 x 8 tokens of 6 bits."""
  c = base.tokenizer()
  c.name = "tiny tokenizer"
  c.num_steps = 6
  c.batch_size = 8
  c.log_every = 1
  c.checkpoint_every = 2
  c.dataset.frames = 5 if temporal else 1
  c.dataset.size = 16
  c.dataset.eval_examples = 10
  c.tokenizer.base_channels = 4
  c.tokenizer.channel_multipliers = (1, 2)
  c.tokenizer.temporal_downsample = (temporal,)
  c.tokenizer.num_res_blocks = 1
  c.quantizer.bits = 6
  c.tokenizer.norm_groups = 2
  c.tokenizer.temporal = temporal
  c.discriminator.base_channels = 4
  c.discriminator.channel_multipliers = (2, 2)
  c.loss.perceptual_network = "off"
  c.optimizer.warmup_steps = 2
  c.optimizer.peak_learning_rate = 1e-3
  return c


def masked(tokenizer_workdir: str) -> ml_collections.ConfigDict:
  """All tasks on the tokens of `tokenizer()`."""
  c = base.masked()
  c.name = "tiny generator"
  c.num_steps = 6
  c.batch_size = 8
  c.log_every = 1
  c.checkpoint_every = 2
  c.dataset.frames = 5
  c.dataset.size = 16
  c.dataset.eval_examples = 10
  c.tokenizer_workdir = tokenizer_workdir
  c.transformer.num_layers = 2
  c.transformer.width = 16
  c.transformer.mlp_width = 32
  c.transformer.num_heads = 2
  c.transformer.factor_bits = (3, 3)
  c.transformer.num_classes = 10
  c.tasks.frame_prediction = 1.0
  c.tasks.central_inpainting = 1.0
  c.condition_frames = 3
  c.masks_per_clip = 2
  c.sampling.steps = 3
  c.sampling.samples_per_class = 1
  c.optimizer.warmup_steps = 2
  return c


def trained_like(net: network.Network) -> Any:
  """Parameters without the zeros of a fresh network, which hide mistakes."""
  params = jax.jit(net.init)(jax.random.key(0))
  leaves, treedef = jax.tree.flatten(params)
  keys = jax.random.split(jax.random.key(1), len(leaves))
  return treedef.unflatten(
    x + 0.1 * jax.random.normal(k, x.shape)
    for x, k in zip(leaves, keys, strict=True)
  )
