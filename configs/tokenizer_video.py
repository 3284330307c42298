"""MAGVIT-v2 video tokenizer: causal 3-D CNN with lookup-free quantization.

arXiv 2310.05737, sections 3.1-3.2.

  arg       clips       tokens              what
  digits    17x16x16    5x4x4 of 10 bits    the embedded set; two CPU cores

digits: starts from the image tokenizer (`configs/tokenizer_image.py:digits`),
inflated to three-frame kernels. README.md has its measured cost and figures.

  python main.py --config=configs/tokenizer_video.py:digits \
    --workdir=demo/video_tokenizer --config.inflate_from=demo/image_tokenizer
"""

import ml_collections

from configs import base


def get_config(arg: str = "digits") -> ml_collections.ConfigDict:
  if arg != "digits":
    raise ValueError(f"unknown variant {arg!r}: expected 'digits'")
  c = base.tokenizer()
  c.name = "digits video tokenizer"
  digits(c)
  c.num_steps = 300
  c.batch_size = 8
  return c


def digits(c: ml_collections.ConfigDict) -> None:
  """What the image and the video tokenizer of the digits share."""
  c.dataset.size = 16
  c.tokenizer.base_channels = 8
  c.tokenizer.channel_multipliers = (1, 2, 4)
  c.tokenizer.temporal_downsample = (True, True)
  c.tokenizer.num_res_blocks = 1
  c.tokenizer.bits = 10
  c.tokenizer.norm_groups = 4
  c.discriminator.base_channels = 4
  c.discriminator.channel_multipliers = (2, 4, 8)
  c.loss.perceptual_network = "off"  # no weights are shipped, so that
  c.loss.reconstruction = 50.0  # the pixels have to carry its share
  c.loss.entropy = 0.005
  c.loss.entropy_annealing_steps = 100
  c.optimizer.peak_learning_rate = 2e-3
  c.optimizer.warmup_steps = 20
  c.ema_decay = 0.97
