"""Tests of magvit/compression/context_coder.py."""

import math

import numpy as np
import pytest

from magvit.compression import context_coder

_WORD = 32  # bits; a stream has at most two words more than the sum


def _random_ids(shape, vocabulary):
  return np.random.default_rng(0).integers(0, vocabulary, shape, np.int32)


def _bits(ids, vocabulary):
  return _WORD * len(context_coder.encode(ids, vocabulary)[1])


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 4, 6), (2, 5, 1), (1, 1, 7)])
@pytest.mark.parametrize("vocabulary", [1, 2, 1000, 2**18, 2**31 - 1])
def test_what_was_coded_comes_back(shape, vocabulary):
  ids = _random_ids(shape, vocabulary)
  for context in context_coder.CONTEXTS:
    number = context_coder.CONTEXTS.index(context)
    words = context_coder._encode(ids, vocabulary, context)
    decoded = context_coder.decode(number, words, shape, vocabulary)
    np.testing.assert_array_equal(decoded, ids)
    assert decoded.dtype == np.int32


def test_ids_without_a_pattern_cost_their_bits_and_no_more():
  ids = _random_ids((4, 8, 8), 2**18)
  number, words = context_coder.encode(ids, 2**18)
  assert context_coder.CONTEXTS[number] is None
  assert abs(_WORD * len(words) - 18 * ids.size) <= 2 * _WORD


def test_counting_costs_what_its_closed_form_says():
  """The i-th of a row of zeros has the probability (i + 1/2) / (i + 1)."""
  ids = np.zeros((1000, 1, 1), np.int32)
  words = context_coder._encode(ids, 2**10, ())
  expected = -10 * sum(math.log2((i + 0.5) / (i + 1)) for i in range(1000))
  assert abs(_WORD * len(words) - expected) <= 2 * _WORD


@pytest.mark.parametrize("context", context_coder.CONTEXTS[2:])
def test_neighbours_that_tell_the_token_make_it_cheap(context):
  frames, height, width = 6, 12, 12
  if context == ("before",):
    ids = np.repeat(_random_ids((1, height, width), 256), frames, axis=0)
  else:
    flat = _random_ids((frames, 1, 1), 256)
    ids = np.broadcast_to(flat, (frames, height, width))
  learnt = _WORD * len(context_coder._encode(ids, 256, context))
  assert learnt < 0.4 * 8 * ids.size
  assert _bits(ids, 256) <= learnt


def test_the_stream_stays_the_same():
  """The words are recorded: files of earlier versions must decode."""
  ids = np.arange(24, dtype=np.int32).reshape(2, 3, 4) // 6
  words = np.array([388358, 2975083096], np.uint32)
  decoded = context_coder.decode(2, words, ids.shape, 64)
  np.testing.assert_array_equal(decoded, ids)
  number, ours = context_coder.encode(ids, 64)
  assert (number, ours.tolist()) == (2, words.tolist())
