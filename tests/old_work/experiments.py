"""Experiments of the old work, for --config=tests/old_work/experiments.py:ARG.

Their paths are relative, so that a workdir is the same experiment wherever the
archive is unpacked: programs run in the folder that holds it.
"""

import ml_collections

from tests import tiny

COMPLETED = "frame_prediction"  # the task that is sampled
_STORED = "central_outpainting"  # a task whose condition has tokens of its own


def get_config(arg: str) -> ml_collections.ConfigDict:
  return {
    "tokenizer": tokenizer,
    "masked": masked,
    "autoregressive": autoregressive,
  }[arg]()


def tokenizer() -> ml_collections.ConfigDict:
  """A video tokenizer of the digits with 6 bits for a token."""
  c = tiny.tokenizer()
  c.name = "old tokenizer"
  c.num_steps = 4
  c.tokenizer.base_channels = 2
  c.tokenizer.channel_multipliers = (1, 1)
  c.discriminator.base_channels = 2
  c.discriminator.channel_multipliers = (1, 1, 1)
  c.loss.lecam, c.loss.lecam_decay = 1.0, 0.5  # its anchors are seen in losses
  c.dataset.eval_examples = 8
  return c


def masked() -> ml_collections.ConfigDict:
  """A masked generator that trains from stored tokens."""
  c = tiny.masked("tokenizer")
  c.name = "old masked generator"
  c.dataset.tokens = "tokens"
  _shrink(c)
  for task in c.tasks:
    c.tasks[task] = float(task in (COMPLETED, _STORED))
  return c


def autoregressive() -> ml_collections.ConfigDict:
  """An autoregressive generator that trains from pixels."""
  c = tiny.autoregressive("tokenizer")
  c.name = "old autoregressive generator"
  _shrink(c)
  for task in c.tasks:
    c.tasks[task] = float(task == COMPLETED)
  return c


def _shrink(c: ml_collections.ConfigDict) -> None:
  c.num_steps = 4
  c.dataset.eval_examples = 8
  c.transformer.num_layers = 1
  c.transformer.width = 4
  c.transformer.mlp_width = 8
