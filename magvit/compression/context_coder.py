"""Entropy coding of token grids, bit by bit, by counts of the bits before.

The probability of each bit of an id comes from counts of the bits coded so far,
in the context of the same bit of up to three neighbours: left, above, and at
the same place one latent frame earlier. Counts start empty, so nothing is
trained and nothing but the tokens is stored. Several sets of neighbours are
tried, no neighbour and even odds among them; the shortest stream is kept.

Probabilities need counts and one division in float64, and the range coder works
on integers (`constriction`): files decode on any machine.
"""

from collections.abc import Iterator

import constriction
import numpy as np

# Sets of neighbours by their number in a file; None: even odds for every bit.
CONTEXTS = (
  None,
  (),
  ("before",),
  ("left", "above"),
  ("left", "above", "before"),
)
_STEPS = {"left": (0, 0, 1), "above": (0, 1, 0), "before": (1, 0, 0)}
_ABSENT = 2  # value of a neighbour's bit where there is no neighbour
_FAMILY = constriction.stream.model.Bernoulli(perfect=False)


def encode(ids_thw: np.ndarray, vocabulary: int) -> tuple[int, np.ndarray]:
  """Codes ids in 0..vocabulary - 1 as (number of the context, words uint32)."""
  streams = [_encode(ids_thw, vocabulary, c) for c in CONTEXTS]
  shortest = int(np.argmin([len(words) for words in streams]))
  return shortest, streams[shortest]


def decode(
  number: int, words: np.ndarray, shape: tuple[int, int, int], vocabulary: int
) -> np.ndarray:
  """Inverts `encode`: int32 (t, h, w). Damaged words give arbitrary ids."""
  decoder = constriction.stream.queue.RangeDecoder(words)
  model = _Bits(shape, vocabulary, CONTEXTS[number])
  for wave in model.waves():
    odds_WK = model.odds(wave)
    bits = decoder.decode(_FAMILY, odds_WK.reshape(-1))
    model.add(wave, bits.reshape(odds_WK.shape))
  return model.ids()


def _encode(ids_thw, vocabulary, context):
  bits_thwK = _to_bits(ids_thw, vocabulary)
  model = _Bits(ids_thw.shape, vocabulary, context)
  bits, odds = [], []
  for wave in model.waves():
    bits_WK = bits_thwK[wave]
    bits.append(bits_WK.reshape(-1))
    odds.append(model.odds(wave).reshape(-1))
    model.add(wave, bits_WK)
  encoder = constriction.stream.queue.RangeEncoder()
  encoder.encode(
    np.concatenate(bits).astype(np.int32), _FAMILY, np.concatenate(odds)
  )
  return encoder.get_compressed()


class _Bits:
  """Bits known so far, and counts of their values in each context.

  W are the tokens of a wave, whose neighbours are known at the same time: a
  diagonal of a latent frame. K are the bits of an id, least significant first.
  """

  def __init__(self, shape, vocabulary, context):
    self._shape = shape
    self._context = context
    self._bits = _count_bits(vocabulary)
    # The low side of each axis has one more place, for absent neighbours.
    padded = tuple(size + 1 for size in shape)
    self._known = np.full((*padded, self._bits), _ABSENT, np.int8)
    contexts = 3 ** len(context or ())
    self._counts = np.zeros((2, self._bits, contexts), np.int64)

  def waves(self) -> Iterator[tuple[np.ndarray, ...]]:
    """Yields the indices (t, h, w) of each wave in turn."""
    frames, height, width = self._shape
    for t in range(frames):
      for diagonal in range(height + width - 1):
        h = np.arange(max(0, diagonal - width + 1), min(height, diagonal + 1))
        yield np.full_like(h, t), h, diagonal - h

  def odds(self, wave) -> np.ndarray:
    """Probability (W, K) that a bit is set."""
    if self._context is None:
      return np.full((len(wave[0]), self._bits), 0.5)
    zeros_WK, ones_WK = self._counts[:, *self._place(wave)]
    return (ones_WK + 0.5) / (zeros_WK + ones_WK + 1.0)

  def add(self, wave, bits_WK) -> None:
    self._known[tuple(i + 1 for i in wave)] = bits_WK
    if self._context is not None:
      np.add.at(self._counts, (bits_WK, *self._place(wave)), 1)

  def ids(self) -> np.ndarray:
    weights_K = 2 ** np.arange(self._bits)
    return (self._known[1:, 1:, 1:] @ weights_K).astype(np.int32)

  def _place(self, wave):
    """Places in the counts: (bit, context), each (W, K) or broadcast to it."""
    context_WK = np.zeros((len(wave[0]), self._bits), np.int64)
    for name in self._context:
      at = tuple(i + 1 - d for i, d in zip(wave, _STEPS[name], strict=True))
      context_WK = 3 * context_WK + self._known[at]
    return np.broadcast_to(np.arange(self._bits), context_WK.shape), context_WK


def _count_bits(vocabulary: int) -> int:
  return max(1, (vocabulary - 1).bit_length())


def _to_bits(ids: np.ndarray, vocabulary: int) -> np.ndarray:
  """Splits int32 (...) into bits 0 and 1, int32 (..., K)."""
  return ids[..., None] >> np.arange(_count_bits(vocabulary)) & 1
