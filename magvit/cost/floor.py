"""Products that a tokenizer's step of training cannot do without.

The step updates two networks and needs each of these passes once:

generator       forward, and backward to the weights
fake clips      discriminator forward, backward to the weights and to the clips
real clips      discriminator forward, and backward to the weights
R1              what the gradient of the penalty adds to the passes of real
                clips: their gradient's last product, and a pass forward along
                it; the weights get both gradients in one product
perceptual      both forward passes, and backward to the output
health          the probe's encoding

What is done every so many steps counts as the mean of a step.
"""

from collections.abc import Callable
import operator

import jax
import jax.numpy as jnp
import ml_collections

from magvit import mesh as mesh_lib
from magvit.cost import flops
from magvit.cost import programs as cost_programs
from magvit.tokenizer import describe
from magvit.tokenizer import gan


def measure(
  config: ml_collections.ConfigDict,
) -> tuple[dict[str, float], float]:
  """Counts (FLOP of each part of the floor, FLOP of the step) of a tokenizer.

  Both are means over the steps, over the whole batch, in one part and without
  rematerialisation.
  """
  config = cost_programs.without_remat(config)
  config.microbatches = 1
  mesh = mesh_lib.data_mesh(jax.devices()[:1])
  algorithm = cost_programs.describe(config, mesh)
  assert isinstance(algorithm, gan.TokenizerGan)
  program = cost_programs.programs(config, algorithm, mesh)["train"]
  parts = _parts(config, algorithm, *program.arguments[:2])
  # The sides of a branch are in order: first of a step that does less.
  least, most = (
    flops.count(
      program.function, *program.arguments, branch=operator.itemgetter(side)
    )
    for side in (0, -1)
  )
  probe = parts["health"] * config.health_every
  r1 = (most - least - probe) / config.loss.r1_interval
  return parts, least + r1 + parts["health"]


def _parts(
  config: ml_collections.ConfigDict, algorithm: gan.TokenizerGan, state, batch
) -> dict[str, float]:
  videos = jax.eval_shape(
    lambda batch: {
      name: stream.video_BTHWC
      for name, stream in algorithm.streams(batch).items()
    },
    batch,
  )
  network, params = algorithm.tokenizer, state.params["tokenizer"]
  parts = dict.fromkeys(
    ("generator", "fake clips", "real clips", "R1", "perceptual"), 0.0
  )
  for name, video in videos.items():
    parts["generator"] += _gradient(network, (0,), params, video)
    discriminator, weights = algorithm.discriminators[name], state.params[name]
    forward = flops.count(discriminator, weights, video)
    to_weights = _gradient(discriminator, (0,), weights, video)
    to_both = _gradient(discriminator, (0, 1), weights, video)
    parts["fake clips"] += to_both
    parts["real clips"] += to_weights
    r1 = forward + to_both - to_weights
    parts["R1"] += r1 / config.loss.r1_interval
    if algorithm.distance is not None:
      frames = jax.eval_shape(lambda x: x.reshape(-1, *x.shape[2:]), video)
      parts["perceptual"] += _gradient(
        algorithm.distance, (2,), state.frozen["perceptual"], frames, frames
      )
  clip = jax.ShapeDtypeStruct((1, *describe.clip_shape(config), 3), jnp.float32)
  encode = lambda params, x: network(params, x, method="encode_latents")
  encoding = flops.count(encode, params, clip)
  return {**parts, "health": encoding / config.health_every}


def _gradient(function: Callable, argnums: tuple[int, ...], *arguments) -> int:
  """FLOP of a forward pass, and of the backward pass to these arguments."""

  def total(*arguments):
    leaves = jax.tree.leaves(function(*arguments))
    floats = [x for x in leaves if jnp.issubdtype(x.dtype, jnp.floating)]
    return sum((x.sum() for x in floats), jnp.zeros(()))

  return flops.count(jax.grad(total, argnums), *arguments)
