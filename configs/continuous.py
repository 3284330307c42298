"""Tokenizers without a quantizer: the first stages of W.A.L.T.

W.A.L.T (arXiv 2312.06662, section 4.1 and table 8) takes the final tokenizer of
MAGVIT-v2 without its quantizer: real latents of c channels, for generators with
latents.kind=continuous (docs/latent_generators.md). Its rFVD on UCF-101 with
c = 4, 8, 16 and 32 (table 3f) stands in the header of tokenizer_video.py. The
paper gives strides, widths, batch size and lengths; all else is the final
model's, trained from scratch.
"""

from collections.abc import Callable

import ml_collections

from configs import datasets


def without_quantizer(c: ml_collections.ConfigDict, channels: int) -> None:
  """Leaves latents as they are, real numbers of so many channels."""
  c.name += " without a quantizer"
  c.quantizer.name = "none"
  c.quantizer.embedding_dim = channels


def ucf101(channels: int) -> Callable[[ml_collections.ConfigDict], None]:
  """The tokenizer of videos, 2000 epochs of UCF-101's 9,537 clips."""

  def fill(c: ml_collections.ConfigDict) -> None:
    datasets.ucf101(c)
    _train(c, 74_000, 37)
    without_quantizer(c, channels)

  return fill


def kinetics600(c: ml_collections.ConfigDict) -> None:
  datasets.kinetics600(c)
  _train(c, 270_000, 1_500)
  without_quantizer(c, 8)


def imagenet256(c: ml_collections.ConfigDict) -> None:
  """The tokenizer of images, 8x, 270 epochs of 1,281,167 images."""
  datasets.imagenet2012(c)
  c.dataset.size = 256
  c.tokenizer.channel_multipliers = (1, 1, 2, 4)
  c.discriminator.channel_multipliers = (2, 4, 4, 4, 4, 4)
  _train(c, 1_351_000, 5_000)
  without_quantizer(c, 8)


def _train(
  c: ml_collections.ConfigDict, num_steps: int, warmup_steps: int
) -> None:
  """Sets the length and a warm-up of one epoch, as our other rows have it."""
  c.inflate_from = "none"
  c.num_steps = num_steps
  c.batch_size = 256
  c.optimizer.warmup_steps = warmup_steps


VIDEOS = {  # rows of configs/tokenizer_video.py
  "walt_c4": ucf101(4),
  "walt_ucf101": ucf101(8),
  "walt_c16": ucf101(16),
  "walt_c32": ucf101(32),
  "walt_kinetics600": kinetics600,
}
