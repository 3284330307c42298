"""What the rows folder64, folder128 and folder256 of both generators share."""

import ml_collections

from configs import datasets


def small_generator(c: ml_collections.ConfigDict) -> None:
  """A generator of 9 x 64 x 64 that two CPU cores train in minutes."""
  datasets.folder(c, 64)
  c.dataset.frames = 9
  c.checkpoint_every = 500
  c.automatic.epochs = 50
  c.automatic.least_steps = 120
  c.automatic.most_steps = 50_000
  c.automatic.batch_size = 4
  c.transformer.num_layers = 3
  c.transformer.width = 128
  c.transformer.mlp_width = 512
  c.transformer.num_heads = 4
  c.transformer.num_classes = 0
  c.optimizer.peak_learning_rate = 3e-3
  c.optimizer.warmup_steps = 20


def generator(c: ml_collections.ConfigDict, size: int, batch_size: int) -> None:
  """A generator for a GPU or TPU, of MAGVIT-B's size."""
  datasets.folder(c, size)
  c.checkpoint_every = 1000
  c.eval_every = 10_000
  c.automatic.epochs = 2000
  c.automatic.least_steps = 10_000
  c.automatic.most_steps = 500_000
  c.automatic.batch_size = batch_size
  c.transformer.num_layers = 12
  c.transformer.width = 768
  c.transformer.mlp_width = 3072
  c.transformer.num_heads = 12
  c.transformer.factor_bits = (9, 9)
  c.transformer.dtype = "bfloat16"
  c.transformer.num_classes = 0
  c.optimizer.warmup_steps = 1000
