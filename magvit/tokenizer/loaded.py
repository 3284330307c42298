"""A trained tokenizer for Python: clips to tokens and back."""

from collections.abc import Iterable
from collections.abc import Iterator
import os
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from magvit import mesh as mesh_lib
from magvit.tokenizer import describe
from magvit.tokenizer import streaming
from magvit.workdir import folder as workdir_lib
from models import network


class LoadedTokenizer:
  """Encoder of clips to ids, and decoder. Make one with `load_tokenizer`."""

  def __init__(
    self,
    config: ml_collections.ConfigDict,
    tokenizer: network.Network,
    params: Any,
  ):
    self.config = config
    self._params = {"tokenizer": params}
    functions = describe.predict_functions(tokenizer)
    self._encode = jax.jit(functions["encode"])
    self._decode = jax.jit(functions["decode"])
    self._streaming = streaming.Streaming(
      tokenizer, params, describe.sizes(config).time
    )

  def encode(self, video: np.ndarray | jax.Array) -> jax.Array:
    """Encodes video (B, T, H, W, 3) to ids, int32 (B, t, h, w).

    Pixels are float in [0, 1] or uint8; an image is a clip of one frame.

    Raises:
      ValueError: another rank, range or number of channels, or a size that
        the strides do not divide.
    """
    video = np.asarray(video) if isinstance(video, list) else video
    return self._encode(
      self._params, {"video": self._checked_video(video)}, None
    )

  def encode_stream(self, chunks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Encodes consecutive frames (B, n, H, W, 3), any n, to ids (B, m, h, w).

    The ids are those of the whole clip, however it is cut, and come as soon as
    their frames are there: one latent for the first frame, then one for each
    `stride` frames; memory does not grow with the clip. Pixels are as in
    `encode`.

    Raises:
      ValueError: as in `encode`; at the end, a number of frames that is not 1 +
        a multiple of the stride; a tokenizer that needs whole clips.
    """
    return self._streaming.encode(map(self._checked_video, chunks))

  def decode_stream(self, chunks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Decodes consecutive ids (B, m, h, w), any m, to frames (B, n, H, W, 3).

    Frames are float32 in [0, 1]. As in `encode_stream`, the first latent is one
    frame, and each later one `stride` frames.

    Raises:
      ValueError: as in `decode`; a tokenizer that needs whole clips.
    """
    return self._streaming.decode(map(self._checked_ids, chunks))

  def _checked_video(self, video):
    if video.ndim != 5 or video.shape[-1] != 3:
      raise ValueError(
        f"video of shape {video.shape} must be (batch, frames, height, width,"
        " 3)"
      )
    is_float = video.dtype != jnp.uint8
    if is_float and video.size and (video.min() < 0 or video.max() > 1):
      raise ValueError(
        f"video has values in [{video.min()}, {video.max()}]: give floats in"
        " [0, 1], or uint8"
      )
    return video

  def decode(self, ids: np.ndarray | jax.Array) -> jax.Array:
    """Decodes ids (B, t, h, w) to video, float32 (B, T, H, W, 3) in [0, 1].

    Raises:
      ValueError: another rank, or ids outside the vocabulary.
    """
    return self._decode(self._params, {"ids": self._checked_ids(ids)}, None)

  def _checked_ids(self, ids):
    vocabulary = describe.vocabulary(self.config)
    if ids.ndim != 4 or not jnp.issubdtype(ids.dtype, jnp.integer):
      raise ValueError(
        f"ids of shape {ids.shape} and type {ids.dtype} must be integers"
        " (batch, time, height, width)"
      )
    if ids.size and (ids.min() < 0 or ids.max() >= vocabulary):
      raise ValueError(
        f"ids in [{ids.min()}, {ids.max()}] must be in 0..{vocabulary - 1}"
      )
    return ids


def load_tokenizer(path: str) -> LoadedTokenizer:
  """The tokenizer of a workdir or of an export, a generator's included.

  Raises:
    ValueError: nothing was trained there, or an export that was changed.
  """
  config = workdir_lib.read_config(path)
  if not describe.is_tokenizer(config):
    path = os.path.join(path, "tokenizer")
    config = workdir_lib.read_config(path)
  mesh = mesh_lib.data_mesh(jax.devices()[:1])
  return LoadedTokenizer(config, *describe.restore_tokenizer(path, mesh))
