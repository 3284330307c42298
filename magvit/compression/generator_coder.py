"""Entropy coding of token grids by the probabilities of a trained generator.

An autoregressive model codes by the chain rule, token by token: the length of a
stream is the model's loss, in bits. A masked model codes in the steps of its
sampler: each step predicts all tokens from the known ones, and codes the next
tokens of a fixed order, as many as the mask schedule says.

A grid is cut into blocks of the size that the generator models, from its first
corner on; places of the last blocks that lie outside the grid are not coded.
Blocks are independent of each other, and all are coded without a class.

Probabilities are floats of compiled programs: a stream can be decoded only
where the very same floats come out, as on the same device with the same
versions. Both directions therefore run the same programs on the same number of
blocks. Where floats differ, the checksum of the ids tells (`file_format.py`).
"""

from collections.abc import Callable
import functools
import math
from typing import Any

import constriction
import jax
import ml_collections
import numpy as np

from magvit import mesh as mesh_lib
from magvit import trained as trained_lib
from magvit.compression import information
from magvit.generators import autoregressive
from magvit.generators import hints
from magvit.generators import masked
from magvit.generators import sampling
from magvit.generators import tasks
from magvit.tokenizer import describe
from magvit.tokenizer import fingerprint
from magvit.workdir import folder as workdir_lib
from models.quantizers import bits as bits_lib

_BLOCKS_AT_ONCE = 8  # largest B
_FAMILY = constriction.stream.model.Categorical(perfect=False)

# Codes or decodes some sub-tokens: (probabilities (n, V), numbers of their
# blocks (n,), of their tokens (n,) or (), of the sub-token) -> values, int32
# (n,).
Exchange = Callable[[np.ndarray, np.ndarray, np.ndarray | int, int], np.ndarray]
# Exchanges all sub-tokens of some blocks: (whether a token is in the grid, bool
# (B, N); exchange) -> sub-tokens (B, N, F).
Walk = Callable[[np.ndarray, Exchange], np.ndarray]


class GeneratorCoder:
  """A coder by the probabilities of a generator. Make one with `load`."""

  def __init__(
    self,
    fingerprint_: str,
    walk: Walk,
    block_shape: tuple[int, int, int],
    factor_bits: tuple[int, ...],
  ):
    self.fingerprint = fingerprint_
    self._walk = walk
    self._block_shape = block_shape
    self._factor_bits = factor_bits

  def encode(self, ids_thw: np.ndarray) -> np.ndarray:
    """Codes ids of the generator's tokenizer as words, uint32 (n,)."""
    encoder = constriction.stream.queue.RangeEncoder()
    parts_MNF = np.asarray(
      bits_lib.factorize(self._cut(ids_thw), self._factor_bits), np.int32
    )

    def exchange(first, odds_nV, blocks, tokens, f):
      symbols = parts_MNF[first + blocks, tokens, f]
      encoder.encode(symbols, _FAMILY, odds_nV)
      return symbols

    self._run(ids_thw.shape, exchange)
    return encoder.get_compressed()

  def decode(
    self, words: np.ndarray, shape: tuple[int, int, int]
  ) -> np.ndarray:
    """Inverts `encode`: int32 (t, h, w). Damaged words give arbitrary ids.

    Raises:
      ValueError: words that cannot hold that many ids; few are decoded then.
    """
    decoder = constriction.stream.queue.RangeDecoder(words)
    budget = information.Budget(len(words))

    def exchange(first, odds_nV, *place):
      del first, place
      symbols = decoder.decode(_FAMILY, odds_nV)
      budget.spend(np.take_along_axis(odds_nV, symbols[:, None], axis=1))
      return symbols

    parts_MNF = self._run(shape, exchange)
    ids_MN = np.asarray(bits_lib.defactorize(parts_MNF, self._factor_bits))
    return self._join(ids_MN, shape)

  def _run(self, shape, exchange) -> np.ndarray:
    """Exchanges the sub-tokens (M, N, F) of all blocks, some at a time."""
    there_MN = self._cut(np.ones(shape, bool))
    size = min(len(there_MN), _BLOCKS_AT_ONCE)
    groups = []
    for first in range(0, len(there_MN), size):
      there_BN = there_MN[first : first + size]
      missing = size - len(there_BN)
      groups.append(
        self._walk(
          np.pad(there_BN, [(0, missing), (0, 0)]),
          lambda *step, first=first: exchange(first, *step),
        )
      )
    return np.concatenate(groups)[: len(there_MN)]

  def _blocks(self, shape) -> tuple[int, ...]:
    """Number of blocks along each axis."""
    return tuple(
      -(-size // block)
      for size, block in zip(shape, self._block_shape, strict=True)
    )

  def _cut(self, grid_thw: np.ndarray) -> np.ndarray:
    """Cuts a grid into blocks (M, N), with zeros outside the grid."""
    (a, b, c), (t, h, w) = self._blocks(grid_thw.shape), self._block_shape
    whole = (a * t, b * h, c * w)
    after = [(0, n - s) for n, s in zip(whole, grid_thw.shape, strict=True)]
    grid = np.pad(grid_thw, after).reshape(a, t, b, h, c, w)
    return grid.transpose(0, 2, 4, 1, 3, 5).reshape(a * b * c, t * h * w)

  def _join(self, blocks_MN: np.ndarray, shape) -> np.ndarray:
    """Inverts `_cut`."""
    (a, b, c), (t, h, w) = self._blocks(shape), self._block_shape
    grid = blocks_MN.reshape(a, b, c, t, h, w).transpose(0, 3, 1, 4, 2, 5)
    grid = grid.reshape(a * t, b * h, c * w)
    return grid[: shape[0], : shape[1], : shape[2]].astype(np.int32)


def load(workdir: str) -> GeneratorCoder:
  """Loads the coder of a generator's workdir, masked or autoregressive.

  Raises:
    ValueError: nothing was trained there, or no generator.
  """
  config = workdir_lib.read_config(workdir)
  if trained_lib.find_algorithm(config) not in _WALKS:
    raise ValueError(
      f"{workdir} holds {config.name!r}, which gives no probabilities of"
      " tokens: name the workdir of a generator"
    )
  mesh = mesh_lib.data_mesh(jax.devices()[:1])
  params = trained_lib.open_trained(workdir, config, mesh).params
  source = workdir_lib.own_tokenizer(workdir) or config.tokenizer_workdir
  shape = describe.sizes(workdir_lib.read_config(source)).latent(
    describe.clip_shape(config)
  )
  return make_coder(config, params["transformer"], shape)


def make_coder(
  config: ml_collections.ConfigDict,
  params: Any,
  block_shape: tuple[int, int, int],
) -> GeneratorCoder:
  """Makes a coder from a generator's config and its transformer's weights."""
  sections = ("transformer", "sampling")
  walk = _WALKS[trained_lib.find_algorithm(config)]
  return GeneratorCoder(
    fingerprint.fingerprint(config, params, sections),
    walk(config, params, math.prod(block_shape)),
    block_shape,
    tuple(config.transformer.factor_bits),
  )


def _chain_rule(
  config: ml_collections.ConfigDict, params, num_tokens: int
) -> Walk:
  """Walk of an autoregressive model: every token given those before it."""
  transformer = autoregressive.define_transformer(config, num_tokens)
  factors = len(config.transformer.factor_bits)
  start = jax.jit(
    lambda params, class_B: transformer(
      *(params, np.zeros((len(class_B), 0, factors), np.int32), class_B, 0),
      method="start",
    )
  )
  step = jax.jit(functools.partial(transformer, method="step"))
  odds = jax.jit(
    lambda *arguments: jax.nn.softmax(
      transformer(*arguments, method="logits")[:, 0]
    )
  )

  def walk(there_BN, exchange):
    batch = len(there_BN)
    class_B = np.full(batch, config.transformer.num_classes, np.int32)
    parts_BNF = np.zeros((batch, num_tokens, factors), np.int32)
    cache = start(params, class_B)
    for n in range(num_tokens):
      previous_BF = parts_BNF[:, n - 1]  # ignored at token 0
      x_B1D, cache = step(params, previous_BF, class_B, np.int32(n), cache)
      blocks = np.flatnonzero(there_BN[:, n])
      for f in range(factors):
        odds_BV = np.asarray(odds(params, x_B1D, parts_BNF[:, n, None, :f]))
        if len(blocks):
          got = exchange(odds_BV[blocks], blocks, n, f)
          parts_BNF[blocks, n, f] = got
      # Places outside the grid look like the token before.
      missing = ~there_BN[:, n]
      parts_BNF[missing, n] = parts_BNF[missing, n - 1]
    return parts_BNF

  return walk


def _in_steps(
  config: ml_collections.ConfigDict, params, num_tokens: int
) -> Walk:
  """Walk of a masked model: several tokens at once, as in its sampler."""
  # A file is read by the very numbers it was coded with, to the last bit, and
  # forms of attention round differently.
  config = ml_collections.ConfigDict(config.to_dict())
  config.transformer.attention = "plain"
  transformer = masked.define_transformer(config, num_tokens)
  factors = len(config.transformer.factor_bits)
  if hints.needed(config):
    raise ValueError(
      f"{config.name!r} has never made a clip without a condition, because of"
      f" transformer.{hints.FIELD}: its probabilities would compress nothing;"
      " name another generator"
    )
  names = tasks.task_names(config)
  free = "class_conditional"
  task = tasks.TASKS[free if free in names else names[0]].token
  odds = jax.jit(
    lambda *arguments: [jax.nn.softmax(x) for x in transformer(*arguments)]
  )
  # A multiplicative hash scatters the order over the grid, everywhere alike.
  order_N = np.argsort(np.arange(1, num_tokens + 1) * 2654435761 % 2**32)
  steps = config.sampling.steps
  schedule = sampling.SCHEDULES[config.sampling.schedule]
  left = [  # tokens unknown after each step
    int(num_tokens * float(schedule(np.float32(k / steps), num_tokens)))
    for k in range(1, steps)
  ]
  ends = [num_tokens - n for n in left] + [num_tokens]

  def walk(there_BN, exchange):
    batch = len(there_BN)
    class_B = np.full(batch, config.transformer.num_classes, np.int32)
    task_B = np.full(batch, task, np.int32)
    parts_BNF = np.zeros((batch, num_tokens, factors), np.int32)
    known_BN = np.zeros(there_BN.shape, bool)
    begin = 0
    for end in ends:
      if end <= begin:
        continue
      # JAX may still read the array when it is written to: it gets a copy.
      tables = odds(params, parts_BNF.copy(), ~known_BN, class_B, task_B)
      blocks, places = np.nonzero(there_BN[:, order_N[begin:end]])
      tokens = order_N[begin:end][places]
      for f, odds_BNV in enumerate(tables):
        if len(blocks):
          odds_nV = np.asarray(odds_BNV)[blocks, tokens]
          parts_BNF[blocks, tokens, f] = exchange(odds_nV, blocks, tokens, f)
      known_BN[blocks, tokens] = True
      begin = end
    return parts_BNF

  return walk


_WALKS = {
  autoregressive.AutoregressiveGenerator: _chain_rule,
  masked.MaskedGenerator: _in_steps,
}
