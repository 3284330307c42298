"""Clips of any length through a causal tokenizer, in constant memory.

The caller's chunks are cut anew: the first frame, then groups of a fixed number
of latents, so that a few programs serve every clip and no id depends on how the
caller cut it. Each layer's last frames go from group to group
(models/tokenizer/stream_cache.py).
"""

from collections.abc import Iterable
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from models import network
from models.tokenizer.tokenizer import to_float

LATENTS_AT_ONCE = 4  # latents of a group: more take memory, and save no time


class Streaming:
  """The programs of one tokenizer, whose stride in time is `stride` frames."""

  def __init__(self, tokenizer: network.Network, params: Any, stride: int):
    self._params, self._stride = params, stride
    self._encode = jax.jit(
      lambda params, video, before: tokenizer(
        params, to_float(video), before, method="encode_chunk"
      ),
      donate_argnums=2,
    )

    def decode(params, ids, before):
      video, after = tokenizer(params, ids, before, method="decode_chunk")
      return jnp.clip(video, 0.0, 1.0), after

    self._decode = jax.jit(decode, donate_argnums=2)

  def encode(self, chunks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Encodes chunks of video, as `LoadedTokenizer.encode_stream`."""
    frames = _regroup(chunks, self._stride * LATENTS_AT_ONCE, self._stride)
    return self._run(self._encode, frames)

  def decode(self, chunks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Decodes chunks of ids, as `LoadedTokenizer.decode_stream`."""
    return self._run(self._decode, _regroup(chunks, LATENTS_AT_ONCE, 1))

  def _run(self, program, groups) -> Iterator[np.ndarray]:
    past = None
    for group in groups:
      output, past = program(self._params, group, past)
      yield np.asarray(output)


def _regroup(
  chunks: Iterable[np.ndarray], size: int, stride: int
) -> Iterator[np.ndarray]:
  """Cuts the chunks anew along axis 1: one, then `size` each, then the rest.

  Raises:
    ValueError: no chunks, chunks of several shapes, or an end that `stride`
      does not divide.
  """
  waiting, shape, wanted, done = [], None, 1, 0
  for chunk in chunks:
    chunk = np.asarray(chunk)
    rest = (chunk.shape[0], *chunk.shape[2:])
    shape = shape or rest
    if rest != shape:
      raise ValueError(
        f"a chunk of shape {chunk.shape} follows others of (batch, height,"
        f" width, ...) {shape}: all chunks of a clip must agree in these"
      )
    waiting.append(chunk)
    while sum(c.shape[1] for c in waiting) >= wanted:
      joined = np.concatenate(waiting, axis=1)
      yield joined[:, :wanted]
      done += wanted
      waiting, wanted = [joined[:, wanted:]], size
  left = sum(c.shape[1] for c in waiting)
  if not done + left:
    raise ValueError("the clip has no frames: give one or more chunks of it")
  if left % stride:
    total = done + left
    below = total - left % stride
    raise ValueError(
      f"the clip ended after {total} frames, and its length must be 1 + a"
      f" multiple of the temporal stride {stride}: give {below} frames or"
      f" {below + stride}"
    )
  if left:
    yield np.concatenate(waiting, axis=1)
