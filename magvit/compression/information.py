"""A limit on the work that a stream of coded tokens can ask for.

What a decoder reads costs -log2 of its probability, and a stream cannot hold
more of that than its own bits. A header that claims more tokens than its stream
holds is noticed as soon as the stream is used up.
"""

import numpy as np

# The coder rounds probabilities to multiples of 2**-24, and ends with a word
# that may be empty for the most part: what is allowed above the stream's bits.
_SMALLEST = 2.0**-24
_TOLERANCE, _END = 1.01, 128.0  # factor; bits


class Budget:
  """The information, in bits, that the words of a stream can still hold."""

  def __init__(self, num_words: int):
    self._left = _TOLERANCE * 32 * num_words + _END

  def spend(self, probability: np.ndarray) -> None:
    """Takes the cost of symbols that were decoded, given their probabilities.

    Raises:
      ValueError: the stream cannot hold so many.
    """
    self._left += float(np.log2(np.maximum(probability, _SMALLEST)).sum())
    if self._left < 0:
      raise ValueError("the stream ends before the tokens do")
