"""Configs of the rows of `benchmarks/accelerator.py`, shrunk where asked."""

import ml_collections

from benchmarks.accelerator_row import Row
from magvit import trained as trained_lib
from magvit.workdir import folder as workdir_lib

TOKENIZER = "configs/tokenizer_video.py:ucf101"


def clips(row: Row, number: int) -> int:
  """Clips of a batch: this number, or 2 of shrunk models."""
  return 2 if row.tiny else number


def tokens(row: Row) -> int:
  """Tokens of a clip."""
  return 20 if row.tiny else 1280


def masked(row: Row, number: int) -> ml_collections.ConfigDict:
  """MAGVIT-L on two sub-tokens of 2^9."""
  return _generator(row, "configs/masked.py:ucf101", number)


def autoregressive(row: Row, number: int) -> ml_collections.ConfigDict:
  """The AR-LM of 840M."""
  config = _generator(row, "configs/autoregressive.py:ucf101", number)
  if row.tiny:
    config.loss_chunks = 2
  return config


def tokenizer(row: Row, number: int) -> ml_collections.ConfigDict:
  """The tokenizer of 376M."""
  config = _read(row, TOKENIZER, number)
  if row.tiny:
    config.dataset.frames = 5
    config.tokenizer.base_channels = 8
    config.tokenizer.channel_multipliers = (1, 2)
    config.tokenizer.temporal_downsample = (True,)
    config.tokenizer.num_res_blocks = 1
    config.tokenizer.norm_groups = 4
    config.discriminator.base_channels = 4
    config.discriminator.channel_multipliers = (2, 2)
    config.loss.perceptual_network = "off"
  return config


def _generator(row: Row, name: str, number: int) -> ml_collections.ConfigDict:
  """A generator's config that reads stored tokens."""
  config = _read(row, name, number)
  config.tokenizer_workdir = TOKENIZER
  config.dataset.tokens = "stored"
  if row.tiny:
    config.transformer.num_layers = 2
    config.transformer.width = 32
    config.transformer.mlp_width = 64
    config.transformer.num_heads = 2
  return config


def _read(row: Row, name: str, number: int) -> ml_collections.ConfigDict:
  """A config in bfloat16, with the fields that the row sets."""
  config = workdir_lib.read_config_file(name)
  config.batch_size = number
  config[trained_lib.find_algorithm(config).facts.section].dtype = "bfloat16"
  if row.tiny:
    config.dataset.size = 16
  for field, value in row.fields.items():
    if field.partition(".")[0] in config:
      section, _, last = field.rpartition(".")
      node = config[section] if section else config
      if last in node:
        node[last] = type(node[last])(value)
  return config
