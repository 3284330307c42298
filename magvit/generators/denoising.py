"""W.A.L.T's denoiser by a config, and what it is told of a batch of clips."""

from collections.abc import Sequence
import dataclasses
import math
from typing import Self

from flax import struct
import jax
import jax.numpy as jnp
from jax.sharding import Mesh
import ml_collections

from magvit.generators import latents as latents_lib
from magvit.generators import tasks as tasks_lib
from magvit.generators import tokens as tokens_lib
from models import network
from models.transformers import walt


class Condition(struct.PyTreeNode):
  """What the denoiser is told of a batch of clips beside noisy latents.

  Axis f: one entry for each latent frame of a clip, or 1 for all of them.
  """

  class_Bf: jax.Array  # int32: the class, or "no class"
  given_BthwC: jax.Array  # float32: latents that the task is given, else 0
  mask_Bthw: jax.Array  # bool: where they are given
  kept_Bthw: jax.Array  # bool: where they are the true ones
  stacked_B: jax.Array | None = None  # bool: whether it is a stack of images
  low_BthwC: jax.Array | None = None  # float32: noisy latents of half the size
  low_time_B: jax.Array | None = None  # time of their noise
  text_BfMK: jax.Array | None = None  # float32: embeddings of M words

  def untold(self, no_class: int) -> Self:
    """The same without class and text, and of latents with those kept alone."""
    kept_Bthw, text = self.kept_Bthw, self.text_BfMK
    return self.replace(
      class_Bf=jnp.full_like(self.class_Bf, no_class),
      given_BthwC=jnp.where(kept_Bthw[..., None], self.given_BthwC, 0.0),
      mask_Bthw=self.mask_Bthw & kept_Bthw,
      text_BfMK=None if text is None else jnp.zeros_like(text),
    )

  def with_stacks(self, shape: Sequence[int], no_class: int) -> Self:
    """The condition of clips and, behind them, of stacks of images.

    Args:
      shape: of the stacks' latents, (stacks, t, h, w, C).
      no_class: the class of all images.
    """
    videos, (stacks, frames) = self.class_Bf.shape[0], shape[:2]
    class_Bf = jnp.repeat(self.class_Bf, frames, axis=1)
    unknown = jnp.full((stacks, frames), no_class, class_Bf.dtype)
    none = lambda x: jnp.zeros((stacks, *x.shape[1:]), x.dtype)
    add = lambda x, y: jnp.concatenate([x, y])
    return self.replace(
      class_Bf=add(class_Bf, unknown),
      given_BthwC=add(self.given_BthwC, none(self.given_BthwC)),
      mask_Bthw=add(self.mask_Bthw, none(self.mask_Bthw)),
      kept_Bthw=add(self.kept_Bthw, none(self.kept_Bthw)),
      stacked_B=jnp.arange(videos + stacks) >= videos,
    )


def completes(config: ml_collections.ConfigDict) -> bool:
  """Whether a task of the config is given latents."""
  return any(map(tasks_lib.needs_clip, tasks_lib.task_names(config)))


def on_grid(
  latents: latents_lib.Latents, shape: tuple[int, int, int]
) -> latents_lib.Latents:
  """The same latents of clips of another size, on a grid (t, h, w)."""
  tokens = dataclasses.replace(latents.tokens, latent_shape=shape)
  return dataclasses.replace(latents, tokens=tokens)


def define_denoiser(
  config: ml_collections.ConfigDict,
  latent_shape: tuple[int, int, int],
  channels: int,
  mesh: Mesh | None = None,
) -> network.Network:
  """The denoiser of a config, for latents (t, h, w, C).

  It runs on the devices of a mesh; without one, on one device.

  Raises:
    ValueError: latents that windows or patches do not divide, or a field that
      has not one of its values.
  """
  windows = (config.denoiser.spatial_window, config.denoiser.space_time_window)
  settings, dtype = tokens_lib.transformer_settings(
    config, max(map(math.prod, windows)), mesh, "denoiser"
  )
  size = settings.pop("size")
  # Configs are read from JSON, which has lists.
  settings["spatial_window"], settings["space_time_window"] = map(
    tuple, windows
  )
  design = walt.Design(
    **settings,
    latent_shape=latent_shape,
    channels=channels,
    self_conditioning=config.noise.self_conditioning > 0,
    completes=completes(config),
  )
  return network.define(lambda rngs: walt.Walt(design, size, rngs=rngs), dtype)
