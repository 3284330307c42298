"""Checks of arrays and keys that callers of the Python interface give."""

import numbers
import typing
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from configs import fields
from storage import schema

_ARRAYS = (np.ndarray, jax.Array)


def check_video(name: str, video: Any, is_chunk: bool = False) -> Any:
  """Returns clips (batch, frames, height, width, 3) of pixels, if they are.

  Nested lists are made an array. A chunk of a longer clip may have no frames.

  Raises:
    ValueError: no array, another rank or type, nothing in it, or pixels that
      are not uint8 or floats in [0, 1].
  """
  layout = "(batch, frames, height, width, 3)"
  video = _check_array(name, video, layout, "floats in [0, 1], or uint8")
  if video.ndim != 5 or video.shape[-1] != 3:
    raise ValueError(f"{name} of shape {video.shape} must be {layout}")
  if _is_empty(video.shape, is_chunk):
    raise ValueError(
      f"{name} of shape {video.shape} must be {layout}, none of them 0"
    )
  if video.dtype == jnp.uint8:
    return video
  if not jnp.issubdtype(video.dtype, jnp.floating):
    raise ValueError(
      f"{name} of type {video.dtype} must be floats in [0, 1], or uint8"
    )
  if not video.size:
    return video
  low, high = video.min(), video.max()
  if not (0 <= low and high <= 1):  # comparisons with NaN are false
    raise ValueError(
      f"{name} has values in [{low}, {high}]: give floats in [0, 1], or uint8"
    )
  return video


def check_ids(
  name: str, ids: Any, vocabulary: int, is_chunk: bool = False
) -> Any:
  """Returns ids (batch, time, height, width) of a vocabulary, if they are.

  Nested lists are made an array. A chunk of a longer clip may have no latent.

  Raises:
    ValueError: no array, another rank or type, nothing in it, or ids outside
      the vocabulary.
  """
  layout = "(batch, time, height, width)"
  ids = _check_array(name, ids, layout, f"integers in 0..{vocabulary - 1}")
  if ids.ndim != 4 or not jnp.issubdtype(ids.dtype, jnp.integer):
    raise ValueError(
      f"{name} of shape {ids.shape} and type {ids.dtype} must be integers"
      f" {layout}"
    )
  if _is_empty(ids.shape, is_chunk):
    raise ValueError(
      f"{name} of shape {ids.shape} must be {layout}, none of them 0"
    )
  if ids.size and (ids.min() < 0 or ids.max() >= vocabulary):
    raise ValueError(
      f"{name} in [{ids.min()}, {ids.max()}] must be in 0..{vocabulary - 1}"
    )
  return ids


def check_latents(latents: Any, channels: int, is_chunk: bool = False) -> Any:
  """Returns latents (batch, time, height, width, channels), if they are.

  Nested lists are made an array. A chunk of a longer clip may have no latent.

  Raises:
    ValueError: no array, another rank or type, nothing in it, or numbers that
      are not finite.
  """
  layout = f"(batch, time, height, width, {channels})"
  latents = _check_array("latents", latents, layout, "floats")
  if (
    latents.ndim != 5
    or latents.shape[-1] != channels
    or not jnp.issubdtype(latents.dtype, jnp.floating)
  ):
    raise ValueError(
      f"latents of shape {latents.shape} and type {latents.dtype} must be"
      f" floats {layout}: this tokenizer has no quantizer, and thus no ids"
    )
  if _is_empty(latents.shape[:-1], is_chunk):
    raise ValueError(
      f"latents of shape {latents.shape} must be {layout}, none of them 0"
    )
  if not jnp.isfinite(latents).all():
    raise ValueError("latents have values that are not finite")
  return latents


def check_key(key: Any) -> Any:
  """Returns a key of jax.random; a seed n is the key `jax.random.key(n)`.

  Raises:
    ValueError: no key, or a seed that is no whole number in 0..2**32 - 1.
  """
  if isinstance(key, numbers.Number):
    fields.SEED.check("key", key)
    return jax.random.key(int(typing.cast(int, key)))
  if isinstance(key, _ARRAYS):
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
      if key.shape == ():
        return key
    elif key.shape == (2,) and key.dtype == jnp.uint32:
      return key
  raise ValueError(
    f"key={schema.brief(repr(key))} must be a seed, like 0, or one key, like"
    " jax.random.key(0)"
  )


def _is_empty(shape: tuple[int, ...], is_chunk: bool) -> bool:
  batch, time, *space = shape
  return 0 in (batch, *space) or (time == 0 and not is_chunk)


def _check_array(name: str, array: Any, layout: str, values: str) -> Any:
  if isinstance(array, _ARRAYS):
    return array
  if isinstance(array, list | tuple):
    try:
      return np.asarray(array)
    except (ValueError, TypeError) as error:
      raise ValueError(
        f"{name} is a list of parts of several sizes: they must agree, as in an"
        f" array {layout} of {values}"
      ) from error
  raise ValueError(
    f"{name} is a {type(array).__name__}: give an array {layout} of {values}"
  )
