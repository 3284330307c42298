"""A trained tokenizer for Python: clips to tokens and back."""

from collections.abc import Iterable
from collections.abc import Iterator
import os
from typing import Any

import jax
import ml_collections
import numpy as np

from magvit import mesh as mesh_lib
from magvit.tokenizer import coded
from magvit.tokenizer import describe
from magvit.tokenizer import given
from magvit.tokenizer import streaming
from magvit.workdir import folder as workdir_lib
from models import network
from storage import paths


class LoadedTokenizer(coded.Coded):
  """Encoder of clips to ids, and decoder. Make one with `load_tokenizer`.

  A tokenizer without a quantizer has no ids. Latents, float32 (B, t, h, w, K),
  take their place in every function: `latent_channels` is K.

  Attributes:
    config: the config that it was trained with.
    path: its workdir or export; None if it was not loaded from one.
    step: training steps behind its weights; None likewise.
    parameters: number of its parameters.
  """

  def __init__(
    self,
    config: ml_collections.ConfigDict,
    tokenizer: network.Network,
    params: Any,
    path: str | None = None,
    step: int | None = None,
  ):
    self.config, self.path, self.step = config, path, step
    self.parameters = network.count(params)
    self._params = {"tokenizer": params}
    functions = describe.predict_functions(tokenizer)
    self._encode = jax.jit(functions["encode"])
    self._decode = jax.jit(functions["decode"])
    self._streaming = streaming.Streaming(
      tokenizer, params, describe.sizes(config).time
    )

  def __repr__(self) -> str:
    facts = (
      describe.title(self.config),
      describe.coding(self.config, self.clip_shape),
      f"{self.parameters:,} parameters",
      *describe.origin(self.step, self.path),
    )
    return f"<LoadedTokenizer {describe.in_lines(facts)}>"

  def encode(self, video: np.ndarray | jax.Array | list) -> jax.Array:
    """Encodes video (B, T, H, W, 3) to ids, int32 (B, t, h, w).

    Pixels are float in [0, 1] or uint8; an image is a clip of one frame. Nested
    lists are read as arrays.

    Raises:
      ValueError: no array, another rank, type, range or number of channels, a
        pixel that is not finite, or a size that is 0 or that the strides do not
        divide.
    """
    return self._encode(
      self._params, {"video": given.check_video("video", video)}, None
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
    return self._streaming.encode(map(self._checked_chunk, chunks))

  def decode_stream(self, chunks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Decodes consecutive ids (B, m, h, w), any m, to frames (B, n, H, W, 3).

    Frames are float32 in [0, 1]. As in `encode_stream`, the first latent is one
    frame, and each later one `stride` frames.

    Raises:
      ValueError: as in `decode`; a tokenizer that needs whole clips.
    """
    return self._streaming.decode(
      self._checked_coded(chunk, is_chunk=True) for chunk in chunks
    )

  def _checked_chunk(self, video):
    return given.check_video("video", video, is_chunk=True)

  def decode(self, ids: np.ndarray | jax.Array | list) -> jax.Array:
    """Decodes ids (B, t, h, w) to video, float32 (B, T, H, W, 3) in [0, 1].

    Nested lists are read as arrays.

    Raises:
      ValueError: no array, another rank or type, a size of 0, a grid that the
        tokenizer does not have, or ids outside the vocabulary.
    """
    batch = {describe.coded_name(self.config): self._checked_coded(ids)}
    return self._decode(self._params, batch, None)

  def _checked_coded(self, coded, is_chunk=False):
    if not describe.has_ids(self.config):
      return given.check_latents(coded, self.latent_channels, is_chunk)
    return given.check_ids("ids", coded, self.vocabulary, is_chunk)


def load_tokenizer(path: str | os.PathLike) -> LoadedTokenizer:
  """The tokenizer of a workdir or of an export, a generator's included.

  `path` may begin with ~ and have $VARIABLES.

  Raises:
    ValueError: nothing was trained there, or an export that was changed.
  """
  path = paths.expand(path, urls=True)
  config = workdir_lib.read_config(path)
  if not describe.is_tokenizer(config):
    path = os.path.join(path, "tokenizer")
    config = workdir_lib.read_config(path)
  mesh = mesh_lib.data_mesh(jax.devices()[:1])
  step, tokenizer, params = describe.restore_newest_tokenizer(path, mesh)
  return LoadedTokenizer(config, tokenizer, params, path, step)
