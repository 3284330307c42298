"""Tests of magvit/compression/generator_coder.py."""

import functools

import jax
import numpy as np
import pytest

from magvit.compression import generator_coder
from magvit.generators import autoregressive
from magvit.generators import masked
from tests import tiny

_BLOCK = (3, 2, 2)
_VOCABULARY = 64
_MAKE = {
  "autoregressive": (tiny.autoregressive, autoregressive.define_transformer),
  "masked": (tiny.masked, masked.define_transformer),
}


@functools.cache  # all tests run 8 blocks, and compile once
def _model(kind):
  """Makes (transformer, parameters, coder)."""
  get_config, define = _MAKE[kind]
  config = get_config("")
  config.transformer.num_layers = 1
  config.sampling.steps = 5
  transformer = define(config, 12)
  # Weights are larger than trained ones, so that some tokens are likelier.
  params = jax.tree.map(lambda x: 3.0 * x, tiny.trained_like(transformer))
  return transformer, params, generator_coder.make_coder(config, params, _BLOCK)


def _random_ids(shape):
  return np.random.default_rng(0).integers(0, _VOCABULARY, shape, np.int32)


@pytest.mark.parametrize("kind", _MAKE)
def test_what_was_coded_comes_back_from_grids_of_any_size(kind):
  coder = _model(kind)[2]
  ids = _random_ids((4, 3, 5))  # 12 blocks, most of them not whole
  decoded = coder.decode(coder.encode(ids), ids.shape)
  np.testing.assert_array_equal(decoded, ids)
  assert decoded.dtype == np.int32


def test_the_chain_rule_costs_what_the_model_says_of_the_whole_sequence():
  transformer, params, coder = _model("autoregressive")
  ids = _random_ids((8 * _BLOCK[0], *_BLOCK[1:]))  # the blocks lie along time
  parts = np.stack([ids.reshape(8, 12) & 7, ids.reshape(8, 12) >> 3], -1)
  logits = transformer(params, parts, np.full(8, 10, np.int32))
  bits = 0.0
  for f, logits_BNV in enumerate(logits):
    log2_p = np.asarray(jax.nn.log_softmax(logits_BNV)) / np.log(2.0)
    bits -= np.take_along_axis(log2_p, parts[..., f, None], -1).sum()
  # The stream ends within two words of 32 bits; even odds are further away.
  assert abs(32 * len(coder.encode(ids)) - bits) <= 64
  assert abs(bits - 6 * ids.size) > 64


def test_what_is_outside_the_grid_costs_nothing():
  def even_odds(there_BN, exchange):
    parts_BNF = np.zeros((*there_BN.shape, 1), np.int32)
    for n in range(there_BN.shape[1]):
      blocks = np.flatnonzero(there_BN[:, n])
      odds_nV = np.full((len(blocks), _VOCABULARY), 1 / _VOCABULARY, np.float32)
      parts_BNF[blocks, n, 0] = exchange(odds_nV, blocks, n, 0)
    return parts_BNF

  coder = generator_coder.GeneratorCoder("", even_odds, _BLOCK, (6,))
  for shape in ((40, 3, 5), (4, 1, 9), (1, 1, 1)):
    ids = _random_ids(shape)
    words = coder.encode(ids)
    assert abs(32 * len(words) - 6 * ids.size) <= 64
    np.testing.assert_array_equal(coder.decode(words, shape), ids)


def test_the_order_of_a_masked_model_takes_every_token_once():
  coder, seen = _model("masked")[2], []

  def exchange(odds_nV, blocks, tokens, f):
    np.testing.assert_allclose(odds_nV.sum(-1), 1.0, rtol=1e-5)
    if f == 0:
      seen.extend(tokens[blocks == 0].tolist())
    return np.zeros(len(blocks), np.int32)

  coder._walk(np.ones((8, 12), bool), exchange)
  assert sorted(seen) == list(range(12))
  assert seen != sorted(seen)


def test_models_have_different_names():
  config = tiny.autoregressive("")
  transformer = autoregressive.define_transformer(config, 12)
  params = tiny.trained_like(transformer)
  a = generator_coder.make_coder(config, params, _BLOCK).fingerprint
  assert a != _model("autoregressive")[2].fingerprint
  assert a == generator_coder.make_coder(config, params, _BLOCK).fingerprint


@pytest.mark.parametrize("learnt", [True, False])
def test_a_model_of_hints_alone_is_refused(learnt):
  """Nothing is given to what is compressed, and it never saw that."""
  config = tiny.masked("")
  config.transformer.condition_hints = True
  config.tasks.class_conditional = float(learnt)
  params = _model("masked")[1]
  make = lambda: generator_coder.make_coder(config, params, _BLOCK)
  if learnt:
    assert make().fingerprint != _model("masked")[2].fingerprint
    return
  with pytest.raises(ValueError, match="'tiny generator' .*condition_hints"):
    make()


def test_a_tokenizer_is_no_generator(tiny_tokenizer_workdir):
  with pytest.raises(ValueError, match="'tiny tokenizer'.* of a generator"):
    generator_coder.load(tiny_tokenizer_workdir)


def test_a_workdir_codes(tiny_generator_workdir):
  coder = generator_coder.load(tiny_generator_workdir)
  ids = _random_ids((3, 8, 8))
  decoded = coder.decode(coder.encode(ids), ids.shape)
  np.testing.assert_array_equal(decoded, ids)
