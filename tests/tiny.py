"""The smallest experiments that still have every part; for tests."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from configs import base
from configs import latent_base
from configs import recognition_base
from magvit import algorithm as algorithm_lib
from models import network


def get_config(arg: str) -> ml_collections.ConfigDict:
  """Config for --config=tests/tiny.py:ARG; a generator needs its tokenizer."""
  return {
    "tokenizer": tokenizer,
    "image": lambda: tokenizer(temporal=False),
    "masked": lambda: masked(base.REQUIRED),
    "masked_diffusion": lambda: masked_diffusion(base.REQUIRED),
    "next_frame_flow": lambda: next_frame_flow(base.REQUIRED),
    "diffusion": lambda: diffusion(base.REQUIRED),
    "recognition": lambda: recognition(base.REQUIRED),
  }[arg]()


def tokenizer(temporal: bool = True) -> ml_collections.ConfigDict:
  """A tokenizer of clips 5 x 16 x 16 (or images) to 3 x 8 x 8 6-bit tokens."""
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
  c.discriminator.channel_multipliers = (2,)
  c.loss.perceptual_network = "off"
  c.optimizer.warmup_steps = 2
  c.optimizer.peak_learning_rate = 1e-3
  return c


def masked(tokenizer_workdir: str) -> ml_collections.ConfigDict:
  """A masked generator of all tasks on the tokens of `tokenizer()`."""
  c = base.masked()
  c.name = "tiny generator"
  _generator(c, tokenizer_workdir)
  for task in c.tasks:
    c.tasks[task] = 1.0
  c.masks_per_clip = 2
  c.sampling.steps = 3
  return c


def autoregressive(tokenizer_workdir: str) -> ml_collections.ConfigDict:
  """An autoregressive generator of two tasks, on the same tokens."""
  c = base.autoregressive()
  c.name = "tiny autoregressive generator"
  _generator(c, tokenizer_workdir)
  c.tasks.frame_prediction = 1.0
  return c


def latent_generator(
  c: ml_collections.ConfigDict, tokenizer_workdir: str
) -> ml_collections.ConfigDict:
  """Makes a config of `latent_base.latent_generator` tiny; all tasks train."""
  c.name = f"tiny {c.algorithm} generator"
  _small_run(c, tokenizer_workdir)
  for task in c.tasks:
    c.tasks[task] = 1.0
  c.denoiser.num_layers = 2
  c.denoiser.width = 16
  c.denoiser.mlp_width = 32
  c.denoiser.num_heads = 2
  c.denoiser.num_classes = 10
  c.sampling.steps = 3
  return c


def masked_diffusion(tokenizer_workdir: str) -> ml_collections.ConfigDict:
  """A masked generator with a diffusion head, on the same tokens."""
  c = latent_base.masked_diffusion()
  latent_generator(c, tokenizer_workdir)
  c.denoiser.head_blocks = 1
  c.denoiser.head_width = 16
  c.masks_per_clip = 2
  c.draws_per_token = 2
  c.sampling.diffusion_steps = 3
  return c


def next_frame_flow(tokenizer_workdir: str) -> ml_collections.ConfigDict:
  """Next-frame flow of the tasks that it has, on the same tokens."""
  c = latent_base.next_frame_flow()
  latent_generator(c, tokenizer_workdir)
  for task in c.tasks:
    c.tasks[task] = float(task.endswith(("frame_prediction", "conditional")))
  return c


def diffusion(tokenizer_workdir: str) -> ml_collections.ConfigDict:
  """A diffusion of the latents of `tokenizer()`, of all tasks."""
  c = latent_generator(latent_base.diffusion(), tokenizer_workdir)
  c.denoiser.spatial_window = (8, 8)
  c.denoiser.space_time_window = (3, 4, 4)
  return c


def recognition(tokenizer_workdir: str) -> ml_collections.ConfigDict:
  """A recognizer of digits on the same tokens, or on pixels."""
  c = recognition_base.recognition()
  c.name = "tiny recognizer"
  _small_run(c, tokenizer_workdir)
  c.recognizer.patch = (2, 2, 2)
  c.recognizer.spatial_layers = 1
  c.recognizer.temporal_layers = 1
  c.recognizer.width = 16
  c.recognizer.mlp_width = 32
  c.recognizer.num_heads = 2
  c.recognizer.num_classes = 10
  c.pretraining.factor_bits = (3, 3)
  return c


def masked_pretraining(tokenizer_workdir: str) -> ml_collections.ConfigDict:
  """The same network, to predict masked tokens."""
  c = recognition(tokenizer_workdir)
  c.name = "tiny pretraining"
  c.pretraining.targets = "parts"
  return c


def _generator(c: ml_collections.ConfigDict, tokenizer_workdir: str) -> None:
  _small_run(c, tokenizer_workdir)
  c.transformer.num_layers = 2
  c.transformer.width = 16
  c.transformer.mlp_width = 32
  c.transformer.num_heads = 2
  c.transformer.factor_bits = (3, 3)
  c.transformer.num_classes = 10


def _small_run(c: ml_collections.ConfigDict, tokenizer_workdir: str) -> None:
  """A few steps of anything on the clips, or tokens, of `tokenizer()`."""
  c.num_steps = 6
  c.batch_size = 8
  c.log_every = 1
  c.checkpoint_every = 2
  c.dataset.frames = 5
  c.dataset.size = 16
  c.dataset.eval_examples = 10
  c.tokenizer_workdir = tokenizer_workdir
  if "sampling" in c:
    c.condition_frames = 3
    c.sampling.samples_per_class = 1
  c.optimizer.warmup_steps = 2


def trained_like(net: network.Network) -> Any:
  """Draws parameters without the zeros of a new network, which hide mistakes.

  It draws by numpy, because compiling `init` takes as long as many a test.
  """
  return draw(jax.eval_shape(net.init, jax.random.key(0)))


def draw(abstract: Any) -> Any:
  """Draws normal numbers of variance 1 / fan-in, and 0.01 for vectors."""
  rng = np.random.default_rng(0)

  def leaf(x):
    fan_in = math.prod(x.shape[:-1]) if len(x.shape) > 1 else 100
    return jnp.asarray(rng.normal(0.0, fan_in**-0.5, x.shape), x.dtype)

  return jax.tree.map(leaf, abstract)


def drawn_state(algorithm: algorithm_lib.Algorithm) -> algorithm_lib.TrainState:
  """Makes a state like `init`, with parameters from `draw`."""
  state = jax.eval_shape(algorithm.init, jax.random.key(0))
  params = draw(state.params)
  zeros = lambda x: jnp.asarray(np.zeros(x.shape, x.dtype))  # compiles nothing
  state = jax.tree.map(zeros, state)
  ema = {name: params[name] for name in state.ema}
  return state.replace(params=params, ema=ema, frozen=algorithm.frozen)
