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

from magvit.compression import information

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
  """Inverts `encode`: int32 (t, h, w). Damaged words give arbitrary ids.

  Raises:
    ValueError: words that cannot hold that many ids; few are decoded then.
  """
  decoder = constriction.stream.queue.RangeDecoder(words)
  budget = information.Budget(len(words))
  model = _Bits(shape, vocabulary, CONTEXTS[number])
  for wave in model.waves():
    odds_WK = model.odds(wave)
    bits = decoder.decode(_FAMILY, odds_WK.reshape(-1))
    bits_WK = bits.reshape(odds_WK.shape)
    budget.spend(np.where(bits_WK, odds_WK, 1.0 - odds_WK))
    model.add(wave, bits_WK)
  return model.ids()


def count_bits(vocabulary: int) -> int:
  """K, the number of bits that an id is coded in."""
  return max(1, (vocabulary - 1).bit_length())


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
  Only two latent frames are kept as bits, so that memory grows with the ids.
  """

  def __init__(self, shape, vocabulary, context):
    self._shape = shape
    self._context = context
    self._bits = count_bits(vocabulary)
    # The low side of each axis has one more place, for absent neighbours.
    _, height, width = shape
    absent = np.full((height + 1, width + 1, self._bits), _ABSENT, np.int8)
    self._known = (absent, absent)  # the latent frame before, and this one
    self._ids = []  # int32 (h, w) of the latent frames that are whole
    contexts = 3 ** len(context or ())
    self._counts = np.zeros((2, self._bits, contexts), np.int64)

  def waves(self) -> Iterator[tuple[np.ndarray, ...]]:
    """Yields the indices (t, h, w) of each wave in turn."""
    frames, height, width = self._shape
    weights_K = 2 ** np.arange(self._bits)
    for t in range(frames):
      self._known = (self._known[1], np.full_like(self._known[1], _ABSENT))
      for diagonal in range(height + width - 1):
        h = np.arange(max(0, diagonal - width + 1), min(height, diagonal + 1))
        yield np.full_like(h, t), h, diagonal - h
      ids_hw = self._known[1][1:, 1:] @ weights_K
      self._ids.append(ids_hw.astype(np.int32))

  def odds(self, wave) -> np.ndarray:
    """Probability (W, K) that a bit is set."""
    if self._context is None:
      return np.full((len(wave[0]), self._bits), 0.5)
    zeros_WK, ones_WK = self._counts[:, *self._place(wave)]
    return (ones_WK + 0.5) / (zeros_WK + ones_WK + 1.0)

  def add(self, wave, bits_WK) -> None:
    _, h, w = wave
    self._known[1][h + 1, w + 1] = bits_WK
    if self._context is not None:
      np.add.at(self._counts, (bits_WK, *self._place(wave)), 1)

  def ids(self) -> np.ndarray:
    return np.stack(self._ids)

  def _place(self, wave):
    """Places in the counts: (bit, context), each (W, K) or broadcast to it."""
    _, h, w = wave
    context_WK = np.zeros((len(h), self._bits), np.int64)
    for name in self._context:
      dt, dh, dw = _STEPS[name]
      context_WK = 3 * context_WK + self._known[1 - dt][h + 1 - dh, w + 1 - dw]
    return np.broadcast_to(np.arange(self._bits), context_WK.shape), context_WK


def _to_bits(ids: np.ndarray, vocabulary: int) -> np.ndarray:
  """Splits int32 (...) into bits 0 and 1, int32 (..., K)."""
  return ids[..., None] >> np.arange(count_bits(vocabulary)) & 1
